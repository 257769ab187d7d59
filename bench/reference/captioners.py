"""Makes small random captioners in the layouts that people have, and what transformers' generate says of 50 images with each.

Usage: captioners.py OUT [NAME...]
Optimum needs an older transformers than the reference is made with: OPTIMUM names a folder with optimum-onnx 0.1.0, transformers 4.57.1
and what they need beside this environment (pip install --target). OUT gets a bundle a folder, and golden.json: for each bundle, the cases
(keys of generation_config.json) and the ids that follow the opening; those of bundles that aren't named stay.
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

SIDE, PATCH, WIDTH, HEADS, LAYERS, WORDS, WINDOW, IMAGES = 16, 8, 32, 2, 2, 100, 32, 50
START, PAD, ENDS = 1, 0, [2, 3, 4, 5, 6, 7]

# Each case is laid over the bundle's generation_config.json.
CASES = {
    "greedy": {},
    "greedy, penalties": {"repetition_penalty": 1.4, "no_repeat_ngram_size": 2, "min_new_tokens": 5, "forced_eos_token_id": 2},
    "beam": {"num_beams": 4},
    "beam, early": {"num_beams": 4, "early_stopping": True, "length_penalty": 0.3, "no_repeat_ngram_size": 3, "max_new_tokens": 9},
    "beam, never": {"num_beams": 3, "early_stopping": "never", "length_penalty": 1.7, "forced_bos_token_id": 20, "repetition_penalty": 1.2},
    "opened": {"opening": [11, 12, 13]},
    "opened, beam": {"opening": [14, 15], "num_beams": 4, "min_length": 8},
}


def pixels():
    """Images [50,16,16,3] of bytes that follow from their number, as the test makes them too, and as the encoders take them."""
    import numpy as np
    import torch
    i, y, x, c = np.meshgrid(*map(np.arange, (IMAGES, SIDE, SIDE, 3)), indexing="ij")
    images = (x * (3 + i) + y * (5 + 7 * i % 11) + c * (40 + 13 * i) + i * i * 17 + (x * y * (1 + i % 5)) // 3) % 256
    values = (images.astype(np.float64) / 255 - 0.5) / 0.5
    return torch.tensor(values.astype(np.float32)).permute(0, 3, 1, 2).contiguous()


def spread(model, gain):
    """Makes random weights say different things of different images: they are drawn wider, those that look at images most."""
    import torch
    torch.manual_seed(5)
    for name, p in model.named_parameters():
        if p.dim() > 1:
            wide = gain * (2 if "cross" in name else 1)
            torch.nn.init.normal_(p, std=wide / p.shape[-1] ** 0.5)
        elif "bias" in name:
            torch.nn.init.normal_(p, std=0.1)
    for p in model.parameters():
        p.requires_grad_(False)
    return model.eval()


def vision(t):
    return t.ViTModel(t.ViTConfig(hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=2, num_attention_heads=HEADS, image_size=SIDE, patch_size=PATCH), add_pooling_layer=False)


def swin(t):
    return t.DonutSwinModel(t.DonutSwinConfig(image_size=SIDE, patch_size=2, embed_dim=WIDTH // 2, depths=[2, 1], num_heads=[HEADS, HEADS], window_size=4, mlp_ratio=2.0), add_pooling_layer=False)


def mbart(t):
    return t.MBartForCausalLM(t.MBartConfig(vocab_size=WORDS, d_model=WIDTH, decoder_layers=1, decoder_attention_heads=HEADS, decoder_ffn_dim=64, encoder_layers=1, encoder_attention_heads=HEADS, max_position_embeddings=WINDOW, is_decoder=True, add_cross_attention=True,
                                            bos_token_id=START, eos_token_id=2, pad_token_id=PAD, decoder_start_token_id=START, tie_word_embeddings=False))


def gpt2(t, cross):
    return t.GPT2LMHeadModel(t.GPT2Config(vocab_size=WORDS, n_positions=WINDOW, n_embd=WIDTH, n_inner=64, n_layer=LAYERS, n_head=HEADS, add_cross_attention=cross, is_decoder=True,
                                          bos_token_id=START, eos_token_id=2, pad_token_id=PAD, tie_word_embeddings=False))


def encoder_decoder(t, encoder, decoder):
    model = t.VisionEncoderDecoderModel(encoder=encoder, decoder=decoder)
    model.config.decoder_start_token_id, model.config.pad_token_id = START, PAD
    return spread(model, 1.2)


def trocr(t):
    return t.TrOCRForCausalLM(t.TrOCRConfig(vocab_size=WORDS, d_model=WIDTH, decoder_layers=LAYERS, decoder_attention_heads=HEADS, decoder_ffn_dim=64, max_position_embeddings=WINDOW - 2, cross_attention_hidden_size=WIDTH,
                                            use_cache=True, is_decoder=True, add_cross_attention=True, bos_token_id=START, eos_token_id=2, pad_token_id=PAD, decoder_start_token_id=START, tie_word_embeddings=False))


def blip(t):
    return spread(t.BlipForConditionalGeneration(t.BlipConfig(
        text_config=dict(vocab_size=WORDS, hidden_size=WIDTH, encoder_hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=LAYERS, num_attention_heads=HEADS, max_position_embeddings=WINDOW,
                         bos_token_id=START, sep_token_id=2, eos_token_id=2, pad_token_id=PAD, tie_word_embeddings=False),
        vision_config=dict(hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=2, num_attention_heads=HEADS, image_size=SIDE, patch_size=PATCH))), 1.2)


class ClipCap:
    """A CLIP image tower, a language model, and a network that maps an image's embedding to 4 places before the text (Mokady et al. 2021)."""

    def __init__(self, t):
        import torch
        self.clip = spread(t.CLIPVisionModelWithProjection(t.CLIPVisionConfig(hidden_size=WIDTH, intermediate_size=48, projection_dim=24, num_hidden_layers=2, num_attention_heads=HEADS, image_size=SIDE, patch_size=PATCH)), 1.2)
        self.words = spread(gpt2(t, False), 1.2)
        self.map = spread(torch.nn.Sequential(torch.nn.Linear(24, 48), torch.nn.Tanh(), torch.nn.Linear(48, 4 * WIDTH), torch.nn.Unflatten(1, (4, WIDTH))), 1.5)


