"""Exports small random models as people do, with PyTorch's own outputs and gradients beside each, as folders for the fixtures' test.

Usage: exporters.py OUT [--small] [NAME...]     NAME: a part of the folders' names; --small: for the folders kept in testdata
Every model is tried with both of torch's exporters at several opsets, eager and sdpa attention, dynamic and static batches, and
some after ONNX Runtime's optimizers, in fp16 or quantised. What an exporter refuses is reported and left out. The reference of a
quantised model is PyTorch on its dequantised weights, with activations as they are; meta.json tells the cosine between its
gradient and the full model's.
"""
import contextlib
import json
import pathlib
import re
import sys
import traceback
import warnings

import numpy as np
import torch
from torch import nn

warnings.filterwarnings("ignore")
K, SIDE, PATCH, WIDTH, SMALL, LAYERS, HEADS, OUT, BATCH = 4, 32, 8, 48, 32, 3, 4, 24, 3
if "--small" in sys.argv:
    WIDTH, LAYERS, HEADS, BATCH = 24, 2, 2, 2


class Vision:
    """An image tower, the module whose output (or input, with before) prompts join, and its blocks.

    A tower that averages leaves prompts out of the mean: they are cut off behind the last block. around is what a
    model needs while blocks from start on have K prompts more than it knows of: a context manager of (self, K, start)."""
    kind = "vision"

    def __init__(self, model, insert, blocks, class_tokens, before=False, axis=1, batch=BATCH, out="image_embeds", side=SIDE, averages=False, around=None):
        self.model, self.insert, self.blocks, self.class_tokens = model.eval(), insert, blocks, class_tokens
        self.before, self.axis, self.out, self.averages, self.around = before, axis, out, averages, around or (lambda *_: contextlib.nullcontext())
        torch.manual_seed(1)
        self.inputs = {"pixel_values": torch.randn(batch, 3, side, side)}
        self.dynamic = {"pixel_values": {0: "batch"}}

    def reference(self):
        pixels, width = self.inputs["pixel_values"], getattr(self, "width", WIDTH)
        shallow, deep = torch.randn(K, width) * 0.5, torch.randn(len(self.blocks), K, width) * 0.5
        inputs, found = {"prompts_shallow": shallow, "prompts_deep": deep}, {}
        out = self.model(pixels)
        weight = torch.randn_like(out)
        inputs["loss_weight"] = weight
        inputs["prompts_middle"] = middle = torch.randn(len(self.blocks) - 1, K, width) * 0.5
        cases = [("", None, {}), ("_shallow", shallow[None], {}), ("_deep", deep, {}), ("_middle", middle, {"start": 1})]
        if self.averages:
            cases.append(("_averaged", shallow[None], {"averaged": True}))
        for name, prompts, how in cases:
            x, p = pixels.clone().requires_grad_(), None if prompts is None else prompts.clone().requires_grad_()
            with self.prompted(p, **how):
                y = self.model(x)
            (y * weight).sum().backward()
            found["out" + name] = y.detach()
            if not how:
                found["grad_pixel_values" + name] = x.grad
            if p is not None:
                found["grad_prompts" + name] = p.grad[0] if prompts is not deep and prompts is not middle else p.grad
        # A prompt on the image's border, as wide a part of it as 30 pixels are of 224.
        side = pixels.shape[-1]
        border, mask = round(30 * side / 224), torch.ones(side, side)
        mask[border:side - border, border:side - border] = 0
        inputs["prompt_pixels"] = torch.randn(1, 3, side, side) * 0.5
        p = inputs["prompt_pixels"].clone().requires_grad_()
        y = self.model(pixels + mask * p)
        (y * weight).sum().backward()
        found["out_pixel_prompt"], found["grad_pixel_prompt"] = y.detach(), p.grad
        return inputs, found

    @contextlib.contextmanager
    def prompted(self, prompts, start=0, averaged=False):
        hooks, c = [], self.class_tokens

        def laid(p, x, axis):
            return p.expand(x.shape[0], -1, -1) if axis == 1 else p[:, None].expand(-1, x.shape[1], -1)

        def join(x, axis=1, skip=0):
            head, tail = x.narrow(axis, 0, c), x.narrow(axis, c + skip, x.shape[axis] - c - skip)
            return torch.cat([head, laid(prompts[0], x, axis), tail], axis)

        def at_block(f):
            def hook(_, args, kwargs):
                x = f(args[0] if args else kwargs["hidden_states"])
                return ((x, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": x})
            return hook

        def overwrite(layer):
            def put(x):
                head, tail = x.narrow(self.axis, 0, c), x.narrow(self.axis, c + K, x.shape[self.axis] - c - K)
                return torch.cat([head, laid(prompts[layer], x, self.axis), tail], self.axis)
            return put

        def strip(_, args, out):
            x = out[0] if isinstance(out, tuple) else out
            x = torch.cat([x.narrow(self.axis, 0, c), x.narrow(self.axis, c + K, x.shape[self.axis] - c - K)], self.axis)
            return (x, *out[1:]) if isinstance(out, tuple) else x

        first = lambda f: lambda _, args, out: (f(out[0]), *out[1:]) if isinstance(out, tuple) else f(out)
        if prompts is not None:
            if start > 0:
                hooks.append(self.blocks[start].register_forward_pre_hook(at_block(lambda x: join(x, self.axis)), with_kwargs=True))
            elif self.before:
                hooks.append(self.insert.register_forward_pre_hook(lambda _, args: (join(args[0]), *args[1:])))
            else:
                hooks.append(self.insert.register_forward_hook(first(join)))
            for i in range(1, len(prompts)):
                hooks.append(self.blocks[start + i].register_forward_pre_hook(at_block(overwrite(i)), with_kwargs=True))
            if self.averages and not averaged:
                hooks.append(self.blocks[-1].register_forward_hook(strip))
        try:
            with self.around(self, K, start) if prompts is not None else contextlib.nullcontext():
                yield
        finally:
            for h in hooks:
                h.remove()

    def meta(self):
        return {"class_tokens": self.class_tokens, "K": K, "layers": len(self.blocks), "start": 1, "averages": self.averages}


class Text:
    """A text tower, the module that looks up its token embeddings, and its blocks.

    The model may be given as pool(encode(*inputs), *inputs); averages says that pooling mixes tokens. Each of cases puts context or new rows of the token
    table in at some place; the model is then run by PyTorch on the whole of the text, with hooks that overwrite.
    """
    kind = "text"

    def __init__(self, model, table, inputs, out="text_embeds", dynamic=None, blocks=None, cases=(), encode=None, pool=None, averages=False, fit=None, axis=1):
        self.axis = axis  # of the tokens, in the blocks' inputs
        self.model, self.table, self.inputs, self.out = model.eval(), table, inputs, out
        self.dynamic = dynamic or {n: {0: "batch", 1: "sequence"} for n in inputs}
        self.blocks, self.cases, self.encode, self.pool, self.averages = blocks, cases, encode, pool, averages
        self.fit = fit or (lambda length: None)  # makes the model take texts of a length

    def reference(self):
        context = torch.randn(K, self.table.embedding_dim) * 0.5
        args = tuple(self.inputs.values())
        out = self.model(*args).detach()
        other = {n: x.clone() for n, x in self.inputs.items()}
        other["input_ids"][2, -2:] = 5  # behind the end of the last text
        self.trims = torch.allclose(self.model(*other.values()), out)
        weight = torch.randn_like(out)
        p = context.clone().requires_grad_()
        handle = self.table.register_forward_hook(lambda _, a, x: torch.cat([x[:, :1], p.expand(x.shape[0], -1, -1), x[:, 1 + K:]], 1))
        y = self.model(*args)
        handle.remove()
        (y * weight).sum().backward()
        inputs, found = {"context": context, "loss_weight": weight}, {"out": out, "out_context": y.detach(), "grad_context": p.grad}
        for case in self.cases:
            more, results = self.placed(case)
            inputs.update({f"{case['name']}.{k}": v for k, v in more.items()})
            found.update({f"{case['name']}.{k}": v for k, v in results.items()})
        return inputs, found

    def placed(self, case):
        """Runs one case: its inputs, and the output and gradients."""
        given = {n: x[:, :case.get("length", x.shape[1])].clone() for n, x in self.inputs.items()}
        given.update({n: torch.tensor(x).to(self.inputs[n].dtype) for n, x in case.get("inputs", {}).items()})
        ids, m, depth = given["input_ids"], case.get("tokens", 0), case.get("depth", 1)
        batch, length, width, leaves, saved = *ids.shape, self.table.embedding_dim, {}, dict(given)
        at = torch.tensor(case["at"]) if "at" in case else torch.arange(case.get("start", 1), case.get("start", 1) + m).expand(batch, m)
        if "at" in case:
            saved["context_at"] = at
        whose = torch.zeros(batch, dtype=torch.long)
        if m:
            owners = 1
            if "index" in case:
                whose, owners = torch.tensor(case["index"]), case["prompts"]
                saved["context_index"] = whose
            elif case.get("per_row"):
                whose, owners = torch.arange(batch), batch
            for i in range(depth):
                leaves[f"context.{i}"] = (torch.randn(owners, m, width) * 0.5).requires_grad_()
        full = dict(given)
        if case.get("insert"):  # the text with the token in front of the context repeated in its place
            start = case.get("start", 1)
            full = {n: torch.cat([x[:, :start], x[:, max(start - 1, 0)][:, None].expand(-1, m), x[:, start:]], 1) for n, x in given.items()}
            if "position_ids" in full:
                full["position_ids"] = torch.arange(length + m).expand(batch, -1).contiguous()
        new = torch.tensor(case.get("rows", []), dtype=ids.dtype)
        if len(new):
            leaves["token_rows"] = (torch.randn(len(new), width) * 0.5).requires_grad_()
            which = (full["input_ids"][..., None] == new).float()
            full["input_ids"] = torch.where(which.sum(-1) > 0, torch.full_like(full["input_ids"], 50), full["input_ids"])
        rows = torch.arange(batch)[:, None]

        def put(x, layer):
            x = x.clone()
            y = x.transpose(0, 1) if layer and self.axis == 0 else x
            y[rows, at] = leaves[f"context.{layer}"][whose].to(x.dtype)
            return x

        def look_up(_, args, x):
            if len(new):
                x = torch.where(which.sum(-1, keepdim=True) > 0, which @ leaves["token_rows"], x)
            return put(x, 0) if m else x

        def overwrite(layer):
            def hook(_, args, kwargs):
                if args:
                    return (put(args[0], layer), *args[1:]), kwargs
                return args, {**kwargs, "hidden_states": put(kwargs["hidden_states"], layer)}
            return hook
        self.fit(full["input_ids"].shape[1])
        hooks = [self.table.register_forward_hook(look_up)]
        hooks += [self.blocks[i].register_forward_pre_hook(overwrite(i), with_kwargs=True) for i in range(1, depth if m else 0)]
        if self.pool and m and not case.get("pooled") and (case.get("insert") or self.averages):
            h = self.encode(*full.values())
            kept = torch.ones(h.shape[:2], dtype=torch.bool)
            kept[rows, at] = False
            short = given if case.get("insert") else {n: x[kept].reshape(batch, -1) for n, x in given.items()}
            y = self.pool(h[kept].reshape(batch, -1, h.shape[-1]), *short.values())
        else:
            y = self.model(*full.values())
        for h in hooks:
            h.remove()
        self.fit(next(iter(self.inputs.values())).shape[1])
        weight = torch.randn_like(y).detach()
        if leaves:
            (y * weight).sum().backward()
        saved["loss_weight"] = weight
        return {**saved, **{n: x.detach() for n, x in leaves.items()}}, {"out": y.detach(), **{"grad_" + n: x.grad for n, x in leaves.items()}}

    def meta(self):
        cases = [{k: v for k, v in c.items() if k not in ("inputs", "at", "index", "prompts")} | {"placed": "at" in c, "bank": "index" in c} for c in self.cases]
        return {"context_positions": list(range(1, 1 + K)), "K": K, "trims": self.trims} | ({"cases": cases} if cases else {})


class Decoder:
    """A decoder that takes token ids: what it says behind a soft prefix, and over keys and values put before each layer's own, as PEFT's
    prompt tuning and prefix tuning have it. run(model, ids or embeddings, mask, encoder states, cache) gives the logits and the cache. The
    loss is the caption's cross-entropy: minus the sum of loss_weight times the logits' log-softmax."""
    kind = "decoder"

    def __init__(self, model, run, table, layers, heads, width, mask=False, encoder=False, past=0, length=7, dynamic=True, window=0, cross=False, left=False, run_length=0):
        self.inner, self.run, self.table, self.layers, self.heads, self.width = model.eval(), run, table, layers, heads, width
        self.window, self.cross, self.past, self.out = window, cross, past, "logits"
        self.left = left
        torch.manual_seed(2)
        self.inputs = {"input_ids": torch.randint(3, 110, (2, length))}
        axes = {"input_ids": {0: "batch", 1: "sequence"}}
        if mask:
            self.inputs["attention_mask"] = torch.ones(2, past + length, dtype=torch.long)
            self.inputs["attention_mask"][1, past:past + 2] = 1 - int(left)  # padded in front, as batches are for generation
            self.inputs["attention_mask"][1, past + length - 2:] = int(left)
            axes["attention_mask"] = {0: "batch", 1: "total" if past else "sequence"}
        if encoder:
            self.inputs["encoder_hidden_states"] = torch.randn(2, 9, SMALL)
            axes["encoder_hidden_states"] = {0: "batch", 1: "seen"}
        self.outs = ["logits"]
        for i in range(layers if past else 0):
            for what in ("key", "value"):
                self.inputs[f"past_key_values.{i}.{what}"] = torch.randn(2, heads, past, width) * 0.5
                axes[f"past_key_values.{i}.{what}"] = {0: "batch", 2: "past"}
                self.outs.append(f"present.{i}.{what}")
        self.dynamic = axes if dynamic else {n: {0: "batch"} for n in axes}
        self.exported = dict(self.inputs)
        if run_length:  # the file is made for longer texts than it is run with
            self.inputs = {n: x if n == "encoder_hidden_states" else x[:, :run_length].contiguous() for n, x in self.inputs.items()}
        self.model = named(model, [n.replace(".", "_") for n in self.inputs], lambda m, *args: self.forward(dict(zip(self.inputs, args))))

    def forward(self, given, prefix=None, pairs=()):
        ids, mask = given["input_ids"], given.get("attention_mask")
        known = [(given[f"past_key_values.{i}.key"], given[f"past_key_values.{i}.value"]) for i in range(self.layers)] if "past_key_values.0.key" in given else []
        more = 0
        if prefix is not None:
            scale = getattr(self.table, "embed_scale", 1)  # of Gemma's: a prefix's tokens are rows of the table, and scaled as these are
            more, ids = prefix.shape[1], torch.cat([prefix.expand(ids.shape[0], -1, -1) * scale, self.table(ids)], 1)
        if len(pairs):
            more, known = pairs.shape[-2], [tuple(x.expand(ids.shape[0], -1, -1, -1) for x in pair) for pair in pairs]
        if more and mask is not None:
            mask = torch.cat([torch.ones(mask.shape[0], more, dtype=mask.dtype), mask], 1)
        logits, cache = self.run(self.inner, ids, mask, given.get("encoder_hidden_states"), self.cache(known) if known else None)
        if not self.past or len(pairs):
            return logits
        return logits, *(x for i in range(self.layers) for x in pair_of(cache, i))

    def cache(self, pairs):
        from transformers import DynamicCache, EncoderDecoderCache
        known = DynamicCache()
        for i, (k, v) in enumerate(pairs):
            known.update(k, v, i)
        return EncoderDecoderCache(known, DynamicCache()) if self.cross else known

    def reference(self):
        ids = self.inputs["input_ids"]
        counts = self.inputs.get("attention_mask", torch.ones_like(ids))[:, -ids.shape[1]:]
        also = {"seen": counts.clone()} if self.left else {}  # what the others' logits are is of no account
        prefix, pairs = torch.randn(K, self.table.embedding_dim) * 0.5, torch.randn(self.layers, 2, self.heads, K - 1, self.width) * 0.5
        weight, found = None, {}
        for name, more in (("", {}), ("_prefix", {"prefix": prefix[None].requires_grad_()}), ("_kv", {"pairs": pairs[:, :, None].requires_grad_()})):
            given = dict(self.inputs)
            if more and self.past:  # a prefix stands where there is no past
                given = {n: x for n, x in given.items() if not n.startswith("past")}
                if "attention_mask" in given:
                    given["attention_mask"] = given["attention_mask"][:, self.past:]
                if name == "_prefix":
                    given.update({n: x[:, :, :0] for n, x in self.inputs.items() if n.startswith("past")})
            logits = self.forward(given, **more)
            logits = logits[0] if isinstance(logits, tuple) else logits
            logits = logits[:, -ids.shape[1]:]
            if weight is None:
                weight = torch.zeros_like(logits)
                weight[:, :-1] = nn.functional.one_hot(ids[:, 1:], logits.shape[-1]) * counts[:, 1:, None] * (counts[:, :-1, None] if self.left else 1)
                weight /= counts[:, 1:].sum()
            loss, = [-(nn.functional.log_softmax(logits, -1) * weight).sum()]
            found["out" + name], found["loss" + name] = logits.detach(), loss.detach()
            if more:
                loss.backward()
                x = next(iter(more.values()))
                found["grad" + name] = x.grad[0] if name == "_prefix" else x.grad[:, :, 0]
        return {"prefix": prefix, "kv": pairs, "loss_weight": weight.detach(), **also}, found

    def meta(self):
        return {"K": K, "layers": self.layers, "heads": self.heads, "head_width": self.width, "window": self.window, "causal": True}


def pair_of(cache, i):
    cache = getattr(cache, "self_attention_cache", cache)
    return cache.layers[i].keys, cache.layers[i].values


class Generic:
    """Any model, and the inputs whose gradients are wanted."""
    kind = "generic"

    def __init__(self, model, inputs, wrt, out="out", dynamic=None):
        self.model, self.inputs, self.wrt, self.out = model.eval(), inputs, wrt, out
        self.dynamic = dynamic or {n: {0: "batch"} for n in inputs}

    def reference(self):
        given = {n: x.clone().requires_grad_(n in self.wrt) for n, x in self.inputs.items()}
        y = self.model(*given.values())
        weight = torch.randn_like(y).detach()
        (y * weight).sum().backward()
        return {"loss_weight": weight}, {"out": y.detach(), **{"grad_" + n: given[n].grad for n in self.wrt}}

    def meta(self):
        return {"wrt": self.wrt}


class Call(nn.Module):
    """A module of plain tensors around f(*tensors)."""

    def __init__(self, inner, f):
        super().__init__()
        self.inner, self.f = inner, f

    def forward(self, *args):
        return self.f(self.inner, *args)


def one(inner):  # one positional tensor, so that the dynamo exporter knows its name
    class One(nn.Module):
        def __init__(self):
            super().__init__()
            self.m = inner[0]

        def forward(self, pixel_values):
            return inner[1](self.m, pixel_values)
    return One()


def named(module, names, f):
    """A module whose forward has the given argument names."""
    space = {}
    exec(f"def forward(self, {', '.join(names)}):\n    return self.f(self.inner, {', '.join(names)})", space)
    return type("Named", (Call,), {"forward": space["forward"]})(module, f)


def clip_vision(attention="sdpa", batch=BATCH):
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
    torch.manual_seed(0)
    m = CLIPVisionModelWithProjection(CLIPVisionConfig(hidden_size=WIDTH, intermediate_size=96, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
                                                       image_size=SIDE, patch_size=PATCH, projection_dim=OUT, attn_implementation=attention))
    v = m.vision_model if hasattr(m, "vision_model") else m.base_model
    return Vision(one((m, lambda m, x: m(pixel_values=x).image_embeds)), v.embeddings, v.encoder.layers, 1, batch=batch)


def text_ids(end, length=12, vocabulary=200, start=198):
    torch.manual_seed(2)
    ids = torch.randint(1, vocabulary - 3, (3, length))
    ids[:, 0] = start
    for row, at in enumerate((length - 1, length - 4, length - 3)):
        ids[row, at:] = end
    return ids


def with_rows(ids, rows):
    """Texts in which some words are others: new rows of the token table, or ones to overwrite."""
    ids = ids.clone()
    ids[0, 2], ids[0, 3], ids[1, 4], ids[2, 2] = rows[0], rows[-1], rows[-1], rows[0]
    return {"input_ids": ids.tolist()}


def places(ids):
    """Context at every place of texts that end at 11, 8 and 9, and new and overwritten rows of the table."""
    return [
        dict(name="front", tokens=3, depth=2),
        dict(name="middle", tokens=2, depth=2, at=[[2, 5], [3, 4], [1, 6]]),
        dict(name="end", tokens=2, at=[[9, 10], [6, 7], [7, 8]]),
        dict(name="own", tokens=2, depth=2, per_row=True, at=[[1, 2], [4, 5], [2, 3]]),
        dict(name="bank", tokens=2, depth=2, index=[1, 0, 1], prompts=2),
        dict(name="inserted", tokens=3, depth=2, insert=True),
        dict(name="inserted_later", tokens=2, depth=1, start=4, insert=True, per_row=True),
        dict(name="rows", rows=[200, 201], inputs=with_rows(ids, [200, 201])),
        dict(name="overwritten", rows=[60], tokens=2, start=5, inputs=with_rows(ids, [60])),
    ]


def shorter(length=10):
    """A text that is shorter than the one that was exported, alone and with context."""
    return [
        dict(name="short", length=length),
        dict(name="short_context", length=length, tokens=2, depth=2),
        dict(name="short_middle", length=length, tokens=2, depth=2, at=[[2, 5], [3, 4], [1, 6]]),
        dict(name="short_inserted", length=length, tokens=2, depth=2, insert=True),
    ]


def longer(ids):
    """Texts that are longer than the one that was exported, which graphs that keep the whole table of positions allow."""
    more = torch.cat([ids[:, :4], ids[:, 4:7], ids[:, 4:]], 1)
    return [dict(name="longer", inputs={"input_ids": more.tolist()}), dict(name="longer_context", tokens=2, depth=2, at=[[9, 12], [3, 4], [1, 6]], inputs={"input_ids": more.tolist()})]


def clip_text(attention="sdpa", mask=False, eos=199, cases=None, fixed=False, last=False, ids_as=torch.int64):
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection
    torch.manual_seed(0)
    m = CLIPTextModelWithProjection(CLIPTextConfig(vocab_size=200, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=16,
                                                   projection_dim=OUT, eos_token_id=eos, bos_token_id=198, pad_token_id=1, attn_implementation=attention))
    ids = text_ids(199).to(ids_as)
    inputs = {"input_ids": ids}
    f, more = lambda m, i: m(input_ids=i).text_embeds, {}
    if mask:
        inputs["attention_mask"] = torch.tensor([[1] * 12, [1] * 9 + [0] * 3, [1] * 10 + [0] * 2])
        f = lambda m, i, a: m(input_ids=i, attention_mask=a).text_embeds
    if last:  # as a diffusion model reads it
        f = lambda m, i: m(input_ids=i).last_hidden_state
        more = dict(out="last_hidden_state", encode=lambda i: f(m, i), pool=lambda h, i: h)
    t = m.text_model if hasattr(m, "text_model") else m.base_model
    return Text(named(m, inputs, f), t.embeddings.token_embedding, inputs, blocks=t.encoder.layers, cases=cases(ids) if cases else (),
                dynamic={n: {0: "batch"} for n in inputs} if fixed else None, **more)


def siglip_vision(batch=BATCH):
    from transformers import SiglipVisionConfig, SiglipVisionModel
    torch.manual_seed(0)
    m = SiglipVisionModel(SiglipVisionConfig(hidden_size=WIDTH, intermediate_size=96, num_hidden_layers=LAYERS, num_attention_heads=HEADS, image_size=SIDE, patch_size=PATCH))
    v = m.vision_model if hasattr(m, "vision_model") else m
    return Vision(one((m, lambda m, x: m(pixel_values=x).pooler_output)), v.embeddings, v.encoder.layers, 0, batch=batch, out="pooler_output")


def siglip_text(cases=()):
    from transformers import SiglipTextConfig, SiglipTextModel
    torch.manual_seed(0)
    m = SiglipTextModel(SiglipTextConfig(vocab_size=200, hidden_size=WIDTH, intermediate_size=96, num_hidden_layers=2, num_attention_heads=HEADS, max_position_embeddings=16))
    ids = torch.randint(1, 190, (3, 16))
    t = m.text_model if hasattr(m, "text_model") else m
    return Text(named(m, ["input_ids"], lambda m, i: m(input_ids=i).pooler_output), t.embeddings.token_embedding, {"input_ids": ids}, out="pooler_output", dynamic={"input_ids": {0: "batch"}}, blocks=t.encoder.layers, cases=cases)


def classifier(which):
    import transformers as t
    torch.manual_seed(0)
    common = dict(hidden_size=WIDTH, intermediate_size=96, num_hidden_layers=LAYERS, num_attention_heads=HEADS, image_size=SIDE, patch_size=PATCH, num_labels=10)
    if which == "vit":
        m = t.ViTForImageClassification(t.ViTConfig(**common))
        return Vision(one((m, lambda m, x: m(pixel_values=x).logits)), m.vit.embeddings, blocks_of(m.vit), 1, out="logits")
    if which == "deit":
        m = t.DeiTForImageClassificationWithTeacher(t.DeiTConfig(**common))
        return Vision(one((m, lambda m, x: m(pixel_values=x).logits)), m.deit.embeddings, blocks_of(m.deit), 2, out="logits")
    if which == "dinov2":
        m = t.Dinov2Model(t.Dinov2Config(**common, mlp_ratio=2))
        return Vision(one((m, lambda m, x: m(pixel_values=x).pooler_output)), m.embeddings, blocks_of(m), 1, out="pooler_output")
    if which == "dinov2_swiglu":
        m = t.Dinov2Model(t.Dinov2Config(**common, mlp_ratio=2, use_swiglu_ffn=True))
        return Vision(one((m, lambda m, x: m(pixel_values=x).pooler_output)), m.embeddings, blocks_of(m), 1, out="pooler_output")
    if which == "dinov2_registers":
        m = t.Dinov2WithRegistersModel(t.Dinov2WithRegistersConfig(**common, mlp_ratio=2, num_register_tokens=2))
        return Vision(one((m, lambda m, x: m(pixel_values=x).pooler_output)), m.embeddings, blocks_of(m), 3, out="pooler_output")
    if which == "vit_mean":  # no class token is read: a mean over all tokens
        m = t.ViTModel(t.ViTConfig(**common), add_pooling_layer=False)
        return Vision(one((m, lambda m, x: m(pixel_values=x).last_hidden_state.mean(1))), m.embeddings, blocks_of(m), 1, averages=True)
    if which == "ijepa":
        m = t.IJepaModel(t.IJepaConfig(**common))
        return Vision(one((m, lambda m, x: m(pixel_values=x).last_hidden_state.mean(1))), m.embeddings, blocks_of(m), 0, averages=True)
    if which == "beit":  # a table of biases for each pair of places; nothing is added for prompts
        m = t.BeitModel(t.BeitConfig(**common, use_relative_position_bias=True, use_mean_pooling=True))
        for block in blocks_of(m):
            nn.init.normal_(block.relative_position_bias.relative_position_bias_table)

        @contextlib.contextmanager
        def around(self, k, start):
            def pad(_, args, bias):
                for axis in (-1, -2):
                    zeros = torch.zeros_like(bias.narrow(axis, 0, 1)).repeat_interleave(k, axis)
                    bias = torch.cat([bias.narrow(axis, 0, 1), zeros, bias.narrow(axis, 1, bias.shape[axis] - 1)], axis)
                return bias
            hooks = [b.relative_position_bias.register_forward_hook(pad) for b in self.blocks[start:]]
            yield
            for h in hooks:
                h.remove()
        return Vision(one((m, lambda m, x: m(pixel_values=x).pooler_output)), m.embeddings, blocks_of(m), 1, averages=True, around=around)
    if which == "dinov3":  # rotary positions, a class token and registers
        m = t.DINOv3ViTModel(t.DINOv3ViTConfig(**common, num_register_tokens=2))
        return Vision(one((m, lambda m, x: m(pixel_values=x).pooler_output)), m.embeddings, blocks_of(m), 3, out="pooler_output")
    raise ValueError(which)


def blocks_of(m):
    for path in ("encoder.block", "transformer.layer", "encoder.layer", "encoder.layers", "model.layer", "layers", "layer"):
        found = m
        try:
            for part in path.split("."):
                found = getattr(found, part)
            return found
        except AttributeError:
            continue
    raise AttributeError(f"no blocks in {type(m).__name__}: {[n for n, _ in m.named_children()]}")


def aimv2_vision():
    """AIMv2's native variant works its positions out, in doubles, from the image's size."""
    import transformers as t
    torch.manual_seed(0)
    m = t.Aimv2VisionModel(t.Aimv2VisionConfig(hidden_size=WIDTH, intermediate_size=96, num_hidden_layers=LAYERS, num_attention_heads=HEADS, image_size=SIDE, patch_size=PATCH, is_native=True))
    return Vision(one((m, lambda m, x: m(pixel_values=x).pooler_output)), m.embeddings, m.encoder.layers, 0, out="pooler_output")


def plainly():
    """Attention as its class has it: no fused path, which no exporter knows."""
    if hasattr(torch.backends, "mha"):  # torch 2.6 has no such switch
        torch.backends.mha.set_fastpath_enabled(False)


def openclip(kind, cases=(), **more):
    import open_clip.model as oc
    plainly()
    torch.manual_seed(0)
    vision = oc.CLIPVisionCfg(layers=LAYERS, width=WIDTH, head_width=WIDTH // HEADS, patch_size=PATCH, image_size=SIDE, mlp_ratio=2, **(more if kind == "vision" else {}))
    text = oc.CLIPTextCfg(context_length=16, vocab_size=200, width=32, heads=4, layers=2)
    m = oc.CLIP(OUT, vision, text)
    if kind == "vision":
        v = m.visual
        blocks = v.transformer.resblocks
        first = getattr(v.transformer, "batch_first", True)
        return Vision(one((v, lambda v, x: v(x))), v.ln_pre, blocks, 1, before=True, axis=1 if first else 0, averages=more.get("pool_type") == "avg")
    ids = text_ids(199, 16)
    positions, mask = m.positional_embedding.data, m.attn_mask

    def fit(length):
        m.positional_embedding.data, m.attn_mask = positions[:length], mask[:length, :length]
    return Text(named(m, ["input_ids"], lambda m, i: m.encode_text(i)), m.token_embedding, {"input_ids": ids}, dynamic={"input_ids": {0: "batch"}}, blocks=m.transformer.resblocks, cases=cases, fit=fit)


def openclip_siglip_text():
    """SigLIP's text tower as open_clip has it: no mask, all tokens see each other, the last one is the embedding."""
    from open_clip.transformer import TextTransformer
    plainly()
    torch.manual_seed(0)
    m = TextTransformer(context_length=16, vocab_size=200, width=32, heads=4, layers=2, output_dim=OUT, no_causal_mask=True, pool_type="last", proj_bias=True, pad_id=1)
    return Text(named(m, ["input_ids"], lambda m, i: m(i)), m.token_embedding, {"input_ids": text_ids(199, 16)}, dynamic={"input_ids": {0: "batch"}}, blocks=m.transformer.resblocks)


def openai_vision():
    """OpenAI's own layout: blocks as [N,B,D], packed attention weights, quick gelu."""
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.attn, self.ln_1, self.ln_2 = nn.MultiheadAttention(WIDTH, HEADS), nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
            self.c_fc, self.c_proj = nn.Linear(WIDTH, 96), nn.Linear(96, WIDTH)

        def forward(self, x):
            y = self.ln_1(x)
            x = x + self.attn(y, y, y, need_weights=False)[0]
            h = self.c_fc(self.ln_2(x))
            return x + self.c_proj(h * torch.sigmoid(1.702 * h))

    class Tower(nn.Module):
        def __init__(self):
            super().__init__()
            n = (SIDE // PATCH) ** 2
            self.conv1 = nn.Conv2d(3, WIDTH, PATCH, PATCH, bias=False)
            self.class_embedding, self.positional_embedding = nn.Parameter(torch.randn(WIDTH)), nn.Parameter(torch.randn(n + 1, WIDTH))
            self.ln_pre, self.ln_post = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
            self.blocks, self.proj = nn.Sequential(*[Block() for _ in range(LAYERS)]), nn.Parameter(torch.randn(WIDTH, OUT) * 0.1)

        def forward(self, pixel_values):
            x = self.conv1(pixel_values)
            x = x.reshape(x.shape[0], x.shape[1], -1).permute(0, 2, 1)
            cls = self.class_embedding.to(x.dtype) + torch.zeros(x.shape[0], 1, x.shape[-1], dtype=x.dtype, device=x.device)
            x = torch.cat([cls, x], dim=1) + self.positional_embedding.to(x.dtype)
            x = self.blocks(self.ln_pre(x).permute(1, 0, 2)).permute(1, 0, 2)
            return self.ln_post(x[:, 0, :]) @ self.proj
    plainly()
    torch.manual_seed(0)
    m = Tower()
    return Vision(m, m.ln_pre, m.blocks, 1, before=True, axis=0)


def openai_text(cases=()):
    """OpenAI's own text tower: blocks as [S,B,D], packed attention weights, a constant causal mask, the largest id ends the text."""
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.attn, self.ln_1, self.ln_2 = nn.MultiheadAttention(32, HEADS), nn.LayerNorm(32), nn.LayerNorm(32)
            self.c_fc, self.c_proj = nn.Linear(32, 64), nn.Linear(64, 32)

        def forward(self, x, mask):
            y = self.ln_1(x)
            x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
            h = self.c_fc(self.ln_2(x))
            return x + self.c_proj(h * torch.sigmoid(1.702 * h))

    class Tower(nn.Module):
        def __init__(self):
            super().__init__()
            self.token_embedding, self.positional_embedding = nn.Embedding(200, 32), nn.Parameter(torch.randn(16, 32) * 0.1)
            self.blocks, self.ln_final, self.proj = nn.ModuleList([Block() for _ in range(2)]), nn.LayerNorm(32), nn.Parameter(torch.randn(32, OUT) * 0.1)
            self.register_buffer("mask", torch.full((16, 16), float("-inf")).triu(1), persistent=False)

        def forward(self, input_ids):
            x = (self.token_embedding(input_ids) + self.positional_embedding).permute(1, 0, 2)
            for b in self.blocks:
                x = b(x, self.mask)
            x = self.ln_final(x.permute(1, 0, 2))
            return x[torch.arange(x.shape[0]), input_ids.argmax(dim=-1)] @ self.proj
    plainly()
    torch.manual_seed(0)
    m = Tower()
    ids = text_ids(199, 16)
    positions, mask = m.positional_embedding.data, m.mask

    def fit(length):
        m.positional_embedding.data, m.mask = positions[:length], mask[:length, :length]
    return Text(m, m.token_embedding, {"input_ids": ids}, dynamic={"input_ids": {0: "batch"}}, blocks=m.blocks, cases=cases, fit=fit, axis=0)


def sentence_encoder(cases=(), masked=True, fixed=False, attention="sdpa", which="bert", positions=False, first=False, pad=False):
    """BERT or another with a masked mean, as sentence-transformers pools, or with a plain one; with the first token, or, pad, with
    the one in front of the first padding."""
    import transformers as t
    torch.manual_seed(0)
    common = dict(vocab_size=200, hidden_size=WIDTH, intermediate_size=96, num_hidden_layers=2, num_attention_heads=HEADS, max_position_embeddings=32, attn_implementation=attention)
    inputs = {"input_ids": text_ids(0), "attention_mask": torch.tensor([[1] * 12, [1] * 9 + [0] * 3, [1] * 10 + [0] * 2])}
    if which == "bert":
        m = t.BertModel(t.BertConfig(**common), add_pooling_layer=False)
        inputs["token_type_ids"] = torch.zeros(3, 12, dtype=torch.long)
    elif which == "distilbert":
        m = t.DistilBertModel(t.DistilBertConfig(vocab_size=200, dim=WIDTH, hidden_dim=96, n_layers=2, n_heads=HEADS, max_position_embeddings=32, attn_implementation=attention))
    elif which == "mpnet":  # relative positions beside absolute ones
        m = t.MPNetModel(t.MPNetConfig(**{k: v for k, v in common.items() if k != "attn_implementation"}, pad_token_id=0), add_pooling_layer=False)
    elif which == "t5":  # relative positions alone
        m = t.T5EncoderModel(t.T5Config(vocab_size=200, d_model=WIDTH, d_kv=WIDTH // HEADS, d_ff=96, num_layers=2, num_heads=HEADS))
    elif which == "albert":  # one block's weights for all, token embeddings narrower than the blocks
        m = t.AlbertModel(t.AlbertConfig(**common, embedding_size=16), add_pooling_layer=False)
    elif which == "modernbert":  # turned by places, some blocks see a window of neighbours
        m = t.ModernBertModel(t.ModernBertConfig(**common, pad_token_id=0, eos_token_id=2, bos_token_id=1, cls_token_id=1, sep_token_id=2, local_attention=6, global_attn_every_n_layers=2))
    elif which == "xlm":  # cuts the last places out of a text, as many as it has
        m = t.XLMModel(t.XLMConfig(vocab_size=200, emb_dim=WIDTH, n_layers=2, n_heads=HEADS, max_position_embeddings=32, pad_index=0, attn_implementation="eager"))
    elif which == "convbert":  # half of its heads are convolutions along the text
        m = t.ConvBertModel(t.ConvBertConfig(**{k: v for k, v in common.items() if k != "attn_implementation"}, embedding_size=WIDTH, head_ratio=2, conv_kernel_size=3))
    elif which == "nomic":  # turned by places, and the row of one token type is added to all
        m = t.NomicBertModel(t.NomicBertConfig(**common, pad_token_id=0), add_pooling_layer=False)
    elif which == "roberta":  # positions count the tokens that are no padding
        m = t.RobertaModel(t.RobertaConfig(**common, pad_token_id=0), add_pooling_layer=False)
    else:  # a causal decoder that pools its last token
        m = t.LlamaModel(t.LlamaConfig(vocab_size=200, hidden_size=WIDTH, intermediate_size=96, num_hidden_layers=2, num_attention_heads=HEADS, num_key_value_heads=2, attn_implementation=attention))
    if not masked:
        inputs = {"input_ids": inputs["input_ids"].clamp(min=0 if pad else 1)}

    if positions:
        inputs["position_ids"] = torch.arange(12).expand(3, 12).contiguous()

    def encode(m, *x):
        i, a, t, p = (dict(zip(inputs, x)).get(n) for n in ("input_ids", "attention_mask", "token_type_ids", "position_ids"))
        more = {n: y for n, y in (("token_type_ids", t), ("position_ids", p)) if y is not None}
        return m(input_ids=i, attention_mask=a, **more, **({"use_cache": False} if which == "llama" else {})).last_hidden_state

    def pool(h, *x):
        i, a = (dict(zip(inputs, x)).get(n) for n in ("input_ids", "attention_mask"))
        if first:
            return h[:, 0]
        if pad:
            return h[torch.arange(h.shape[0]), (i == 0).int().argmax(-1) - 1]
        if which == "llama":
            return h[:, -1] if a is None else h[torch.arange(h.shape[0]), a.sum(1) - 1]
        if a is None:
            return h.mean(1)
        w = a[..., None].float()
        return (h * w).sum(1) / w.sum(1)
    table = m.encoder.embed_tokens if which == "t5" else m.get_input_embeddings()
    f = lambda m, *x: pool(encode(m, *x), *x)
    return Text(named(m, inputs, f), table, inputs, blocks=None if which in ("albert", "xlm") else blocks_of(m), cases=cases, dynamic={n: {0: "batch"} for n in inputs} if fixed else None,
                encode=lambda *x: encode(m, *x), pool=pool, averages=not (which == "llama" or first or pad))


def averaged(masked=True):
    """Context in towers that average tokens: out of the mean, or with it."""
    cases = [
        dict(name="front", tokens=3, depth=2),
        dict(name="middle", tokens=2, depth=2, at=[[2, 5], [3, 4], [1, 6]]),
        dict(name="pooled", tokens=2, depth=2, at=[[2, 5], [3, 4], [1, 6]], pooled=True),
        dict(name="own", tokens=2, depth=1, per_row=True, start=4),
        dict(name="inserted", tokens=3, depth=2, insert=True),
        dict(name="inserted_pooled", tokens=3, depth=1, insert=True, pooled=True),
        dict(name="inserted_bank", tokens=2, depth=2, start=3, insert=True, index=[1, 0, 1], prompts=2),
        dict(name="rows", rows=[200, 201], inputs=with_rows(text_ids(0) if masked else text_ids(0).clamp(min=1), [200, 201])),
    ]
    return cases


def decoder(which):
    import transformers as t
    torch.manual_seed(0)
    ids = torch.randint(3, 190, (2, 7))
    seen = torch.randn(2, 9, WIDTH)
    if which == "gpt2":
        m = t.GPT2LMHeadModel(t.GPT2Config(vocab_size=200, n_positions=32, n_embd=WIDTH, n_layer=2, n_head=HEADS))
    elif which == "llama":
        m = t.LlamaForCausalLM(t.LlamaConfig(vocab_size=200, hidden_size=WIDTH, intermediate_size=96, num_hidden_layers=2, num_attention_heads=HEADS, num_key_value_heads=2))
    elif which == "opt":
        m = t.OPTForCausalLM(t.OPTConfig(vocab_size=200, hidden_size=WIDTH, ffn_dim=96, num_hidden_layers=2, num_attention_heads=HEADS, word_embed_proj_dim=WIDTH, max_position_embeddings=32))
    elif which == "t5":
        m = t.T5ForConditionalGeneration(t.T5Config(vocab_size=200, d_model=WIDTH, d_kv=12, d_ff=96, num_layers=2, num_heads=HEADS))
        f = lambda m, i, s: m(decoder_input_ids=i, encoder_outputs=(s,)).logits
        return Generic(named(m, ["decoder_input_ids", "encoder_hidden_states"], f), {"decoder_input_ids": ids, "encoder_hidden_states": seen}, ["encoder_hidden_states"])
    elif which == "blip":
        from transformers.models.blip.modeling_blip_text import BlipTextLMHeadModel
        m = BlipTextLMHeadModel(t.BlipTextConfig(vocab_size=200, hidden_size=WIDTH, encoder_hidden_size=WIDTH, intermediate_size=96, num_hidden_layers=2, num_attention_heads=HEADS, max_position_embeddings=32))
        f = lambda m, i, s: m(input_ids=i, encoder_hidden_states=s, is_decoder=True, use_cache=False).logits
        return Generic(named(m, ["input_ids", "encoder_hidden_states"], f), {"input_ids": ids, "encoder_hidden_states": seen}, ["encoder_hidden_states"])
    f = lambda m, e: m(inputs_embeds=e, use_cache=False).logits
    return Generic(named(m, ["inputs_embeds"], f), {"inputs_embeds": torch.randn(2, 7, WIDTH)}, ["inputs_embeds"], dynamic={"inputs_embeds": {0: "batch", 1: "sequence"}})


def prefixed(which, attention="sdpa", **more):
    """A decoder from its ids on, for prefixes."""
    import transformers as t
    torch.manual_seed(0)
    d, encoder = SMALL // HEADS, False
    common = dict(vocab_size=120, attn_implementation=attention)
    if which in ("gpt2", "gpt2_cross"):
        encoder = which == "gpt2_cross"
        m = t.GPT2LMHeadModel(t.GPT2Config(**common, n_positions=24, n_embd=SMALL, n_layer=2, n_head=HEADS, add_cross_attention=encoder))
        more.setdefault("window", 24)
    elif which == "opt":
        m = t.OPTForCausalLM(t.OPTConfig(**common, hidden_size=SMALL, ffn_dim=64, num_hidden_layers=2, num_attention_heads=HEADS, word_embed_proj_dim=SMALL, max_position_embeddings=24))
        more.setdefault("window", 24)
    elif which in ("llama", "qwen3", "neox", "gemma"):
        sizes = dict(hidden_size=SMALL, intermediate_size=64, num_hidden_layers=2, num_attention_heads=HEADS)
        if which == "neox":
            m = t.GPTNeoXForCausalLM(t.GPTNeoXConfig(**common, **sizes))
        else:
            model, config = {"llama": (t.LlamaForCausalLM, t.LlamaConfig), "qwen3": (t.Qwen3ForCausalLM, t.Qwen3Config), "gemma": (t.GemmaForCausalLM, t.GemmaConfig)}[which]
            m = model(config(**common, **sizes, num_key_value_heads=2, head_dim=d))
            more["heads"] = 2
    elif which == "t5":
        encoder = True
        m = t.T5ForConditionalGeneration(t.T5Config(vocab_size=120, d_model=SMALL, d_kv=d, d_ff=64, num_layers=2, num_heads=HEADS))

        def run(m, x, mask, seen, cache):
            at = {"decoder_input_ids": x} if x.ndim == 2 else {"decoder_inputs_embeds": x}
            y = m(**at, decoder_attention_mask=mask, encoder_outputs=(seen,), past_key_values=cache, use_cache=cache is not None)
            return y.logits, y.past_key_values
        return Decoder(m, run, m.get_input_embeddings(), 2, HEADS, d, encoder=True, cross=True, **more)
    elif which == "blip":
        from transformers.models.blip.modeling_blip_text import BlipTextLMHeadModel
        encoder = True
        m = BlipTextLMHeadModel(t.BlipTextConfig(**common, hidden_size=SMALL, encoder_hidden_size=SMALL, intermediate_size=64, num_hidden_layers=2, num_attention_heads=HEADS, max_position_embeddings=24))
        more.setdefault("window", 24)

    def run(m, x, mask, seen, cache):
        at = {"input_ids": x} if x.ndim == 2 else {"inputs_embeds": x}
        if encoder:
            at["encoder_hidden_states"] = seen
        if which == "blip":
            at["is_decoder"] = True
        y = m(**at, attention_mask=mask, past_key_values=cache, use_cache=cache is not None)
        return y.logits, y.past_key_values
    return Decoder(m, run, m.get_input_embeddings(), 2, more.pop("heads", HEADS), d, encoder=encoder, cross=encoder, **more)


def group_queries():
    """Llama with a past and whole masks, for a file as onnxruntime-genai lays it out."""
    case = prefixed("llama", mask=True, past=3, window=64)  # of which the file holds the cosines
    case.inputs["attention_mask"][:] = 1
    return case


def captioner(which):
    import transformers as t
    torch.manual_seed(0)
    pixels, ids = torch.randn(2, 3, SIDE, SIDE), torch.randint(3, 190, (2, 7))
    if which == "blip":
        m = t.BlipForConditionalGeneration(t.BlipConfig(
            text_config=dict(vocab_size=200, hidden_size=WIDTH, encoder_hidden_size=WIDTH, intermediate_size=96, num_hidden_layers=2, num_attention_heads=HEADS, max_position_embeddings=32, bos_token_id=1, eos_token_id=2, pad_token_id=0, sep_token_id=2),
            vision_config=dict(hidden_size=WIDTH, intermediate_size=96, num_hidden_layers=2, num_attention_heads=HEADS, image_size=SIDE, patch_size=PATCH), projection_dim=OUT))
        f = lambda m, p, i: m.text_decoder(input_ids=i, encoder_hidden_states=m.vision_model(p).last_hidden_state, is_decoder=True, use_cache=False).logits
    else:
        m = t.VisionEncoderDecoderModel(encoder=t.ViTModel(t.ViTConfig(hidden_size=WIDTH, intermediate_size=96, num_hidden_layers=2, num_attention_heads=HEADS, image_size=SIDE, patch_size=PATCH), add_pooling_layer=False),
                                        decoder=t.GPT2LMHeadModel(t.GPT2Config(vocab_size=200, n_positions=32, n_embd=WIDTH, n_layer=2, n_head=HEADS, add_cross_attention=True)))
        f = lambda m, p, i: m(pixel_values=p, decoder_input_ids=i, use_cache=False).logits
    return Generic(named(m, ["pixel_values", "input_ids"], f), {"pixel_values": pixels, "input_ids": ids}, ["pixel_values"], dynamic={"pixel_values": {0: "batch"}, "input_ids": {0: "batch"}})


def diffusion(which):
    import diffusers
    torch.manual_seed(0)
    if which == "unet":
        m = diffusers.UNet2DConditionModel(sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(16, 32), norm_num_groups=4, cross_attention_dim=32, attention_head_dim=4,
                                           down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"))
        m.set_attn_processor(diffusers.models.attention_processor.AttnProcessor())
        inputs = {"sample": torch.randn(2, 4, 8, 8), "timestep": torch.tensor([10, 500]), "encoder_hidden_states": torch.randn(2, 6, 32)}
        return Generic(named(m, inputs, lambda m, s, t, e: m(s, t, e, return_dict=False)[0]), inputs, ["sample", "encoder_hidden_states"])
    m = diffusers.AutoencoderKL(block_out_channels=(16, 32), down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, norm_num_groups=4, sample_size=32)
    if which == "vae_decoder":
        inputs = {"latent_sample": torch.randn(2, 4, 4, 4)}
        return Generic(named(m, inputs, lambda m, z: m.decode(z, return_dict=False)[0]), inputs, ["latent_sample"])
    inputs = {"sample": torch.randn(2, 3, 16, 16)}
    return Generic(named(m, inputs, lambda m, x: m.encode(x, return_dict=False)[0].mode()), inputs, ["sample"])


def timm_model(name, **more):
    import timm
    torch.manual_seed(0)
    timm.layers.set_fused_attn(False)
    m = timm.create_model(name, img_size=SIDE, patch_size=PATCH, embed_dim=WIDTH, depth=LAYERS, num_heads=HEADS, num_classes=10, **more)
    return m


def timm_vit(pool="token", **more):
    m = timm_model("vit_tiny_patch16_224", global_pool=pool, class_token=pool == "token", **more)
    c = 1 if pool == "token" else 0
    return Vision(one((m, lambda m, x: m(x))), m.norm_pre, m.blocks, c + more.get("reg_tokens", 0), before=True, out="logits", averages=pool == "avg")


def timm_eva():
    """Rotary positions, and a mean: prompts are among the tokens at the front that are not turned."""
    m = timm_model("eva02_tiny_patch14_224")

    @contextlib.contextmanager
    def around(self, k, start):
        for b in self.blocks[start:]:
            b.attn.num_prefix_tokens += k
        yield
        for b in self.blocks[start:]:
            b.attn.num_prefix_tokens -= k
    return Vision(one((m, lambda m, x: m(x))), m.norm_pre, m.blocks, 1, before=True, out="logits", averages=True, around=around)


def conv_net(name, **more):
    import timm
    torch.manual_seed(0)
    m = timm.create_model(name, num_classes=10, **more)
    return Generic(one((m, lambda m, x: m(x))), {"pixel_values": torch.randn(2, 3, 64, 64)}, ["pixel_values"])


TS, DY = "ts", "dy"
MODELS = {  # name -> (build, [(exporter, opset), ...])
    "clip_vision": (clip_vision, [(TS, 9), (TS, 11), (TS, 13), (TS, 14), (TS, 17), (TS, 18), (TS, 20), (DY, 18), (DY, 20), (DY, 21), (DY, 22), (DY, 23), (DY, 24)]),
    "clip_vision_eager": (lambda: clip_vision("eager"), [(TS, 9), (TS, 11), (TS, 12), (TS, 16), (TS, 17), (DY, 18), (DY, 23)]),
    "clip_vision_static": (lambda: clip_vision(), [(TS, 17), (DY, 18), (DY, 23)]),
    "clip_vision_static_batch17": (lambda: clip_vision(batch=17), [(TS, 17), (DY, 18)]),  # as many as there are tokens
    "siglip_vision_static_batch12": (lambda: siglip_vision(batch=12), [(TS, 17), (DY, 18)]),  # as wide as a head
    "clip_vision_batch17": (lambda: clip_vision(batch=17), [(TS, 17), (DY, 18)]),
    "clip_text": (clip_text, [(TS, 9), (TS, 11), (TS, 14), (TS, 17), (TS, 18), (DY, 18), (DY, 20), (DY, 23)]),
    "clip_text_eos2": (lambda: clip_text("eager", eos=2), [(TS, 11), (TS, 14), (DY, 18)]),
    "clip_text_mask": (lambda: clip_text(mask=True), [(TS, 14), (TS, 17), (DY, 18), (DY, 23)]),
    "clip_text_mask_eager": (lambda: clip_text("eager", mask=True), [(TS, 14), (TS, 17), (DY, 18)]),
    "siglip_vision": (siglip_vision, [(TS, 14), (TS, 17), (DY, 18), (DY, 23)]),
    "siglip_text": (siglip_text, [(TS, 14), (TS, 17), (DY, 18), (DY, 23)]),
    "vit": (lambda: classifier("vit"), [(TS, 14), (TS, 17), (DY, 18), (DY, 23)]),
    "deit": (lambda: classifier("deit"), [(TS, 14), (TS, 17), (DY, 18), (DY, 23)]),
    "dinov2": (lambda: classifier("dinov2"), [(TS, 14), (TS, 17), (DY, 18), (DY, 23)]),
    "dinov2_swiglu": (lambda: classifier("dinov2_swiglu"), [(TS, 17), (DY, 18)]),
    "dinov2_registers": (lambda: classifier("dinov2_registers"), [(DY, 18), (DY, 23)]),
    "vit_mean": (lambda: classifier("vit_mean"), [(TS, 17), (DY, 18)]),
    "ijepa": (lambda: classifier("ijepa"), [(TS, 17), (DY, 18)]),
    "beit": (lambda: classifier("beit"), [(TS, 17), (DY, 18), (DY, 23)]),
    "dinov3": (lambda: classifier("dinov3"), [(TS, 17), (DY, 18), (DY, 23)]),
    "aimv2_vision": (aimv2_vision, [(TS, 17), (DY, 18)]),
    "openclip_vision": (lambda: openclip("vision"), [(TS, 14), (TS, 17), (TS, 20), (DY, 18), (DY, 23)]),
    "openclip_vision_pooler": (lambda: openclip("vision", attentional_pool=True, attn_pooler_queries=4, attn_pooler_heads=4), [(TS, 17), (DY, 18)]),
    "openclip_vision_average": (lambda: openclip("vision", pool_type="avg"), [(TS, 17), (DY, 18)]),
    "openclip_text": (lambda: openclip("text"), [(TS, 14), (TS, 17), (DY, 18), (DY, 23)]),
    "openclip_siglip_text": (openclip_siglip_text, [(TS, 17), (DY, 18)]),
    "openai_vision": (openai_vision, [(TS, 11), (TS, 14), (TS, 17), (DY, 18), (DY, 23)]),
    "sentence_encoder": (sentence_encoder, [(TS, 14), (TS, 17), (DY, 18), (DY, 23)]),
    "context_clip_text": (lambda: clip_text(cases=places), [(TS, 14), (TS, 17), (DY, 18), (DY, 23)]),
    "context_clip_text_eager_eos2": (lambda: clip_text("eager", eos=2, cases=places), [(TS, 11), (TS, 14), (DY, 18)]),
    "context_clip_text_mask": (lambda: clip_text(mask=True, cases=places), [(TS, 14), (TS, 17), (DY, 18), (DY, 23)]),
    "context_clip_text_mask_eager": (lambda: clip_text("eager", mask=True, cases=places), [(TS, 14), (TS, 17), (DY, 18)]),
    "context_clip_text_fixed": (lambda: clip_text(cases=lambda ids: places(ids)[:5] + shorter(), fixed=True), [(TS, 14), (TS, 17), (DY, 18), (DY, 23)]),
    "context_clip_text_mask_fixed": (lambda: clip_text("eager", mask=True, cases=lambda ids: places(ids)[:5] + shorter(), fixed=True), [(TS, 14), (TS, 17), (DY, 18)]),
    "context_clip_text_static": (lambda: clip_text(eos=2, cases=lambda ids: places(ids)[:5] + shorter()), [(TS, 14), (TS, 17), (DY, 18), (DY, 23)]),
    "context_clip_text_longer": (lambda: clip_text(cases=longer, fixed=True), [(TS, 14), (TS, 17)]),
    "context_clip_text_longer_static": (lambda: clip_text(eos=2, cases=longer), [(TS, 17)]),
    "context_sd_text": (lambda: clip_text(last=True, cases=places, ids_as=torch.int32), [(TS, 14), (DY, 18)]),
    "context_siglip_text": (lambda: siglip_text(shorter()), [(TS, 14), (TS, 17), (DY, 18), (DY, 23)]),
    "context_openclip_text": (lambda: openclip("text", places(text_ids(199, 16))[:5] + shorter(14)), [(TS, 14), (TS, 17), (DY, 18), (DY, 23)]),
    "context_sentence": (lambda: sentence_encoder(averaged()), [(TS, 14), (TS, 17), (DY, 18), (DY, 23)]),
    "context_sentence_eager": (lambda: sentence_encoder(averaged(), attention="eager"), [(TS, 14), (DY, 18)]),
    "context_sentence_plain": (lambda: sentence_encoder(averaged(False), masked=False), [(TS, 14), (TS, 17), (DY, 18)]),
    "context_sentence_fixed": (lambda: sentence_encoder(averaged()[:4] + shorter(), fixed=True), [(TS, 14), (TS, 17), (DY, 18)]),
    "context_roberta": (lambda: sentence_encoder(averaged(), which="roberta"), [(TS, 14), (TS, 17), (DY, 18)]),
    "context_openai_text": (lambda: openai_text(places(text_ids(199, 16))[:5] + shorter(14)), [(TS, 14), (TS, 17), (DY, 18), (DY, 23)]),
    "context_first": (lambda: sentence_encoder(averaged()[:5], first=True), [(TS, 17), (DY, 18)]),
    "context_positions": (lambda: sentence_encoder(averaged(), positions=True), [(TS, 17), (DY, 18)]),
    "context_distilbert": (lambda: sentence_encoder(averaged(), which="distilbert"), [(TS, 17), (DY, 18)]),
    "context_mpnet": (lambda: sentence_encoder(averaged(), which="mpnet"), [(TS, 17), (DY, 18)]),
    "context_albert": (lambda: sentence_encoder([c for c in averaged() if c.get("depth", 1) == 1], which="albert"), [(TS, 17), (DY, 18)]),
    "context_modernbert": (lambda: sentence_encoder(averaged(), which="modernbert"), [(TS, 17), (DY, 18)]),
    "context_xlm": (lambda: sentence_encoder([c for c in averaged() if c.get("depth", 1) == 1], which="xlm"), [(TS, 17), (DY, 18)]),
    "convbert": (lambda: sentence_encoder(which="convbert"), [(TS, 17), (DY, 18)]),
    "context_nomic": (lambda: sentence_encoder(averaged(), which="nomic"), [(TS, 17), (DY, 18)]),
    "context_t5": (lambda: sentence_encoder(averaged(), which="t5"), [(TS, 17), (DY, 18)]),
    "context_llama_positions": (lambda: sentence_encoder(averaged()[:5], which="llama", positions=True), [(DY, 18), (DY, 23)]),
    "context_llama_pad": (lambda: sentence_encoder(averaged()[:5], which="llama", masked=False, pad=True), [(DY, 18), (DY, 23)]),
    "context_llama": (lambda: sentence_encoder(averaged()[:5], which="llama"), [(TS, 17), (DY, 18), (DY, 23)]),
    "context_llama_last": (lambda: sentence_encoder(averaged(False)[:5], which="llama", masked=False), [(TS, 17), (DY, 18), (DY, 23)]),
    "decoder_gpt2": (lambda: decoder("gpt2"), [(TS, 17), (DY, 18), (DY, 23)]),
    "decoder_opt": (lambda: decoder("opt"), [(TS, 17), (DY, 18)]),
    "decoder_llama": (lambda: decoder("llama"), [(TS, 17), (DY, 18), (DY, 23)]),
    "decoder_t5": (lambda: decoder("t5"), [(TS, 17), (DY, 18)]),
    "decoder_blip": (lambda: decoder("blip"), [(TS, 14), (TS, 17), (DY, 18), (DY, 23)]),
    "captioner_blip": (lambda: captioner("blip"), [(TS, 17), (DY, 18), (DY, 23)]),
    "captioner_vitgpt2": (lambda: captioner("vitgpt2"), [(DY, 18), (DY, 23)]),
    "prefix_gpt2": (lambda: prefixed("gpt2"), [(TS, 14), (TS, 17), (DY, 18), (DY, 23)]),
    "prefix_gpt2_eager": (lambda: prefixed("gpt2", "eager"), [(TS, 17), (DY, 18)]),
    "prefix_gpt2_mask": (lambda: prefixed("gpt2", mask=True), [(TS, 17), (DY, 18), (DY, 23)]),
    "prefix_gpt2_left": (lambda: prefixed("gpt2", mask=True, left=True), [(TS, 17), (DY, 18)]),
    "prefix_gpt2_eager_left": (lambda: prefixed("gpt2", "eager", mask=True, left=True), [(TS, 17), (DY, 18)]),
    "prefix_opt_left": (lambda: prefixed("opt", mask=True, left=True), [(TS, 17), (DY, 18)]),
    "prefix_llama_left": (lambda: prefixed("llama", mask=True, left=True), [(DY, 18), (DY, 23)]),
    "prefix_gpt2_past_left": (lambda: prefixed("gpt2", mask=True, past=3, left=True), [(DY, 18)]),
    "prefix_llama_fixed": (lambda: prefixed("llama", dynamic=False, run_length=3, window=7), [(DY, 18), (DY, 23)]),  # whose places are all that the file holds
    "prefix_llama_mask_fixed": (lambda: prefixed("llama", mask=True, dynamic=False, run_length=3, window=7), [(DY, 18)]),
    "prefix_gpt2_fixed_short": (lambda: prefixed("gpt2", dynamic=False, run_length=3, window=7), [(DY, 18), (DY, 23)]),
    "prefix_blip_fixed_short": (lambda: prefixed("blip", "eager", dynamic=False, run_length=3, window=7), [(DY, 18)]),
    "prefix_gpt2_past": (lambda: prefixed("gpt2", mask=True, past=3), [(TS, 17), (DY, 18)]),
    "prefix_gpt2_fixed": (lambda: prefixed("gpt2", dynamic=False), [(TS, 17)]),
    "prefix_gpt2_cross": (lambda: prefixed("gpt2_cross"), [(TS, 17), (DY, 18)]),
    "prefix_blip": (lambda: prefixed("blip", "eager", mask=True), [(TS, 14), (TS, 17), (DY, 18), (DY, 23)]),
    "prefix_blip_fixed": (lambda: prefixed("blip", "eager", dynamic=False), [(TS, 17)]),
    "prefix_opt": (lambda: prefixed("opt", mask=True), [(TS, 17), (DY, 18)]),
    "prefix_llama": (lambda: prefixed("llama"), [(TS, 17), (DY, 18), (DY, 23)]),
    "prefix_llama_past": (lambda: prefixed("llama", mask=True, past=3), [(TS, 17), (DY, 18)]),
    "prefix_llama_cosines_past": (group_queries, []),
    "prefix_qwen3": (lambda: prefixed("qwen3", mask=True), [(TS, 17), (DY, 18)]),
    "prefix_gemma": (lambda: prefixed("gemma"), [(DY, 18)]),
    "prefix_neox": (lambda: prefixed("neox"), [(TS, 17), (DY, 18)]),
    "prefix_t5": (lambda: prefixed("t5"), [(TS, 17), (DY, 18)]),
    "unet": (lambda: diffusion("unet"), [(TS, 14), (TS, 17), (DY, 18), (DY, 23)]),
    "vae_decoder": (lambda: diffusion("vae_decoder"), [(TS, 14), (TS, 17), (DY, 18), (DY, 23)]),
    "vae_encoder": (lambda: diffusion("vae_encoder"), [(TS, 17), (DY, 18), (DY, 23)]),
    "timm_vit": (timm_vit, [(TS, 14), (TS, 17), (DY, 18), (DY, 23)]),
    "timm_vit_registers": (lambda: timm_vit(reg_tokens=2), [(TS, 17), (DY, 18)]),
    "timm_vit_average": (lambda: timm_vit("avg"), [(TS, 17), (DY, 18), (DY, 23)]),
    "timm_vit_average_registers": (lambda: timm_vit("avg", reg_tokens=2), [(TS, 17), (DY, 18)]),
    "timm_vit_map": (lambda: timm_vit("map"), [(TS, 17), (DY, 18)]),
    "timm_eva": (timm_eva, [(TS, 17), (DY, 18), (DY, 23)]),
    "resnet": (lambda: conv_net("resnet18"), [(TS, 17), (DY, 18)]),
    "convnext": (lambda: conv_net("convnext_atto"), [(TS, 17), (DY, 18)]),
    "efficientnet": (lambda: conv_net("efficientnet_lite0"), [(TS, 17), (DY, 18)]),
}
AFTERWARDS = {  # name -> (model, exporter, opset, what is done to the file)
    "fused_clip_vision_eager": ("clip_vision_eager", TS, 17, "clip"),
    "fused_clip_vision_dy": ("clip_vision", DY, 18, "clip"),
    "fused_vit": ("vit", TS, 14, "vit"),
    "prefix_group_queries_past": ("prefix_llama_cosines_past", DY, 18, "genai"),
    "context_fused_sentence": ("context_sentence_eager", TS, 14, "bert"),
    "fused_sentence_encoder": ("sentence_encoder", TS, 14, "bert"),
    "ortopt_clip_vision": ("clip_vision_eager", TS, 17, "extended"),
    "ortopt_clip_text": ("clip_text", TS, 17, "extended"),
    "ortopt_siglip_vision": ("siglip_vision", TS, 17, "extended"),
    "fp16_clip_vision": ("clip_vision", TS, 17, "fp16"),
    "fp16_clip_text": ("clip_text", TS, 17, "fp16"),
    "fp16_siglip_vision": ("siglip_vision", DY, 18, "fp16"),
    "int8_clip_vision": ("clip_vision", TS, 17, "int8"),
    "int8_clip_vision_channels": ("clip_vision", DY, 18, "int8 channels"),
    "int8_clip_text": ("clip_text", TS, 17, "int8"),
    "int8_sentence_encoder": ("sentence_encoder", TS, 17, "int8"),
    "qdq_clip_vision": ("clip_vision", TS, 17, "qdq"),
    "q4_clip_vision": ("clip_vision", TS, 17, "q4"),
    "q4_clip_text": ("clip_text", DY, 18, "q4 asymmetric"),
    "q8_clip_text": ("clip_text", TS, 17, "q8"),
    "qdq_clip_text": ("clip_text", TS, 17, "qdq"),
    "qdq_siglip_vision": ("siglip_vision", TS, 17, "qdq"),
    "qdq_vit": ("vit", TS, 17, "qdq"),
    "qop_clip_vision": ("clip_vision", TS, 17, "qop"),
    "qop_clip_text": ("clip_text", TS, 17, "qop"),
    "int8_products_clip_text": ("clip_text", TS, 17, "int8 products"),
    "int8_siglip_vision": ("siglip_vision", TS, 17, "int8"),
    "qdq4_clip_vision": ("clip_vision", DY, 21, "qdq4"),
    "qdq4_clip_text": ("clip_text", TS, 17, "qdq4 asymmetric"),
    "functions_clip_vision": ("clip_vision_eager", TS, 17, "functions"),
    "functions_clip_text": ("clip_text", TS, 14, "functions"),
}


def export(case, path, exporter, opset, static):
    names, args, outs = list(case.inputs), tuple(getattr(case, "exported", case.inputs).values()), getattr(case, "outs", [case.out])
    if exporter == TS:
        torch.onnx.export(case.model, args, str(path), input_names=names, output_names=outs, opset_version=opset, dynamo=False, dynamic_axes=None if static else case.dynamic)
        return
    shapes = None if static else {n: {a: torch.export.Dim.DYNAMIC for a in axes} for n, axes in case.dynamic.items()}
    # dynamo's exporter is told shapes by position
    torch.onnx.export(case.model, args, str(path), input_names=names, output_names=outs, opset_version=opset, dynamo=True, dynamic_shapes=None if shapes is None else tuple(shapes.get(n) for n in names),
                      external_data=False, verbose=False)


def group_query_attention(path, case):
    """Writes a Llama out anew with GroupQueryAttention, which turns queries and keys, joins them with the past, and hides what lies ahead."""
    import onnx
    from onnx import TensorProto as T, helper as h, numpy_helper
    m, nodes, weights = case.inner, [], []
    groups, width = case.heads, case.width

    def weight(name, x):
        weights.append(numpy_helper.from_array(np.ascontiguousarray(x.detach().numpy() if hasattr(x, "detach") else x), name))
        return name

    def op(kind, inputs, outputs=None, **attrs):
        outputs = outputs or [f"made{len(nodes)}"]
        nodes.append(h.make_node(kind, inputs, outputs, **attrs))
        return outputs[0]

    def linear(name, x, layer):
        return op("MatMul", [x, weight(name, layer.weight.T)])

    def norm(name, x, layer):
        return op("SimplifiedLayerNormalization", [x, weight(name, layer.weight)], axis=-1, epsilon=layer.variance_epsilon)
    angles = torch.outer(torch.arange(64).float(), m.model.rotary_emb.inv_freq)
    cos, sin = weight("cos", angles.cos()), weight("sin", angles.sin())
    seen = op("ReduceSum", ["attention_mask", weight("axis", np.array([1]))], keepdims=0)
    last = op("Cast", [op("Sub", [seen, weight("one", np.array(1))])], to=T.INT32)
    total = op("Cast", [op("Gather", [op("Shape", ["attention_mask"]), "one"])], to=T.INT32)
    x = op("Gather", [weight("table", m.model.embed_tokens.weight), "input_ids"])
    for i, layer in enumerate(m.model.layers):
        a, f = layer.self_attn, layer.mlp
        y = norm(f"n{i}", x, layer.input_layernorm)
        q, k, v = (linear(f"{n}{i}", y, p) for n, p in (("q", a.q_proj), ("k", a.k_proj), ("v", a.v_proj)))
        y = op("GroupQueryAttention", [q, k, v, f"past_key_values.{i}.key", f"past_key_values.{i}.value", last, total, cos, sin],
               [f"a{i}", f"present.{i}.key", f"present.{i}.value"], domain="com.microsoft", num_heads=HEADS, kv_num_heads=groups, do_rotary=1)
        x = op("Add", [x, linear(f"o{i}", y, a.o_proj)])
        y = norm(f"p{i}", x, layer.post_attention_layernorm)
        gate = linear(f"g{i}", y, f.gate_proj)
        y = op("Mul", [op("Mul", [gate, op("Sigmoid", [gate])]), linear(f"u{i}", y, f.up_proj)])
        x = op("Add", [x, linear(f"d{i}", y, f.down_proj)])
    op("MatMul", [norm("final", x, m.model.norm), weight("head", m.lm_head.weight.T)], ["logits"])
    ids, past = ["batch", "sequence"], ["batch", groups, "past", width]
    inputs = [h.make_tensor_value_info("input_ids", T.INT64, ids), h.make_tensor_value_info("attention_mask", T.INT64, ["batch", "total"])]
    outputs = [h.make_tensor_value_info("logits", T.FLOAT, [*ids, m.lm_head.weight.shape[0]])]
    for i in range(case.layers):
        for what in ("key", "value"):
            inputs.append(h.make_tensor_value_info(f"past_key_values.{i}.{what}", T.FLOAT, past))
            outputs.append(h.make_tensor_value_info(f"present.{i}.{what}", T.FLOAT, ["batch", groups, "total", width]))
    g = h.make_graph(nodes, "decoder", inputs, outputs, weights)
    onnx.save(h.make_model(g, opset_imports=[h.make_opsetid("", 17), h.make_opsetid("com.microsoft", 1)], ir_version=8, producer_name="exporters.py"), path)


def optimize(path, how, case):
    import onnx
    if how == "functions":
        outline(path)
        return
    if how == "genai":
        group_query_attention(path, case)
        return
    if how == "fp16":
        from onnxruntime.transformers.float16 import convert_float_to_float16
        onnx.save(convert_float_to_float16(onnx.load(path), keep_io_types=True), path)
        return
    if how == "extended":
        import onnxruntime
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(path) + ".optimized"
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        pathlib.Path(str(path) + ".optimized").rename(path)
        return
    from onnxruntime.transformers import optimizer
    optimizer.optimize_model(str(path), model_type=how, num_heads=HEADS, hidden_size=WIDTH, opt_level=0).save_model_to_file(str(path))


def quantize(path, how, case):
    """Quantises the file in place; returns what each of its weights was, by value, and what it now stands for."""
    import onnx
    from onnx.numpy_helper import to_array
    from onnxruntime import quantization as q
    full = {i.name: to_array(i) for i in onnx.load(path).graph.initializer}
    kind, *more = how.split()
    if kind == "int8":
        signed = q.QuantType.QInt8 if "channels" in more else q.QuantType.QUInt8
        q.quantize_dynamic(str(path), str(path), per_channel="channels" in more, weight_type=signed, extra_options={"MatMulConstBOnly": "products" not in more})
    elif kind in ("qdq", "qop"):
        class Batches(q.CalibrationDataReader):
            left = [{n: x.numpy() for n, x in case.inputs.items()}]

            def get_next(self):
                return self.left.pop() if self.left else None
        q.quantize_static(str(path), str(path), Batches(), quant_format=q.QuantFormat.QDQ if kind == "qdq" else q.QuantFormat.QOperator, per_channel=True)
    else:
        from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer
        model = onnx.load(path)
        if kind == "qdq4" and model.opset_import[0].version < 21:
            model = onnx.version_converter.convert_version(model, 21)  # the first with tensors of 4 bits
        written = q.QuantFormat.QDQ if kind == "qdq4" else q.QuantFormat.QOperator
        quantizer = MatMulNBitsQuantizer(model, algo_config=DefaultWeightOnlyQuantConfig(block_size=16, is_symmetric=not more, quant_format=written, op_types_to_quantize=("MatMul",), bits=8 if kind == "q8" else 4))
        quantizer.process()
        quantizer.model.save_model_to_file(str(path))
    model = onnx.load(path).graph
    now = {i.name: to_array(i) for i in model.initializer}
    axes = {n.input[0]: a.i for n in model.node if n.op_type == "DequantizeLinear" for a in n.attribute if a.name == "axis"}
    pairs = []
    for node in model.node:
        if node.op_type == "MatMulNBits":
            at = {a.name: a.i for a in node.attribute}
            name = next(n for n in full if node.input[1].startswith(n + "_Q"))
            packed, scales = now[node.input[1]], now[node.input[2]].reshape(at["N"], -1, 1)
            codes = packed if at["bits"] == 8 else np.stack([packed & 15, packed >> 4], -1)
            codes = codes.reshape(at["N"], -1, at["block_size"]).astype("f4")
            zero = 2.0 ** (at["bits"] - 1)
            if len(node.input) > 3 and node.input[3]:
                z = now[node.input[3]].reshape(at["N"], -1)
                zero = np.stack([z & 15, z >> 4], -1).reshape(at["N"], -1)[:, : scales.shape[1], None].astype("f4")
            pairs.append((full[name], ((codes - zero) * scales).reshape(at["N"], -1)[:, : at["K"]].T))
        if node.op_type == "DequantizeLinear" and node.input[0].endswith("_DQ_Q4"):  # in blocks of 16 rows
            codes, scale, *zero = (np.asarray(now[x], "f4") for x in node.input)
            tall = lambda x: np.repeat(x, 16, 0)[: len(codes)]
            pairs.append((full[node.input[0].removesuffix("_DQ_Q4")], (codes - (tall(zero[0]) if zero else 0)) * tall(scale)))
    for name, codes in now.items():
        base = name.removesuffix("_quantized")
        if base.removesuffix("_Transposed") in full:
            full[base] = full[base.removesuffix("_Transposed")] if base in full else full[base.removesuffix("_Transposed")].T
        if base == name or base not in full:
            continue
        scale, zero = now[base + ("_scale" if base + "_scale" in now else "_quantized_scale")], now.get(base + "_zero_point", now.get(base + "_quantized_zero_point", np.zeros(1)))
        scale, zero = np.asarray(scale, "f4"), np.asarray(zero, "f4")
        if scale.size > 1:  # by the axis of its length
            axis = next(a for a in reversed(range(codes.ndim)) if codes.shape[a] == scale.size) if codes.ndim == 2 else 0
            axis = axes.get(name, axis)
            shape = [1] * codes.ndim
            shape[axis] = -1
            scale, zero = scale.reshape(shape), zero.reshape(shape) if zero.size > 1 else zero
        pairs.append((full[base], (codes.astype("f4") - zero) * scale))
    return pairs


def replace_weights(model, pairs):
    """Puts what stands for each weight into the parameter that it was exported from."""
    for was, now in pairs:
        hit = 0
        for p in model.parameters():
            for turn in (lambda x: x, lambda x: x.T):
                if hit == 0 and p.ndim <= 2 and turn(p.detach().numpy()).shape == was.shape and np.array_equal(turn(p.detach().numpy()), was) or p.ndim > 2 and p.shape == was.shape and np.array_equal(p.detach().numpy(), was):
                    p.data.copy_(torch.from_numpy(np.ascontiguousarray(turn(now))))
                    hit += 1
        assert hit, f"no parameter for a weight of shape {was.shape}"


def outline(path):
    """Makes local functions of modules, those of blocks within those of layers, by the scopes in nodes' names."""
    import onnx
    model = onnx.load(path)
    functions = {}
    for scope in (r"^(.*/layers\.\d+/(?:self_attn|mlp))/", r"^(.*/layers\.\d+)/"):
        groups = {}
        for node in model.graph.node:
            found = re.match(scope, node.name)
            if found:
                groups.setdefault(found[1], set()).add(node.name)
        for name, within in groups.items():
            contract(model, name, within, functions)
    model.functions.extend(functions.values())
    model.opset_import.append(onnx.helper.make_opsetid("modules", 1))
    model.ir_version = max(model.ir_version, 8)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def contract(model, name, within, functions):
    """Puts a call in the place of the nodes of these names; functions of the same body are one."""
    import onnx
    nodes = [n for n in model.graph.node if n.name in within]
    made = {o for n in nodes for o in n.output}
    read = {i for n in model.graph.node if n.name not in within for i in n.input} | {o.name for o in model.graph.output}
    inputs = list(dict.fromkeys(i for n in nodes for i in n.input if i and i not in made))
    outputs = [o for n in nodes for o in n.output if o in read]
    names = {**{x: f"x{i}" for i, x in enumerate(inputs)}, **{x: f"v{i}" for i, x in enumerate(o for n in nodes for o in n.output)}, "": ""}
    body, call = [], onnx.helper.make_node("?", inputs, outputs, name + "/call", domain="modules")
    for n in nodes:
        m = onnx.NodeProto()
        m.CopyFrom(n)
        m.name, m.input[:], m.output[:] = "", [names[i] for i in n.input], [names[o] for o in n.output]
        for a in m.attribute:
            if a.name in ("axis", "epsilon") and n.op_type in ("Softmax", "LayerNormalization"):
                a.ref_attr_name = f"{n.op_type}_{a.name}"
                if a.name == "epsilon":  # an axis is left to its default
                    if not any(given.name == a.ref_attr_name for given in call.attribute):
                        call.attribute.append(onnx.helper.make_attribute(a.ref_attr_name, a.f))
                a.ClearField("f")
                a.ClearField("i")
        body.append(m)
    key = (tuple(m.SerializeToString() for m in body), len(inputs), tuple(names[o] for o in outputs))
    if key not in functions:
        refers = {a.ref_attr_name for m in body for a in m.attribute if a.ref_attr_name}
        functions[key] = onnx.helper.make_function(
            "modules", f"{re.sub(r'[^a-z_]', '', name.split('/')[-1])}_{len(functions)}", [names[i] for i in inputs], [names[o] for o in outputs], body,
            [*(onnx.helper.make_opsetid(o.domain, o.version) for o in model.opset_import), onnx.helper.make_opsetid("modules", 1)],
            attributes=[r for r in refers if r.endswith("epsilon")], attribute_protos=[onnx.helper.make_attribute(r, -1) for r in refers if r.endswith("axis")])
    call.op_type = functions[key].name
    rest = [n for n in model.graph.node if n.name not in within]
    known = {i.name for i in model.graph.input} | {i.name for i in model.graph.initializer} | {""}
    ordered, open_ = [], [*rest, call]
    while open_:  # a call comes after all that it reads
        ready = [n for n in open_ if known.issuperset(n.input)]
        assert ready, "a module reads what is made of its own outputs"
        known.update(o for n in ready for o in n.output)
        ordered += ready
        open_ = [n for n in open_ if not any(n is r for r in ready)]
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in ordered]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def strip(path):
    """Takes out what the exporter notes of this machine: paths and source lines."""
    import onnx
    model = onnx.load(path)
    for part in [model.graph, *model.functions]:
        for node in part.node:
            del node.metadata_props[:]
            node.doc_string = ""
    onnx.save(model, path)


def main(out, wanted):
    out = pathlib.Path(out)
    jobs = [(f"{n}_{e}_op{o}", n, e, o, None) for n, (_, variants) in MODELS.items() for e, o in variants]
    jobs += [(n, m, e, o, how) for n, (m, e, o, how) in AFTERWARDS.items()]
    for name, model, exporter, opset, how in jobs:
        folder = out / name
        if wanted and not any(w in name for w in wanted) or (folder / "meta.json").exists():
            continue
        try:
            case = MODELS[model][0]()
            folder.mkdir(parents=True, exist_ok=True)
            for p in case.model.parameters():
                p.requires_grad_(False)
            seen, more = torch.random.get_rng_state(), {}
            inputs, found = case.reference()
            with torch.no_grad(), contextlib.redirect_stdout(sys.stderr):
                export(case, folder / "model.onnx", exporter, opset, "static" in model)
                if how and how.split()[0] in ("int8", "qdq", "qop", "q4", "q8", "qdq4"):
                    pairs = quantize(folder / "model.onnx", how, case)
                    replace_weights(case.model, pairs)
                    more["quantized"] = True
                elif how:
                    optimize(folder / "model.onnx", how, case)
            strip(folder / "model.onnx")
            if more:
                torch.random.set_rng_state(seen)
                full, (inputs, found) = found, case.reference()
                which = next(n for n in ("grad_prompts_deep", "grad_context") if n in found)
                more["cosine_to_full"] = round(nn.functional.cosine_similarity(full[which].flatten(), found[which].flatten(), 0).item(), 4)
            plain = lambda d: {k: v.detach().numpy() for k, v in d.items()}
            np.savez(folder / "inputs.npz", **plain(case.inputs), **plain(inputs))
            np.savez(folder / "gradients.npz", **plain(found))
            (folder / "meta.json").write_text(json.dumps({"kind": case.kind, "output": case.out, **case.meta(), **more, "note": f"{model}, {exporter}, opset {opset}, {how or 'as exported'}"}, indent=1))
            print("made", name, flush=True)
        except Exception as e:
            print("LEFT OUT", name, type(e).__name__, str(e).strip().split("\n")[0][:150], flush=True)
            if "-v" in sys.argv:
                traceback.print_exc()
            for f in folder.glob("*"):
                f.unlink()
            folder.exists() and folder.rmdir()


if __name__ == "__main__":
    main(sys.argv[1], [a for a in sys.argv[2:] if a not in ("-v", "--small")])
