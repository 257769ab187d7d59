"""Twenty steps of tuning in PyTorch, from the values and batches that foretoken's test wrote down.

Usage: trajectory.py BUNDLE IN OUT
IN and OUT are folders; each METHOD.safetensors of IN holds where a run starts, its batches and learning rates, and OUT's holds
the parameters after the last step and the loss of each. Optimiser: torch.optim.SGD. See `make reference`.
"""
import pathlib
import sys

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from towers import ImageTower, TextTower


def layer(name):
    return int(name.split(".")[1])


def run(data, images, texts):
    params = {n.removeprefix("start."): torch.nn.Parameter(data[n].clone()) for n in data if n.startswith("start.")}
    order = lambda kind: [params[n] for n in sorted(params) if n.startswith(kind + ".")]
    scale, momentum, decay = (float(data[n]) for n in ("scale", "momentum", "weight_decay"))
    opt = torch.optim.SGD(params.values(), lr=1.0, momentum=momentum, weight_decay=decay)
    losses = []
    for step, rate in enumerate(data["rates"]):
        context, visual = order("context"), order("visual")
        couple = [n for n in sorted(params, key=lambda n: (layer(n) if n.startswith("couple") else -1, n)) if n.startswith("couple") and n.endswith("weight")]
        if couple:  # MaPLe: image tokens are linear maps of the context
            visual = [torch.nn.functional.linear(context[layer(n)], params[n], params[n.replace("weight", "bias")]) for n in couple]
        features = data[f"batch.{step:04d}.features"]
        f = images(features, visual) if visual else features
        w = texts(data["ids"], context) if context else data["classes"]
        logits = scale * torch.nn.functional.normalize(f, dim=-1) @ torch.nn.functional.normalize(w, dim=-1).T
        loss = torch.nn.functional.cross_entropy(logits, data[f"batch.{step:04d}.labels"])
        for g in opt.param_groups:
            g["lr"] = float(rate)
        opt.zero_grad()
        loss.backward()
        opt.step()
        losses.append(loss.item())
    return losses, params


def main(bundle, source, out):
    torch.set_num_threads(1)
    images, texts = ImageTower(f"{bundle}/onnx/vision_model.onnx"), TextTower(f"{bundle}/onnx/text_model.onnx")
    for path in sorted(pathlib.Path(source).glob("*.safetensors")):
        with safe_open(path, "pt") as f:
            data, digest = {n: f.get_tensor(n) for n in f.keys()}, f.metadata()["digest"]
        losses, params = run(data, images, texts)
        print(f"{path.stem}: loss {losses[0]:.4f} to {losses[-1]:.4f}, {100 * (1 - losses[-1] / losses[0]):.1f} % less")
        ends = {f"end.{n}": p.detach().contiguous() for n, p in params.items()}
        save_file({"losses": torch.tensor(losses), **ends}, f"{out}/{path.name}", metadata={"digest": digest})


if __name__ == "__main__":
    main(*sys.argv[1:])