def optimum(model, task, folder):
    """Exports in another process, which finds optimum's transformers first."""
    model.save_pretrained(folder / "model")
    if "image" in task:
        config = json.loads((folder / "model" / "config.json").read_text())
        (folder / "model" / "preprocessor_config.json").write_text(json.dumps(preprocessor("ViTImageProcessor")))
        (folder / "model" / "config.json").write_text(json.dumps(config))
    (folder / "model" / "vocab.json").write_text(json.dumps({f"w{i}": i for i in range(WORDS)}))
    (folder / "model" / "merges.txt").write_text("#version: 0.2\n")
    code = "import sys; sys.modules['diffusers'] = None\nfrom optimum.exporters.onnx import main_export\nmain_export(sys.argv[1], sys.argv[2], task=sys.argv[3], local_files_only=True)"
    subprocess.run([sys.executable, "-c", code, str(folder / "model"), str(folder / "onnx"), task], check=True, env={**os.environ, "PYTHONPATH": os.environ["OPTIMUM"]}, stdout=sys.stderr)
    return folder / "onnx"


def preprocessor(kind):
    return {"image_processor_type": kind, "do_resize": True, "size": {"height": SIDE, "width": SIDE}, "resample": 2, "do_center_crop": False, "do_rescale": True, "rescale_factor": 1 / 255,
            "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}


def tokenizer():
    special = ["<pad>", "<s>", "</s>"]
    words = special + [f"w{i}" for i in range(len(special), WORDS)]
    return {"version": "1.0", "truncation": None, "padding": None,
            "added_tokens": [{"id": i, "content": w, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True} for i, w in enumerate(special)],
            "normalizer": None, "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": None, "decoder": None,
            "model": {"type": "WordLevel", "vocab": {w: i for i, w in enumerate(words)}, "unk_token": "<pad>"}}


def bundle(folder, config, start, kind="ViTImageProcessor"):
    folder.mkdir(parents=True, exist_ok=True)
    given = {"bos_token_id": START, "eos_token_id": ENDS, "pad_token_id": PAD, "max_new_tokens": 14, "transformers_version": "5.23.0", **({"decoder_start_token_id": START} if start else {})}
    for name, content in (("config.json", config), ("generation_config.json", given), ("preprocessor_config.json", preprocessor(kind)), ("tokenizer.json", tokenizer())):
        (folder / name).write_text(json.dumps(content, indent=1))


def references(out, wanted, t):
    """Saves the models and writes what generate says of each that is wanted."""
    import torch
    images, golden = pixels(), {}

    def reference(name, generate, start):
        if wanted and name not in wanted:
            return
        golden[name] = {}
        for case, given in CASES.items():
            given = dict(given)
            opening = ([START] if start else []) + given.pop("opening", [])
            config = dict(bos_token_id=START, eos_token_id=ENDS, pad_token_id=PAD, **{"max_new_tokens": 14, **given})
            with torch.no_grad():
                ids = generate(torch.tensor([opening] * IMAGES, dtype=torch.long).reshape(IMAGES, -1), config)
            texts = []
            for row in ids.tolist():
                row = row[len(opening):]
                ends = [i for i, x in enumerate(row) if x in ENDS]
                texts.append(row[:ends[0] + 1] if ends else row)
            golden[name][case] = texts
            print(name, case, len({tuple(x) for x in texts}), "different texts of", sorted({len(x) for x in texts}), "tokens", file=sys.stderr)

    for name, encoder, decoder in (("vitgpt2", vision(t), gpt2(t, True)), ("trocr", vision(t), trocr(t)), ("donut", swin(t), mbart(t))):
        model = encoder_decoder(t, encoder, decoder)
        model.generation_config = t.GenerationConfig()
        reference(name, lambda ids, config: model.generate(pixel_values=images, decoder_input_ids=ids, **config, decoder_start_token_id=START), True)
        model.save_pretrained(out / name)
    model = blip(t)
    model.generation_config = model.text_decoder.generation_config = t.GenerationConfig()
    seen = model.vision_model(pixel_values=images)[0]
    # BlipForConditionalGeneration.generate with every key of the configuration left open
    reference("blip", lambda ids, config: model.text_decoder.generate(input_ids=ids, attention_mask=torch.ones_like(ids), encoder_hidden_states=seen, encoder_attention_mask=torch.ones(seen.shape[:2], dtype=torch.long), **config), True)
    model.save_pretrained(out / "blip")
    model = ClipCap(t)
    model.words.generation_config = t.GenerationConfig()

    def mapped(ids, config):
        prefix = model.map(model.clip(pixel_values=images).image_embeds)
        x = torch.cat([prefix, model.words.get_input_embeddings()(ids)], 1)
        opening = ids if ids.shape[1] else None
        said = model.words.generate(input_ids=opening, inputs_embeds=x, attention_mask=torch.ones(x.shape[:2], dtype=torch.long), **config)
        return said if opening is None or said.shape[1] >= ids.shape[1] and (said[:, :ids.shape[1]] == ids).all() else torch.cat([ids, said], 1)
    reference("clipcap", mapped, False)
    torch.save(model, out / "clipcap.pt")
    return golden


def export(models, out, name, t):
    import torch
    import exporters
    torch.manual_seed(0)
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    plain = lambda which, **kw: {"model_type": which, **kw}
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        if name in ("vitgpt2", "trocr", "donut"):
            model = t.VisionEncoderDecoderModel.from_pretrained(models / name)
            files = optimum(model, "image-to-text-with-past", scratch)
            split, merged = (folder, out / (name + "_merged"))
            bundle(split, plain("vision-encoder-decoder"), True)
            for file in ("encoder_model", "decoder_model", "decoder_with_past_model"):
                shutil.copy(files / f"{file}.onnx", split / f"{file}.onnx")
            if name == "vitgpt2":
                shutil.rmtree(merged, ignore_errors=True)
                bundle(merged, plain("vision-encoder-decoder"), True)
                for file in ("encoder_model", "decoder_model_merged"):
                    shutil.copy(files / f"{file}.onnx", merged / f"{file}.onnx")
        elif name == "blip":
            model = t.BlipForConditionalGeneration.from_pretrained(models / name).eval()
            bundle(folder, plain("blip"), True, "BlipImageProcessor")
            (folder / "onnx").mkdir()
            write(folder / "onnx" / "vision_model.onnx", model.vision_model, lambda m, x: m(pixel_values=x).last_hidden_state, {"pixel_values": (pixels()[:2], {0: "batch"})}, ["last_hidden_state"])
            decoder(folder / "onnx", model.text_decoder, True, (False, True))
        else:
            model = torch.load(models / "clipcap.pt", weights_only=False)
            bundle(folder, plain("clipcap"), False, "CLIPImageProcessor")
            (folder / "onnx").mkdir()
            write(folder / "onnx" / "vision_model.onnx", model.clip, lambda m, x: m(pixel_values=x).image_embeds, {"pixel_values": (pixels()[:2], {0: "batch"})}, ["image_embeds"])
            write(folder / "onnx" / "mapper.onnx", model.map, lambda m, x: m(x), {"image_embeds": (torch.randn(2, 24), {0: "batch"})}, ["prefix"])
            files = optimum(model.words, "text-generation-with-past", scratch)
            shutil.copy(files / "model.onnx", folder / "onnx" / "decoder_model.onnx")
    for file in out.glob(f"{name}*/**/*.onnx"):
        exporters.strip(file)
        print(file, file.stat().st_size, file=sys.stderr)


def write(path, model, run, inputs, outputs):
    """Exports a model with torch's exporter; inputs are example tensors and their open axes by name."""
    import torch
    import exporters
    names = list(inputs)
    module = exporters.named(model, [n.replace(".", "_") for n in names], run)
    shapes = tuple({a: torch.export.Dim.DYNAMIC for a in axes} for _, axes in inputs.values())
    torch.onnx.export(module, tuple(x for x, _ in inputs.values()), str(path), input_names=names, output_names=outputs, opset_version=18, dynamo=True, dynamic_shapes=shapes, external_data=False, verbose=False)


def decoder(folder, model, cross, pasts):
    """Exports a decoder that gives out its keys and values: without a past, and over one."""
    import torch
    from transformers import DynamicCache, EncoderDecoderCache
    for past in pasts:
        inputs = {"input_ids": (torch.randint(3, WORDS, (2, 3)), {0: "batch", 1: "sequence"})}
        if cross:
            inputs["encoder_hidden_states"] = (torch.randn(2, 5, WIDTH), {0: "batch", 1: "seen"})
        for i in range(LAYERS if past else 0):
            for what in ("key", "value"):
                inputs[f"past_key_values.{i}.{what}"] = (torch.randn(2, HEADS, 4, WIDTH // HEADS), {0: "batch", 2: "past"})

        def run(m, ids, *rest):
            seen, known = (rest[0], rest[1:]) if cross else (None, rest)
            cache = EncoderDecoderCache(DynamicCache([(known[2 * i], known[2 * i + 1]) for i in range(LAYERS)] if known else None), DynamicCache())
            y = m(input_ids=ids, encoder_hidden_states=seen, past_key_values=cache, use_cache=True)
            return (y.logits, *(x for layer in y.past_key_values.self_attention_cache.layers for x in (layer.keys, layer.values)))
        outputs = ["logits"] + [f"present.{i}.{what}" for i in range(LAYERS) for what in ("key", "value")]
        write(folder / ("decoder_with_past_model.onnx" if past else "decoder_model.onnx"), model, run, inputs, outputs)


def main(out, wanted):
    import transformers as t
    out = pathlib.Path(out)
    with tempfile.TemporaryDirectory() as models:
        before = json.loads((out / "golden.json").read_text())["ids"] if (out / "golden.json").exists() else {}
        golden = {**before, **references(pathlib.Path(models), wanted, t)}
        for name in ("vitgpt2", "trocr", "donut", "blip", "clipcap"):
            if not wanted or name in wanted:
                export(pathlib.Path(models), out, name, t)
    golden["vitgpt2_merged"] = golden["vitgpt2"]
    (out / "golden.json").write_text(json.dumps({"cases": CASES, "ids": golden}, separators=(",", ":")))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
