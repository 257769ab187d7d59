"""Write the painter as a folder in diffusers' ONNX layout, with the names that optimum gives.

Usage: painter_export.py WORK BUNDLE OUT
Reads WORK/painter.pt, WORK/vae.pt and BUNDLE's text tower, whose bytes the text encoder keeps. Opset 17, torch's tracing
exporter, weights stored as fp16 and cast in the graph. Every file is compared with PyTorch before it is kept.
"""
import json, os, shutil, sys

import numpy as np
import onnx
import onnxruntime
import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from onnx import TensorProto, helper

import half
import painter
import vae

OPSET = 17


class Encoder(torch.nn.Module):
    """sample [B,3,H,W] -> latent_parameters [B,8,H/4,W/4]: means, and the logarithm of a variance that is as good as none."""

    def __init__(self, coder):
        super().__init__()
        self.coder = coder

    def forward(self, sample):
        z = self.coder.encode(sample)
        return torch.cat([z, torch.full_like(z, -30.0)], 1)


class Decoder(torch.nn.Module):
    """latent_sample [B,4,h,w] -> sample [B,3,4h,4w]"""

    def __init__(self, coder):
        super().__init__()
        self.coder = coder

    def forward(self, latent_sample):
        return self.coder.decode(latent_sample)


class Unet(torch.nn.Module):
    """sample [B,4,h,w], timestep [B], encoder_hidden_states [B,S,256] -> out_sample [B,4,h,w]"""

    def __init__(self, unet):
        super().__init__()
        self.unet = unet

    def forward(self, sample, timestep, encoder_hidden_states):
        return self.unet(sample, timestep, encoder_hidden_states, return_dict=False)[0]


PIXELS = {0: "batch_size", 2: "height", 3: "width"}


