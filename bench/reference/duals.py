"""Exports small two-tower models whole, by both of torch's exporters, with what PyTorch makes of one batch.

Usage: duals.py OUT.zip
Each file computes both towers' embeddings and the logits between them, as optimum exports CLIP and SigLIP.
"""
import io
import sys
import warnings
import zipfile

import numpy as np
import torch
from torch import nn

from opsets import slim

warnings.filterwarnings("ignore")
SIZES = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2)


class Dual(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, input_ids, pixel_values):
        y = self.inner(input_ids=input_ids, pixel_values=pixel_values)
        return y.logits_per_image, y.logits_per_text, y.text_embeds, y.image_embeds


def models():
    import transformers as t
    vision = dict(**SIZES, image_size=16, patch_size=8)
    torch.manual_seed(0)
    yield "clip", t.CLIPModel(t.CLIPConfig(text_config=dict(**SIZES, vocab_size=50, max_position_embeddings=8, eos_token_id=49), vision_config=vision, projection_dim=12))
    yield "siglip", t.SiglipModel(t.SiglipConfig(text_config=dict(**SIZES, vocab_size=50, max_position_embeddings=8), vision_config=vision))


def main(out):
    torch.manual_seed(1)
    ids, pixels = torch.randint(1, 48, (3, 8)), torch.randn(2, 3, 16, 16)
    ids[:, -1] = 49
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as z:
        def put(name, data):
            z.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)

        for name, inner in models():
            model = Dual(inner.eval())
            with torch.no_grad():
                found = dict(zip(NAMES, model(ids, pixels)))
            reference = io.BytesIO()
            np.savez(reference, input_ids=ids.numpy(), pixel_values=pixels.numpy(), **{k: v.numpy() for k, v in found.items()})
            put(name + ".npz", reference.getvalue())
            for exporter in ("older", "newer"):
                buffer = io.BytesIO()
                how = {"input_names": ["input_ids", "pixel_values"], "output_names": NAMES, "opset_version": 18}
                if exporter == "newer":
                    shapes = {"input_ids": {0: torch.export.Dim("texts")}, "pixel_values": {0: torch.export.Dim("images")}}
                    torch.onnx.export(model, (ids, pixels), dynamo=True, dynamic_shapes=shapes, external_data=False, verbose=False, **how).save(buffer)
                else:
                    axes = {"input_ids": {0: "texts"}, "pixel_values": {0: "images"}}
                    torch.onnx.export(model, (ids, pixels), buffer, dynamo=False, dynamic_axes=axes, **how)
                put(f"{name}-{exporter}.onnx", slim(buffer.getvalue()))


NAMES = ["logits_per_image", "logits_per_text", "text_embeds", "image_embeds"]

if __name__ == "__main__":
    main(sys.argv[1])
