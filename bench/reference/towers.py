"""The starter bundle's towers in PyTorch, with their weights read from the ONNX files.

Independent of foretoken: plain modules, torch's own autograd. A weight's place is known by the bias that is added
after its MatMul; torch's exporter keeps the names of biases.
"""
import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn


def weights(path):
    """State dict of an export: names as torch had them, matrices [out,in]."""
    graph = onnx.load(path).graph
    value = {i.name: torch.from_numpy(numpy_helper.to_array(i).astype(np.float32)) for i in graph.initializer
             if i.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)}
    for n in graph.node:
        if n.op_type == "Cast" and n.input[0] in value:
            value[n.output[0]] = value[n.input[0]]
    state = {name.removesuffix("_fp16"): v for name, v in value.items() if not name.startswith("onnx::")}
    reads = {i: n for n in graph.node for i in n.input}
    for n in graph.node:
        if n.op_type != "MatMul" or n.input[1] not in value:
            continue
        after = reads.get(n.output[0])
        bias = next((i for i in after.input if i in value), None) if after is not None and after.op_type == "Add" else None
        state[bias.removesuffix(".bias") + ".weight" if bias else "projection.weight"] = value[n.input[1]].T
    return state


class Block(nn.Module):
    """CLIP's pre-norm block with quick GELU."""

    def __init__(self, state, names, heads):
        super().__init__()
        part = lambda n: (state[f"{names[n]}.weight"], state[f"{names[n]}.bias"])
        self.heads, self.parts = heads, {n: part(n) for n in names}

    def linear(self, x, name):
        return nn.functional.linear(x, *self.parts[name])

    def norm(self, x, name):
        return nn.functional.layer_norm(x, x.shape[-1:], *self.parts[name])

    def forward(self, x, mask):
        h = self.norm(x, "norm1")
        split = lambda y: y.view(*y.shape[:2], self.heads, -1).transpose(1, 2)
        q, k, v = (split(self.linear(h, n)) for n in "qkv")
        scores = q @ k.transpose(2, 3) * q.shape[-1] ** -0.5
        if mask is not None:
            scores = scores + mask
        x = x + self.linear((scores.softmax(-1) @ v).transpose(1, 2).flatten(2), "out")
        h = self.linear(self.norm(x, "norm2"), "up")
        return x + self.linear(h * torch.sigmoid(1.702 * h), "down")


def layers(state, pattern, names, heads):
    blocks, i = [], 0
    while pattern.format(i) + names["q"] + ".bias" in state:
        blocks.append(Block(state, {n: pattern.format(i) + part for n, part in names.items()}, heads))
        i += 1
    return blocks


class ImageTower:
    """tokens [B,N,D], as they are where prompts enter -> embeddings [B,P]."""

    def __init__(self, path):
        self.state = weights(path)
        names = dict(norm1="norm1", norm2="norm2", q="q", k="k", v="v", out="out", up="up", down="down")
        self.blocks = layers(self.state, "tower.blocks.{}.", names, heads=4)

    def __call__(self, tokens, prompts):
        """prompts: a tensor [1,K,D] a layer."""
        norm = lambda x, n: nn.functional.layer_norm(x, x.shape[-1:], self.state[f"tower.{n}.weight"], self.state[f"tower.{n}.bias"])
        x, k = tokens, 0
        if prompts:
            k = prompts[0].shape[1]
            x = torch.cat([x[:, :1], prompts[0].expand(len(x), -1, -1), x[:, 1:]], 1)
        x = norm(x, "pre")
        for i, block in enumerate(self.blocks):
            if 0 < i < len(prompts):
                x = torch.cat([x[:, :1], prompts[i].expand(len(x), -1, -1), x[:, 1 + k :]], 1)
            x = block(x, None)
        return norm(x[:, 0], "post") @ self.state["projection.weight"].T


class TextTower:
    """ids [C,S] with placeholders after the start token -> embeddings [C,P]."""

    def __init__(self, path):
        self.state = weights(path)
        names = dict(norm1="layer_norm1", norm2="layer_norm2", q="self_attn.q_proj", k="self_attn.k_proj", v="self_attn.v_proj",
                     out="self_attn.out_proj", up="mlp.fc1", down="mlp.fc2")
        self.blocks = layers(self.state, "model.text_model.encoder.layers.{}.", names, heads=8)

    def __call__(self, ids, context):
        """context: a tensor [1,M,D] or [C,M,D] a layer."""
        emb = "model.text_model.embeddings."
        x, m = self.state[emb + "token_embedding.weight"][ids], context[0].shape[1] if context else 0
        put = lambda x, c: torch.cat([x[:, :1], c.expand(len(x), -1, -1), x[:, 1 + m :]], 1)
        if context:
            x = put(x, context[0])
        x = x + self.state[emb + "position_embedding.weight"][: ids.shape[1]]
        mask = torch.full((ids.shape[1],) * 2, float("-inf")).triu(1)
        for i, block in enumerate(self.blocks):
            if 0 < i < len(context):
                x = put(x, context[i])
            x = block(x, mask)
        last = "model.text_model.final_layer_norm."
        x = nn.functional.layer_norm(x, x.shape[-1:], self.state[last + "weight"], self.state[last + "bias"])
        end = (ids == ids.max()).int().argmax(1)
        return x[torch.arange(len(ids)), end] @ self.state["projection.weight"].T
