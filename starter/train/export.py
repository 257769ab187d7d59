"""Write the bundle: two ONNX files and what goes beside them.

Usage: export.py WORK OUT
Reads WORK/vision.pt, WORK/text.pt, WORK/tokenizer.json. Opset 17, torch's tracing exporter, dynamic batch and sequence.
The frozen stem and the text tower are stored as fp16 and cast to fp32 in the graph; the image tower's blocks stay fp32.
Every file is compared with PyTorch before it is kept.
"""
import json, os, sys, time

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F

import half
import text
import tokens
import vision

SIDE, OPSET = tokens.SIDE, 17


class ImageTower(torch.nn.Module):
    """pixel_values [B,3,160,160] -> image_embeds [B,128], last_hidden_state [B,26,256]."""

    def __init__(self, work):
        super().__init__()
        self.stem, self.tower = tokens.stem(), vision.Tower()
        self.tower.load_state_dict(torch.load(f"{work}/vision.pt")["tower"])

    def forward(self, pixel_values):
        t = self.stem.extract_features(pixel_values).flatten(2).transpose(1, 2)
        x, pooled = self.tower.hidden(t)
        return self.tower.project(pooled), x


class TextTower(torch.nn.Module):
    """input_ids [B,S] -> text_embeds [B,128], last_hidden_state [B,S,256]."""

    def __init__(self, work):
        super().__init__()
        self.model = text.build()
        self.model.load_state_dict(torch.load(f"{work}/text.pt"))

    def forward(self, input_ids):
        out = self.model(input_ids=input_ids)
        return out.text_embeds, out.last_hidden_state


def feeds_convolution(w, graph):
    return any(n.op_type == "Conv" and w.name in n.input for n in graph.node)


def export(net, path, example, axes, wanted):
    key, names = list(axes)[0], ["image_embeds" if "pixel_values" in axes else "text_embeds", "last_hidden_state"]
    torch.onnx.export(net, (example,), path, input_names=[key], output_names=names, dynamic_axes={**axes, names[0]: {0: "batch"}, names[1]: axes[key]},
                      opset_version=OPSET, dynamo=False)
    half.halve(path, wanted)


def compare(net, path, inputs):
    """The least cosine between PyTorch's and ONNX Runtime's embeddings, and ms an item on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    key, least = session.get_inputs()[0].name, 1.0
    for x in inputs:
        ours = torch.from_numpy(session.run(None, {key: x.numpy()})[0])
        least = min(least, F.cosine_similarity(ours, net(x)[0]).min().item())
    begin = time.time()
    for _ in range(20):
        session.run(None, {key: inputs[0][:1].numpy()})
    print(f"{path}: {os.path.getsize(path) / 1e6:.1f} MB, least cosine to torch {least:.6f}, {(time.time() - begin) * 50:.1f} ms an item")
    if least < 0.999:
        raise SystemExit(f"{path} differs from PyTorch: cosine {least}")


def configs(scale):
    """file -> content, in the form that transformers writes."""
    size = dict(height=SIDE, width=SIDE)
    mean, std = [round(v, 3) for v in tokens.MEAN.flatten().tolist()], [round(v, 3) for v in tokens.STD.flatten().tolist()]
    start, end = text.VOCAB - 2, text.VOCAB - 1
    config = dict(
        architectures=["CLIPModel"], model_type="clip", projection_dim=vision.DIMS,
        text_config=dict(model_type="clip_text_model", vocab_size=text.VOCAB, hidden_size=text.WIDTH, intermediate_size=4 * text.WIDTH, num_hidden_layers=text.LAYERS,
                         num_attention_heads=text.WIDTH // 32, max_position_embeddings=text.CONTEXT, hidden_act="quick_gelu", projection_dim=text.DIMS,
                         bos_token_id=start, eos_token_id=end, pad_token_id=end),
        vision_config=dict(model_type="clip_vision_model", hidden_size=vision.WIDTH, intermediate_size=4 * vision.WIDTH, num_hidden_layers=vision.BLOCKS,
                           num_attention_heads=vision.HEADS, image_size=SIDE, patch_size=SIDE // 5, num_channels=3, hidden_act="quick_gelu", projection_dim=vision.DIMS),
    )
    preprocessor = dict(image_processor_type="CLIPImageProcessor", do_resize=True, size=dict(shortest_edge=SIDE), resample=3, do_center_crop=True, crop_size=size,
                        do_rescale=True, rescale_factor=1 / 255, do_normalize=True, image_mean=mean, image_std=std, do_convert_rgb=True)
    tokenizer = dict(tokenizer_class="CLIPTokenizer", model_max_length=text.CONTEXT, do_lower_case=True, bos_token="<|startoftext|>", eos_token="<|endoftext|>",
                     unk_token="<|endoftext|>", pad_token="<|endoftext|>")
    dump = lambda value: json.dumps(value, indent=2) + "\n"
    return {"config.json": dump(config), "preprocessor_config.json": dump(preprocessor), "tokenizer_config.json": dump(tokenizer),
            "foretoken.yaml": f"# exp of the logit scale that the image tower was trained with\nlogit_scale: {scale:.2f}\n"}


@torch.no_grad()
def main(work, out):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    os.makedirs(f"{out}/onnx", exist_ok=True)
    image, words = ImageTower(work).eval(), TextTower(work).eval()
    ids = lambda batch, length: torch.cat([torch.full((batch, 1), text.VOCAB - 2), torch.randint(1, 6000, (batch, length - 2)), torch.full((batch, 1), text.VOCAB - 1)], 1)
    pixels, path = torch.randn(3, 3, SIDE, SIDE), f"{out}/onnx/vision_model.onnx"
    export(image, path, pixels[:2], {"pixel_values": {0: "batch"}}, feeds_convolution)
    compare(image, path, [pixels, pixels[:1]])
    path = f"{out}/onnx/text_model.onnx"
    export(words, path, ids(2, 9), {"input_ids": {0: "batch", 1: "sequence"}}, lambda w, graph: True)
    compare(words, path, [ids(3, 9), ids(1, 4), ids(5, text.CONTEXT)])
    for name, content in configs(torch.load(f"{work}/vision.pt")["scale"]).items():
        with open(f"{out}/{name}", "w") as f:
            f.write(content)
    with open(f"{work}/tokenizer.json") as source, open(f"{out}/tokenizer.json", "w") as f:
        f.write(source.read())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
