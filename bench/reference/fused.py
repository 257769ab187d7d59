"""Writes four blocks of CLIP's ViT-B/16 as ONNX Runtime's optimizer and quantizers leave them, with random weights: for `make fused`,
which measures what it is worth to run them as they are and not written out.

Usage: fused.py OUT
"""
import pathlib
import sys

import onnx
import torch
from onnxruntime import quantization
from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer
from onnxruntime.transformers import optimizer
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection, ViTConfig, ViTModel

SIZES = dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=4, num_attention_heads=12, image_size=224, patch_size=16)


class Pooled(torch.nn.Module):
    def __init__(self, inner, pick):
        super().__init__()
        self.inner, self.pick = inner, pick

    def forward(self, x):
        return self.pick(self.inner(pixel_values=x))


def export(model, path, opset=17):
    torch.onnx.export(model.eval(), (torch.rand(2, 3, 224, 224),), str(path), input_names=["pixel_values"], output_names=["image_embeds"], opset_version=opset, dynamo=False,
                      dynamic_axes={"pixel_values": {0: "batch"}, "image_embeds": {0: "batch"}})


def optimized(path, how, out):
    optimizer.optimize_model(str(path), model_type=how, num_heads=12, hidden_size=768, opt_level=0).save_model_to_file(str(out))


def few_bits(path, out, bits, written, opset=17):
    model = onnx.load(path)
    if opset > model.opset_import[0].version:
        model = onnx.version_converter.convert_version(model, opset)
    q = MatMulNBitsQuantizer(model, algo_config=DefaultWeightOnlyQuantConfig(block_size=32, is_symmetric=True, quant_format=written, op_types_to_quantize=("MatMul",), bits=bits))
    q.process()
    q.model.save_model_to_file(str(out))


def main(out):
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    clip = Pooled(CLIPVisionModelWithProjection(CLIPVisionConfig(**SIZES, projection_dim=512, attn_implementation="eager")), lambda y: y.image_embeds)
    vit = Pooled(ViTModel(ViTConfig(**SIZES, attn_implementation="eager"), add_pooling_layer=False), lambda y: y.last_hidden_state[:, 0])
    with torch.no_grad():
        export(clip, out / "clip.onnx", 14)
        export(vit, out / "vit.onnx", 14)
    optimized(out / "clip.onnx", "clip", out / "clip_fused.onnx")
    optimized(out / "vit.onnx", "vit", out / "vit_fused.onnx")
    few_bits(out / "clip.onnx", out / "clip_4bits.onnx", 4, quantization.QuantFormat.QOperator)
    few_bits(out / "clip.onnx", out / "clip_8bits.onnx", 8, quantization.QuantFormat.QOperator)
    few_bits(out / "clip.onnx", out / "clip_4bits_dequantized.onnx", 4, quantization.QuantFormat.QDQ, 21)
    quantization.quantize_dynamic(str(out / "clip.onnx"), str(out / "clip_int8.onnx"), per_channel=True, weight_type=quantization.QuantType.QInt8, extra_options={"MatMulConstBOnly": True})


main(sys.argv[1])
