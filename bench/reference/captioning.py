"""Prefix tuning of small random captioners in PyTorch: losses, gradients, and where twenty steps lead.

Usage: captioning.py OUT
Writes the models, cross.onnx (a GPT-2 that attends to an image's tokens), plain.onnx (one that does not) and vision.onnx (a ViT),
and reference.safetensors. A case's tensors bear its name: its batches, "start." and "grad." of what is learned, the "losses" of
twenty steps of torch.optim.AdamW, and "end.", where they lead. The prefixes of the cases prefix, keys and network are PEFT's: its
prompt tuning, prefix tuning, and prefix tuning with a projection; the case unplaced is PEFT's prefix tuning with the text at the
places that it has without a prefix. The losses are torch.nn.functional.cross_entropy's.
"""
import sys

import peft
import torch
import transformers as t
from safetensors.torch import save_file

WIDTH, HEADS, WORDS, WINDOW, SEEN, FEATURES = 16, 2, 60, 24, 9, 12
PREFIX, STEPS, BATCHES, ROWS = 4, 20, 4, 3
RATE, SMOOTHING, DECAY = 0.01, 0.1, 0.01
IGNORED = -100


def gpt2(cross):
    torch.manual_seed(5)
    config = t.GPT2Config(vocab_size=WORDS, n_positions=WINDOW, n_embd=WIDTH, n_layer=2, n_head=HEADS, add_cross_attention=cross, bos_token_id=1, eos_token_id=2, pad_token_id=0,
                          attn_pdrop=0, embd_pdrop=0, resid_pdrop=0, initializer_range=0.3)
    return t.GPT2LMHeadModel(config).eval().requires_grad_(False)


def vit():
    torch.manual_seed(6)
    config = t.ViTConfig(hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=2, num_attention_heads=HEADS, image_size=16, patch_size=4, initializer_range=0.3)
    return t.ViTModel(config, add_pooling_layer=False).eval().requires_grad_(False)


def texts(g):
    """Batches of captions, padded: what is read, what is to be said, and where text is. Some places in front are not learned."""
    for _ in range(BATCHES):
        ids, targets, mask = torch.zeros(ROWS, 8, dtype=torch.long), torch.full((ROWS, 8), IGNORED), torch.zeros(ROWS, 8, dtype=torch.long)
        for row, length in enumerate((8, 5, 3)):
            words = torch.randint(3, WORDS, (length,), generator=g)
            ids[row, :length], mask[row, :length] = torch.cat([torch.tensor([1]), words[:-1]]), 1
            targets[row, :length] = torch.cat([words[:-1], torch.tensor([2])])
            targets[row, : max(0, length - 4)] = IGNORED
        yield ids, targets, mask


def loss_of(logits, targets):
    return torch.nn.functional.cross_entropy(logits[:, -targets.shape[1]:].transpose(1, 2), targets, ignore_index=IGNORED, label_smoothing=SMOOTHING)


class Case:
    """What is learned, by name, and the logits that it leads to."""
    def __init__(self, model, source, extents):
        self.model, self.source, self.extents = model, source, extents

    def sources(self, g):
        return {self.source: torch.randn(ROWS, *self.extents, generator=g)} if self.source else {}


class Peft(Case):
    """A prefix of PEFT's over a decoder that sees an image's tokens."""
    def __init__(self, config):
        super().__init__(peft.get_peft_model(gpt2(True), config), "encoder_hidden_states", (SEEN, WIDTH))
        self.encoder = self.model.prompt_encoder["default"]
        torch.manual_seed(7)
        for p in self.encoder.parameters():
            torch.nn.init.normal_(p, std=0.3)
        self.params = dict(self.encoder.named_parameters())

    def logits(self, ids, mask, source):
        return self.model(input_ids=ids, attention_mask=mask, encoder_hidden_states=source).logits


class Unplaced(Peft):
    """Keys and values that take no places: the text begins at place 0, where PEFT has it begin behind them."""
    def logits(self, ids, mask, source):
        past, places = self.model.get_prompt(batch_size=ROWS), torch.arange(ids.shape[1]).expand(ROWS, -1)
        return self.model.get_base_model()(input_ids=ids, attention_mask=torch.cat([torch.ones(ROWS, PREFIX, dtype=torch.long), mask], 1), encoder_hidden_states=source,
                                           past_key_values=past, position_ids=places).logits


class Map(Case):
    """ClipCap's map from an image's feature to the tokens before a caption."""
    def __init__(self):
        super().__init__(gpt2(False), "features", (FEATURES,))
        torch.manual_seed(8)
        self.map = torch.nn.Sequential(torch.nn.Linear(FEATURES, 10), torch.nn.Tanh(), torch.nn.Linear(10, PREFIX * WIDTH))
        self.params = dict(self.map.named_parameters())

    def logits(self, ids, mask, source):
        prefix = self.map(source).view(-1, PREFIX, WIDTH)
        x = torch.cat([prefix, self.model.transformer.wte(ids)], 1)
        return self.model(inputs_embeds=x, attention_mask=torch.cat([torch.ones(ROWS, PREFIX, dtype=torch.long), mask], 1)).logits