def write(net, folder, inputs, outputs, axes):
    """Export, halve, and compare with PyTorch at another batch."""
    os.makedirs(folder, exist_ok=True)
    path = f"{folder}/model.onnx"
    torch.onnx.export(net, tuple(inputs.values()), path, input_names=list(inputs), output_names=outputs, dynamic_axes=axes, opset_version=OPSET, dynamo=False)
    half.halve(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    given = {k: torch.cat([v, v[:1]]) for k, v in inputs.items()}
    want, got = net(*given.values()), torch.from_numpy(session.run(None, {k: v.numpy() for k, v in given.items()})[0])
    off = ((want - got).norm() / want.norm()).item()
    print(f"{path}: {os.path.getsize(path) / 1e6:.1f} MB, off by {off:.1e} of its norm")
    if off > 3e-3:
        raise SystemExit(f"{path} differs from PyTorch by {off}")


def text_encoder(bundle, folder):
    """The dual encoder's text tower without its projection: input_ids int32 [B,S] -> last_hidden_state, pooler_output."""
    os.makedirs(folder, exist_ok=True)
    model = onnx.load(f"{bundle}/onnx/text_model.onnx")
    graph = model.graph
    project = next(n for n in graph.node if "text_embeds" in n.output)
    pooled = project.input[0]
    graph.node.remove(project)
    kept = {i for n in graph.node for i in n.input}
    for cast in [n for n in graph.node if n.op_type == "Cast" and not set(n.output) & (kept | {"last_hidden_state"})]:
        graph.node.remove(cast)
    used = {i for n in graph.node for i in n.input}
    for w in [w for w in graph.initializer if w.name not in used]:
        graph.initializer.remove(w)
    for n in graph.node:  # optimum's ids are of 32 bits
        n.input[:] = ["ids" if i == "input_ids" else i for i in n.input]
        n.output[:] = ["pooler_output" if o == pooled else o for o in n.output]
        n.input[:] = ["pooler_output" if i == pooled else i for i in n.input]
    graph.node.insert(0, helper.make_node("Cast", ["input_ids"], ["ids"], name="ids_cast", to=TensorProto.INT64))
    graph.input[0].type.tensor_type.elem_type = TensorProto.INT32
    states = next(o for o in graph.output if o.name == "last_hidden_state")
    del graph.output[:]
    graph.output.extend([states, helper.make_tensor_value_info("pooler_output", TensorProto.FLOAT, ["batch", painter.WIDTH])])
    onnx.checker.check_model(model)
    onnx.save(model, f"{folder}/model.onnx")
    ids = np.array(painter.Words(bundle).tokenizer.encode("a red heart").ids)[None]
    run = lambda path, ids: onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(["last_hidden_state"], {"input_ids": ids})[0]
    if (run(f"{bundle}/onnx/text_model.onnx", ids) != run(f"{folder}/model.onnx", ids.astype(np.int32))).any():
        raise SystemExit("the text encoder differs from the text tower")
    print(f"{folder}/model.onnx: {os.path.getsize(f'{folder}/model.onnx') / 1e6:.1f} MB, states as the text tower's")


def dump(path, content):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        f.write(json.dumps(content, indent=2) + "\n")


def configs(bundle, out, unet):
    """What diffusers and optimum read beside the graphs."""
    version = "0.42.1"
    dump(f"{out}/model_index.json", dict(_class_name="StableDiffusionPipeline", _diffusers_version=version, feature_extractor=[None, None], image_encoder=[None, None],
                                         requires_safety_checker=False, safety_checker=[None, None], scheduler=["diffusers", "DDIMScheduler"], text_encoder=["transformers", "CLIPTextModel"],
                                         tokenizer=["transformers", "CLIPTokenizer"], unet=["diffusers", "UNet2DConditionModel"], vae=["diffusers", "AutoencoderKL"]))
    dump(f"{out}/scheduler/scheduler_config.json", dict(_class_name="DDIMScheduler", _diffusers_version=version, **painter.SCHEDULE))
    # The autoencoder is none of diffusers' classes: this is what pipelines read of one. Their side is 2^(entries - 1) times smaller.
    coder = dict(_class_name="AutoencoderKL", _diffusers_version=version, in_channels=3, out_channels=3, latent_channels=vae.LATENTS, block_out_channels=[96, 96, 96],
                 down_block_types=["DownEncoderBlock2D"] * 3, up_block_types=["UpDecoderBlock2D"] * 3, sample_size=vae.SIDE, scaling_factor=1.0)
    dump(f"{out}/vae_encoder/config.json", coder)
    dump(f"{out}/vae_decoder/config.json", coder)
    dump(f"{out}/unet/config.json", dict(_class_name="UNet2DConditionModel", _diffusers_version=version, **{k: v for k, v in unet.config.items() if not k.startswith("_")}))
    dual = json.load(open(f"{bundle}/config.json"))["text_config"]
    dump(f"{out}/text_encoder/config.json", dict(dual, architectures=["CLIPTextModel"]))
    with open(f"{out}/foretoken.yaml", "w") as f:
        f.write(f"drawing:\n  steps: 20\n  guidance: {painter.GUIDANCE}\n")
    os.makedirs(f"{out}/tokenizer", exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(f"{bundle}/{name}", f"{out}/tokenizer/{name}")


@torch.no_grad()
def main(work, bundle, out):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    coder, unet = vae.Coder().eval(), painter.build().eval()
    coder.load_state_dict(torch.load(f"{work}/vae.pt"))
    unet.load_state_dict(torch.load(f"{work}/painter.pt"))
    unet.set_attn_processor(AttnProcessor2_0())
    configs(bundle, out, unet)
    text_encoder(bundle, f"{out}/text_encoder")
    write(Unet(unet), f"{out}/unet", dict(sample=torch.randn(2, 4, 16, 16), timestep=torch.tensor([999, 30]), encoder_hidden_states=torch.randn(2, 32, 256)), ["out_sample"],
          dict(sample=PIXELS, timestep={0: "batch_size"}, encoder_hidden_states={0: "batch_size", 1: "sequence_length"}, out_sample=PIXELS))
    write(Encoder(coder), f"{out}/vae_encoder", dict(sample=torch.rand(2, 3, 64, 64) * 2 - 1), ["latent_parameters"], dict(sample=PIXELS, latent_parameters=PIXELS))
    write(Decoder(coder), f"{out}/vae_decoder", dict(latent_sample=torch.randn(2, 4, 16, 16)), ["sample"], dict(latent_sample=PIXELS, sample=PIXELS))


if __name__ == "__main__":
    main(*sys.argv[1:4])
