"""Writes python.safetensors with Python's own safetensors, as another tool would: its own order,
its own padding, keys of its own in the metadata. Needs: safetensors, numpy."""
import json
import pathlib

import numpy as np
from safetensors.numpy import save_file

card = {
    "format": 1,
    "bundle": {"name": "starter", "digest": "ab" * 32},
    "method": "coop",
    "classes": ["ankle boot", "bag"],
    "seeds": {"split": 1, "shots": 2, "train": 3},
    "parameters": 12,
}
tensors = {
    "context": np.arange(12, dtype=np.float32).reshape(3, 4) / 8,
    "head.weight": np.array([[1, -2, 0.5], [0, 65504, -0.25]], dtype=np.float16),
    "head.bias": np.array([0.5, -0.5], dtype=np.float64),
    "order": np.array([1, 0, 255], dtype=np.uint8),
}
save_file(tensors, pathlib.Path(__file__).parent / "python.safetensors", {"foretoken": json.dumps(card), "format": "np"})
