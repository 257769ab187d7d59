"""Writes files as PyTorch writes them into prompt/pickle/testdata, with their contents as JSON: all element types, views
that share a storage, parameters, the old stream, an early textual inversion's ParameterDict, and hostile ones.

Usage: pickles.py FOLDER
Needs torch.
"""
import json
import os
import pickle
import sys
import zipfile

import torch

DTYPES = {
    "f64": torch.float64, "f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16, "i64": torch.int64, "i32": torch.int32,
    "i16": torch.int16, "i8": torch.int8, "u8": torch.uint8, "bool": torch.bool,
}


def plain(v):
    """What Go's test compares: tensors as their shape and numbers."""
    if isinstance(v, torch.Tensor):
        return {"shape": list(v.shape), "values": [float(x) for x in v.detach().double().flatten()]}
    if isinstance(v, (dict, torch.nn.ParameterDict)):
        return {"keys": [[k, plain(x)] for k, x in v.items()]}
    if isinstance(v, (list, tuple)):
        return [plain(x) for x in v]
    return v


class Evil:
    def __init__(self, f, *args):
        self.f, self.args = f, args

    def __reduce__(self):
        return self.f, self.args


def main(folder):
    base = torch.arange(24, dtype=torch.float32)
    grid = base.view(4, 6)
    values = {
        "types": {n: torch.tensor([[0, 1, 2.5], [3, -4 if d.is_signed else 4, 5]]).to(d) for n, d in DTYPES.items()},
        "views": {"whole": base, "grid": grid, "turned": grid.t(), "part": grid[1:3, 2:5], "steps": base[1::5], "one": base[7], "wide": base[:2].expand(3, 2), "none": base[:0]},
        "plain": {"a": [1, -1, 255, 256, 70000, -2**40, 2**62], "b": (True, False, None, 1.5, "text ü"), "c": {}, 7: (), "d": [("x",), ("y", 1)], "step": 500},
        "parameter": {"<mug>": torch.nn.Parameter(torch.tensor([1.0, 2.0]))},
    }
    model = torch.nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        model.bias.zero_()
    values["model"] = model.state_dict()
    expected = {}
    for name, value in values.items():
        torch.save(value, os.path.join(folder, name + ".pt"))
        expected[name + ".pt"] = plain(value)
        torch.save(value, os.path.join(folder, name + "_old.pt"), _use_new_zipfile_serialization=False)
        expected[name + "_old.pt"] = plain(value)
    # PyTorch up to 1.11 wrote ParameterDict with its parameters in its state.
    early = torch.nn.ParameterDict()
    early._parameters["*"] = torch.nn.Parameter(torch.tensor([[1.0, 2.0, 3.0]]))
    early._keys = {}
    torch.save({"string_to_token": {"*": torch.tensor(265)}, "string_to_param": early}, os.path.join(folder, "early.pt"))
    expected["early.pt"] = {"keys": [["string_to_token", {"keys": [["*", plain(torch.tensor(265))]]}], ["string_to_param", {"keys": [["*", plain(torch.tensor([[1.0, 2.0, 3.0]]))]]}]]}
    with open(os.path.join(folder, "expected.json"), "w") as f:
        json.dump(expected, f, indent=0)

    hostile = {"system": Evil(os.system, "true"), "eval": Evil(eval, "1"), "nested": {"<mug>": [torch.ones(1), Evil(getattr, "x", "y")]}}
    for name, value in hostile.items():
        torch.save(value, os.path.join(folder, "hostile_" + name + ".pt"))
    with open(os.path.join(folder, "hostile_bare.pt"), "wb") as f:
        pickle.dump(Evil(os.system, "true"), f)
    with zipfile.ZipFile(os.path.join(folder, "hostile_zip.pt"), "w") as z:
        z.writestr("archive/data.pkl", pickle.dumps({"a": Evil(__import__, "os")}, protocol=4))


main(sys.argv[1])
