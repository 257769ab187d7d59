"""Runs a baked ONNX file in plain ONNX Runtime and compares with what foretoken makes of the same input.

Usage: baked.py BAKED.onnx EXAMPLE.npz     both from `foretoken model export --out BAKED.onnx --example EXAMPLE.npz`
Needs onnxruntime and numpy, and nothing of foretoken. It is an error when an output differs by more than 1e-4 of its
largest element.
"""
import sys

import numpy as np
import onnxruntime


def main(model, example):
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    arrays = np.load(example)
    outputs = [o.name for o in session.get_outputs() if o.name in arrays]
    if not outputs:
        sys.exit(f"{example} holds no output of {model}")
    found = session.run(outputs, {i.name: arrays[i.name] for i in session.get_inputs()})
    for name, got in zip(outputs, found):
        want = arrays[name]
        error = np.abs(got - want).max() / np.abs(want).max()
        print(f"{name}{list(want.shape)}: {error:.1e}")
        if got.shape != want.shape or not error <= 1e-4:
            sys.exit(f"{name}: {got.shape} and an error of {error:.1e}, want {want.shape} and at most 1e-4")


if __name__ == "__main__":
    main(*sys.argv[1:])
