"""Exports a small random ViT-GPT2 captioner, a T5, a GPT-2 and a Llama with optimum, as people do, and writes their decoders as fixtures of kind "decoder".

Usage: optimum_decoders.py OUT     needs transformers==4.57.1, optimum-onnx==0.1 and exporters.py's other requirements
Of the first two, the decoder without a past, and the merged one twice, whose branch the tests choose by pinning use_cache_branch.
"""
import json
import pathlib
import shutil
import sys
import tempfile

sys.modules["diffusers"] = None  # optimum looks for it, and a version for this transformers may not be there
import numpy as np
import torch
import transformers as t
from torch import nn

import exporters

WIDTH, HEADS, LAYERS, WORDS = 16, 2, 2, 60


def captioner():
    torch.manual_seed(0)
    encoder = t.ViTModel(t.ViTConfig(hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=1, num_attention_heads=HEADS, image_size=32, patch_size=8), add_pooling_layer=False)
    decoder = t.GPT2LMHeadModel(t.GPT2Config(vocab_size=WORDS, n_positions=24, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, add_cross_attention=True, bos_token_id=1, eos_token_id=2))
    model = t.VisionEncoderDecoderModel(encoder=encoder, decoder=decoder).eval()
    model.config.decoder_start_token_id, model.config.pad_token_id, model.generation_config.decoder_start_token_id = 1, 0, 1

    def run(x, mask, seen, cache):
        y = model.decoder(**{"input_ids" if x.ndim == 2 else "inputs_embeds": x}, encoder_hidden_states=seen, past_key_values=cache, use_cache=cache is not None)
        return y.logits, y.past_key_values
    return model, model.decoder.get_input_embeddings(), run, "image-to-text-with-past", 24


def translator():
    torch.manual_seed(0)
    model = t.T5ForConditionalGeneration(t.T5Config(vocab_size=WORDS, d_model=WIDTH, d_kv=WIDTH // HEADS, d_ff=32, num_layers=LAYERS, num_heads=HEADS, decoder_start_token_id=0)).eval()

    def run(x, mask, seen, cache):
        at = {"decoder_input_ids" if x.ndim == 2 else "decoder_inputs_embeds": x}
        y = model(**at, encoder_outputs=(seen,), past_key_values=cache, use_cache=cache is not None)
        return y.logits, y.past_key_values
    return model, model.get_input_embeddings(), run, "text2text-generation-with-past", 0


def language_model(which):
    def make():
        torch.manual_seed(0)
        if which == "gpt2":
            model = t.GPT2LMHeadModel(t.GPT2Config(vocab_size=WORDS, n_positions=24, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS)).eval()
        else:
            model = t.LlamaForCausalLM(t.LlamaConfig(vocab_size=WORDS, hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=1)).eval()

        def run(x, mask, seen, cache):
            y = model(**{"input_ids" if x.ndim == 2 else "inputs_embeds": x}, attention_mask=mask, past_key_values=cache, use_cache=cache is not None)
            return y.logits, y.past_key_values
        return model, model.get_input_embeddings(), run, "text-generation-with-past", 24 if which == "gpt2" else 0
    return make


def export(model, task, folder):
    from optimum.exporters.onnx import main_export
    model.save_pretrained(folder / "model")
    if task.startswith("image"):
        t.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder / "model")
    (folder / "model" / "vocab.json").write_text(json.dumps({f"w{i}": i for i in range(WORDS)}))
    (folder / "model" / "merges.txt").write_text("#version: 0.2\n")
    main_export(str(folder / "model"), str(folder / "onnx"), task=task, local_files_only=True)
    return folder / "onnx"


def case(table, run, past, window, cached, **more):
    exporters.SMALL = WIDTH
    more = {"heads": HEADS, "encoder": True, "cross": True, **more}
    c = exporters.Decoder(nn.Identity(), lambda _, *args: run(*args), table, LAYERS, width=WIDTH // HEADS, past=past, window=window, **more)
    c.inputs["input_ids"] %= WORDS
    if cached:  # keys and values of the encoder's states, which a step with a cache takes in their place
        _, cache = run(c.inputs["input_ids"], None, c.inputs["encoder_hidden_states"], c.cache([]))
        for i, layer in enumerate(cache.cross_attention_cache.layers):
            c.crossed = {**getattr(c, "crossed", {}), f"past_key_values.{i}.encoder.key": layer.keys, f"past_key_values.{i}.encoder.value": layer.values}
    return c


def write(to, file, case, given, more, note):
    inputs, found = case.reference()
    to.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, to / "model.onnx")
    exporters.strip(to / "model.onnx")
    plain = lambda d: {k: v.detach().numpy() for k, v in d.items()}
    np.savez(to / "inputs.npz", **plain(given), **plain(inputs))
    np.savez(to / "gradients.npz", **plain(found))
    (to / "meta.json").write_text(json.dumps({"kind": "decoder", "output": "logits", **case.meta(), **more, "note": note}, indent=1))
    print("made", to.name)


def main(out):
    out = pathlib.Path(out)
    for which, heads in (("gpt2", HEADS), ("llama", 1)):
        model, table, run, task, window = language_model(which)()
        for p in model.parameters():
            p.requires_grad_(False)
        with tempfile.TemporaryDirectory() as folder:
            c = case(table, run, 3, window, False, heads=heads, encoder=False, cross=False, mask=True)
            given = {**c.inputs, "position_ids": torch.arange(3, 10).expand(2, -1)}
            write(out / f"prefix_optimum_{which}", export(model, task, pathlib.Path(folder)) / "model.onnx", c, given, {}, f"{model.__class__.__name__}, optimum, model.onnx")
    for make, base in ((captioner, "prefix_optimum_vitgpt2"), (translator, "prefix_optimum_t5")):
        model, table, run, task, window = make()
        for p in model.parameters():
            p.requires_grad_(False)
        with tempfile.TemporaryDirectory() as folder:
            files = export(model, task, pathlib.Path(folder))
            for name, file, past, more in (
                    (base, "decoder_model", 0, {}),
                    (base + "_merged", "decoder_model_merged", 0, {"pinned": {"use_cache_branch": False}}),
                    (base + "_merged_past", "decoder_model_merged", 3, {"pinned": {"use_cache_branch": True}})):
                c = case(table, run, past, window, base.endswith("t5") and past > 0)
                given = {**c.inputs, **getattr(c, "crossed", {})}
                if base.endswith("t5"):
                    given = {(n.replace(".key", ".decoder.key").replace(".value", ".decoder.value") if "encoder" not in n else n): x for n, x in given.items()}
                    given["encoder_attention_mask"] = torch.ones(2, 9, dtype=torch.long)
                write(out / name, files / f"{file}.onnx", c, given, more, f"{model.__class__.__name__}, optimum, {file}.onnx")


if __name__ == "__main__":
    main(sys.argv[1])
