"""Cache what the starter's frozen image tower makes of every picture: 26 states of 256 numbers, which the captioner reads.

Usage: seen.py WORK BUNDLE VIEW
View 0 is every picture on white; views 1.. are the trained ones, augmented as tokens.py does.
Writes WORK/seen{VIEW}.npy [n,26,256] float16 and WORK/seen{VIEW}_rows.npy, the pictures' rows.
"""
import sys

import numpy as np
import onnxruntime
import torch

import captions
import tokens


@torch.no_grad()
def main(work, bundle, view):
    torch.set_num_threads(1)
    torch.manual_seed(view)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(f"{bundle}/onnx/vision_model.onnx", options, providers=["CPUExecutionProvider"])
    meta = captions.load(work)
    rows = np.array(captions.trained(meta))
    if view == 0:  # the trained ones first, so that an early reader has them
        rows = np.concatenate([rows, np.setdiff1d(np.arange(len(meta["rows"])), rows)])
    pictures = np.load(f"{work}/data160/pairs.npz")["x"]
    out = np.lib.format.open_memmap(f"{work}/seen{view}.npy", "w+", dtype="f2", shape=(len(rows), 26, 256))
    np.save(f"{work}/seen{view}_rows.npy", rows)
    for i in range(0, len(rows), 32):
        rgba = torch.from_numpy(pictures[rows[i : i + 32]]).permute(0, 3, 1, 2).float() / 255
        x = tokens.augment(rgba) if view else tokens.on_white(rgba)
        out[i : i + 32] = session.run(["last_hidden_state"], {"pixel_values": ((x - tokens.MEAN) / tokens.STD).numpy()})[0]
        if i % 3200 == 0:
            print(view, i, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
