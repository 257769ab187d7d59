"""Exports a small vision transformer and a causal text tower with JAX and jax2onnx, with JAX's own outputs and gradients beside each.

Usage: jax_exports.py OUT     with jax.txt installed; writes folders for the fixtures' test

Texts are of a fixed length and number: jax2onnx 0.17 can't have these free in a model that looks up its last token.
"""
import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from jax2onnx import to_onnx

WIDTH, HEADS, LAYERS, K, OUT, OPSETS = 24, 2, 2, 4, 16, (18, 21, 23)
random = np.random.RandomState(0)


def weights(*shape):
    return jnp.asarray(random.randn(*shape).astype("float32") * 0.1)


def numbers(*shape):
    return random.randn(*shape).astype("float32") * 0.5


def block_weights():
    square = {n: weights(WIDTH, WIDTH) for n in ("q", "k", "v", "o")}
    rows = {n: weights(WIDTH) for n in ("b1", "b2", "ob", "db")}
    return {**square, **rows, "g1": 1 + weights(WIDTH), "g2": 1 + weights(WIDTH), "u": weights(WIDTH, 2 * WIDTH), "ub": weights(2 * WIDTH), "d": weights(2 * WIDTH, WIDTH)}


def norm(x, scale, bias):
    mean = x.mean(-1, keepdims=True)
    return (x - mean) / jnp.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + 1e-5) * scale + bias


def block(p, x, seen=None):
    rows, tokens, _ = x.shape
    y = norm(x, p["g1"], p["b1"])
    q, k, v = ((y @ p[n]).reshape(rows, tokens, HEADS, WIDTH // HEADS) for n in "qkv")
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(WIDTH // HEADS)
    if seen is not None:
        scores = jnp.where(seen, scores, jnp.finfo(jnp.float32).min)
    x = x + jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores, -1), v).reshape(rows, tokens, WIDTH) @ p["o"] + p["ob"]
    y = norm(x, p["g2"], p["b2"])
    return x + jax.nn.gelu(y @ p["u"] + p["ub"]) @ p["d"] + p["db"]


class Vision:
    def __init__(self):
        self.kernel, self.bias, self.token, self.places = weights(8, 8, 3, WIDTH) * 3, weights(WIDTH), weights(1, 1, WIDTH), weights(1, 17, WIDTH)
        self.blocks, self.scale, self.shift, self.projection = [block_weights() for _ in range(LAYERS)], 1 + weights(WIDTH), weights(WIDTH), weights(WIDTH, OUT)

    def __call__(self, pixels, prompts=None, start=0):
        x = jax.lax.conv_general_dilated(pixels.transpose(0, 2, 3, 1), self.kernel, (8, 8), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")) + self.bias
        rows = x.shape[0]
        x = jnp.concatenate([jnp.broadcast_to(self.token, (rows, 1, WIDTH)), x.reshape(rows, 16, WIDTH)], 1) + self.places
        for i, p in enumerate(self.blocks):
            if prompts is not None and start <= i < start + len(prompts):
                x = jnp.concatenate([x[:, :1], jnp.broadcast_to(prompts[i - start], (rows, K, WIDTH)), x[:, 1 + K * (i > start):]], 1)
            x = block(p, x)
        return norm(x[:, 0], self.scale, self.shift) @ self.projection


class Text:
    def __init__(self):
        self.table, self.places, self.blocks = weights(60, WIDTH), weights(16, WIDTH), [block_weights() for _ in range(LAYERS)]
        self.scale, self.shift, self.projection = 1 + weights(WIDTH), weights(WIDTH), weights(WIDTH, OUT)

    def __call__(self, ids, context=None):
        x = self.table[ids]
        if context is not None:
            x = jnp.concatenate([x[:, :1], jnp.broadcast_to(context, (len(ids), K, WIDTH)), x[:, 1 + K:]], 1)
        x = x + self.places
        for p in self.blocks:
            x = block(p, x, jnp.tril(jnp.ones((16, 16), bool)))
        return norm(x, self.scale, self.shift)[jnp.arange(len(ids)), jnp.argmax(ids, -1)] @ self.projection


def vision_reference(tower, pixels, weight):
    given = {"prompts_shallow": numbers(K, WIDTH), "prompts_deep": numbers(LAYERS, K, WIDTH), "prompts_middle": numbers(LAYERS - 1, K, WIDTH)}
    loss = lambda x, p, start: (tower(x, p, start) * weight).sum()
    found = {"out": tower(pixels), "grad_pixel_values": jax.grad(lambda x: loss(x, None, 0))(pixels)}
    for name, prompts, start in (("shallow", given["prompts_shallow"][None], 0), ("deep", given["prompts_deep"], 0), ("middle", given["prompts_middle"], 1)):
        found["out_" + name] = tower(pixels, prompts, start)
        by_pixels, by_prompts = jax.grad(loss, (0, 1))(pixels, jnp.asarray(prompts), start)
        found["grad_prompts_" + name] = by_prompts[0] if name == "shallow" else by_prompts
        if name != "middle":
            found["grad_pixel_values_" + name] = by_pixels
    return given, found


def main(out):
    weight = random.randn(3, OUT).astype("float32")
    pixels = random.randn(3, 3, 32, 32).astype("float32")
    tower = Vision()
    given, found = vision_reference(tower, pixels, weight)
    meta = {"kind": "vision", "class_tokens": 1, "K": K, "layers": LAYERS, "start": 1, "averages": False}
    for opset in OPSETS:
        for form, shape in (("free", ("B", 3, 32, 32)), ("fixed", pixels.shape)):
            save(out / f"jax_vit_{form}_op{opset}", to_onnx(lambda x: tower(x), [shape], opset=opset), {"pixel_values": pixels}, {**given, "loss_weight": weight}, found, meta)

    ids = random.randint(1, 58, (3, 16)).astype("int32")
    ids[:, 0] = 58
    for row, end in zip(ids, (15, 9, 12)):
        row[end:] = 59
    tower, context = Text(), numbers(K, WIDTH)
    found = {"out": tower(ids), "out_context": tower(ids, context), "grad_context": jax.grad(lambda c: (tower(ids, c) * weight).sum())(jnp.asarray(context))}
    for opset in OPSETS:
        model = to_onnx(lambda x: tower(x), [jax.ShapeDtypeStruct(ids.shape, jnp.int32)], opset=opset)
        save(out / f"jax_text_fixed_op{opset}", model, {"input_ids": ids}, {"context": context, "loss_weight": weight}, found, {"kind": "text", "context_positions": [1, 2, 3, 4], "K": K})


def save(folder, model, inputs, given, found, meta):
    """Writes a fixture; the model's one input takes the name that it has in inputs."""
    (name,), was = inputs, model.graph.input[0].name
    model.graph.input[0].name = name
    for n in model.graph.node:
        n.input[:] = [name if x == was else x for x in n.input]
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / "model.onnx")
    np.savez(folder / "inputs.npz", **inputs, **given)
    np.savez(folder / "gradients.npz", **{k: np.asarray(v) for k, v in found.items()})
    (folder / "meta.json").write_text(json.dumps({**meta, "output": model.graph.output[0].name, "note": "jax2onnx 0.17"}, indent=1))
    print("made", folder.name, flush=True)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
