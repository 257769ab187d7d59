"""Exports one small model at every opset that an exporter or a converter reaches, with PyTorch's outputs and gradients beside.

Usage: opsets.py OUT.zip
The model goes through what the operator sets changed from 9 on: clipping, padding, slices, splits, squeezing, reductions, softmax,
norms, pooling, resizing, attention. torch's older exporter gives opsets 9 to 20, its newer one 18 and up, and onnx's version
converter takes a file of the newer one on from there; what they refuse is reported and left out.
"""
import io
import sys
import traceback
import warnings
import zipfile

import numpy as np
import onnx
import torch
from onnx import version_converter
from torch import nn
from torch.nn import functional as F

warnings.filterwarnings("ignore")


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm2d = nn.Conv2d(3, 12, 2, stride=2), nn.BatchNorm2d(12)
        self.groups, self.norm = nn.GroupNorm(3, 12), nn.LayerNorm(12)
        self.qkv, self.out, self.drop = nn.Linear(12, 36), nn.Linear(12, 12), nn.Dropout(0.1)
        self.mlp = nn.Sequential(nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 12))
        self.head = nn.Linear(12, 5)
        with torch.no_grad():
            self.norm2d.running_mean.uniform_(-0.2, 0.2)
            self.norm2d.running_var.uniform_(0.5, 1.5)

    def forward(self, pixels, mask):
        x = self.norm2d(self.stem(F.pad(pixels, (1, 1, 0, 2), value=0.5)))
        x = F.relu6(self.groups(x) + 1)
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        x = F.hardswish(F.avg_pool2d(x, 2)) + F.max_pool2d(x, 2) * F.hardsigmoid(F.avg_pool2d(x, 1, 2))
        x = x.flatten(2).transpose(1, 2)
        y = self.norm(x)
        q, k, v = self.qkv(y).split(12, -1)
        scores = (q @ k.transpose(1, 2) * 12 ** -0.5).masked_fill(mask[:, None, :] == 0, -1e9)
        x = x + self.drop(self.out(torch.softmax(scores, 2) @ v))
        x = x + F.elu(self.mlp(x)).clamp(-0.7, 0.9)
        first, rest = x[:, 0:1].squeeze(1), x[:, 1:]
        top = rest.topk(3, dim=1).values.mean(1)
        pooled = first.abs().sqrt() + rest.amax(1) - rest.amin(1) + rest.sum(1) * 0.1 + top + torch.logsumexp(rest, 1)
        pooled = pooled / pooled.norm(dim=-1, keepdim=True) + F.log_softmax(pooled, 1) + F.leaky_relu(pooled) * torch.where(pooled > 1, pooled, pooled * 0.5)
        return self.head(pooled)


def slim(model):
    """The file without what an exporter notes of its source lines."""
    model = onnx.load_from_string(model)
    del model.graph.value_info[:]
    for x in [model.graph, *model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer]:
        x.doc_string = ""
        del x.metadata_props[:]
    return model.SerializeToString()


def main(out):
    torch.manual_seed(0)
    model = Model().eval()
    pixels, mask = torch.randn(2, 3, 8, 8), torch.ones(2, 25, dtype=torch.int64)
    mask[1, 20:] = 0
    weight = torch.randn(2, 5)
    x = pixels.clone().requires_grad_()
    y = model(x, mask)
    (y * weight).sum().backward()
    files = {}
    for opset in range(9, 29):
        for newer in (False, True):
            name = f"{'newer' if newer else 'older'}-{opset:02}"
            buffer = io.BytesIO()
            try:
                names = {"input_names": ["pixels", "mask"], "output_names": ["y"], "opset_version": opset}
                if newer:
                    if opset < 18:
                        continue
                    shapes = {"pixels": {0: torch.export.Dim("batch")}, "mask": {0: torch.export.Dim("batch")}}
                    torch.onnx.export(model, (pixels, mask), dynamo=True, dynamic_shapes=shapes, verbose=False, external_data=False, **names).save(buffer)
                else:
                    torch.onnx.export(model, (pixels, mask), buffer, dynamo=False, dynamic_axes={"pixels": {0: "batch"}, "mask": {0: "batch"}}, **names)
                got = {s.domain: s.version for s in onnx.load_from_string(buffer.getvalue()).opset_import}[""]
                if got != opset:
                    raise ValueError(f"the exporter gave opset {got}")
                files[name] = buffer.getvalue()
            except Exception as e:
                print(name, "refused:", type(e).__name__, str(e).strip().splitlines()[0][:150] if str(e).strip() else "")
    base = onnx.load_from_string(files[max(n for n in files if n.startswith("newer"))])
    for opset in range(19, onnx.defs.onnx_opset_version() + 1):
        try:
            files[f"converted-{opset:02}"] = version_converter.convert_version(base, opset).SerializeToString()
        except Exception as e:
            print("converted", opset, "refused:", str(e).strip().splitlines()[0][:150])
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as z:
        def put(name, data):
            z.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)

        for name, data in sorted(files.items()):
            put(name + ".onnx", slim(data))
        reference = io.BytesIO()
        np.savez(reference, pixels=pixels.numpy(), mask=mask.numpy(), weight=weight.numpy(), y=y.detach().numpy(), gradient=x.grad.numpy())
        put("reference.npz", reference.getvalue())
    print(len(files), "models:", " ".join(sorted(files)))


if __name__ == "__main__":
    main(sys.argv[1])