class Opened(Map):
    """The same where nothing stands before a caption: the prefix's last place tells its first token."""
    def logits(self, ids, mask, source):
        return super().logits(ids[:, 1:], mask[:, 1:], source)


class Visual(Case):
    """Image tokens at every block of the encoder, through the decoder's cross attention."""
    def __init__(self):
        super().__init__(gpt2(True), "tokens", (17, WIDTH))
        self.vit = vit()
        torch.manual_seed(9)
        self.params = {f"visual.{i}": torch.nn.Parameter(0.3 * torch.randn(1, PREFIX, WIDTH)) for i in range(2)}

    def logits(self, ids, mask, source):
        x = source
        for i, layer in enumerate(self.vit.layers if hasattr(self.vit, "layers") else self.vit.encoder.layer):
            rest = x[:, 1:] if i == 0 else x[:, 1 + PREFIX:]
            x = torch.cat([x[:, :1], self.params[f"visual.{i}"].expand(ROWS, -1, -1), rest], 1)
            x = layer(x)
            x = x if torch.is_tensor(x) else x[0]
        return self.model(input_ids=ids, attention_mask=mask, encoder_hidden_states=self.vit.layernorm(x)).logits


def cases():
    common = dict(task_type="CAUSAL_LM", num_virtual_tokens=PREFIX, token_dim=WIDTH, num_layers=2, num_attention_heads=HEADS)
    yield "prefix", Peft(peft.PromptTuningConfig(**common))
    yield "keys", Peft(peft.PrefixTuningConfig(**common))
    yield "network", Peft(peft.PrefixTuningConfig(**common, prefix_projection=True, encoder_hidden_size=10))
    yield "map", Map()
    yield "opened", Opened()
    yield "visual", Visual()
    yield "unplaced", Unplaced(peft.PrefixTuningConfig(**common))


def follow(name, case, out):
    g = torch.Generator().manual_seed(11)
    batches = [(*text, case.sources(g)) for text in texts(g)]
    for i, (ids, targets, mask, sources) in enumerate(batches):
        out |= {f"{name}.batch.{i}.ids": ids, f"{name}.batch.{i}.targets": targets, f"{name}.batch.{i}.mask": mask}
        out |= {f"{name}.batch.{i}.source": x for x in sources.values()}
    out |= {f"{name}.start.{n}": p.detach().clone() for n, p in case.params.items()}
    optimizer, losses = torch.optim.AdamW(case.params.values(), lr=RATE, weight_decay=DECAY), []
    for step in range(STEPS):
        ids, targets, mask, sources = batches[step % BATCHES]
        loss = loss_of(case.logits(ids, mask, *sources.values()), targets)
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            out |= {f"{name}.grad.{n}": p.grad.clone() for n, p in case.params.items()}
        optimizer.step()
        losses.append(loss.item())
    print(f"{name}: {losses[0]:.4f} to {losses[-1]:.4f}")
    out |= {f"{name}.end.{n}": p.detach().clone() for n, p in case.params.items()} | {f"{name}.losses": torch.tensor(losses)}


class Run(torch.nn.Module):
    def __init__(self, model, run):
        super().__init__()
        self.model, self.run = model, run

    def forward(self, *args):
        return self.run(self.model, *args)


def export(path, model, run, inputs, output):
    axes = {n: {0: "batch"} | ({1: "sequence"} if x.dtype == torch.long else {}) for n, x in inputs.items()}
    torch.onnx.export(Run(model, run), tuple(inputs.values()), path, input_names=list(inputs), output_names=[output], opset_version=17, dynamo=False, dynamic_axes=axes)


def main(folder):
    torch.set_num_threads(1)
    out = {}
    for name, case in cases():
        follow(name, case, out)
    save_file({n: x.contiguous().clone() for n, x in out.items()}, f"{folder}/reference.safetensors")
    ids = {"input_ids": torch.ones(2, 5, dtype=torch.long), "attention_mask": torch.ones(2, 5, dtype=torch.long)}
    export(f"{folder}/plain.onnx", gpt2(False), lambda m, i, a: m(input_ids=i, attention_mask=a, use_cache=False).logits, ids, "logits")
    ids["encoder_hidden_states"] = torch.randn(2, SEEN, WIDTH)
    export(f"{folder}/cross.onnx", gpt2(True), lambda m, i, a, s: m(input_ids=i, attention_mask=a, encoder_hidden_states=s, use_cache=False).logits, ids, "logits")
    export(f"{folder}/vision.onnx", vit(), lambda m, x: m(x).last_hidden_state, {"pixel_values": torch.randn(2, 3, 16, 16)}, "last_hidden_state")


if __name__ == "__main__":
    main(*sys.argv[1:])
