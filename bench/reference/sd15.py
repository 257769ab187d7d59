"""Exports a latent diffusion pipeline of Stable Diffusion 1.5's sizes with random weights, in half floats with external data, in diffusers' ONNX layout.

Usage: sd15.py export OUT
       sd15.py measure BUNDLE TEST OUT.md
OUT becomes a bundle: model_index.json, scheduler/, tokenizer/, text_encoder/, unet/, vae_encoder/, vae_decoder/. The configurations are written out below: they are
those of the published model. Each part is made by a process of its own, which gives its memory back (peak 6 GB for the UNet). Traced at a small latent, with
open extents, by torchscript at opset 14, as diffusers' own conversion does. `measure` has the test binary TEST of tuning/inversion draw and learn
in it, a process each, on one thread, and writes a table between OUT.md's marks; it is an error when learning takes more than 14 GB. See `make sd-sizes`.
"""
import json
import os
import pathlib
import subprocess
import sys

import torch

import real

UNET = dict(sample_size=64, in_channels=4, out_channels=4, down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3, block_out_channels=(320, 640, 1280, 1280), layers_per_block=2,
            cross_attention_dim=768, attention_head_dim=8)
VAE = dict(in_channels=3, out_channels=3, down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
           block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4, norm_num_groups=32, sample_size=512, scaling_factor=0.18215)
TEXT = dict(vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, max_position_embeddings=77,
            hidden_act="quick_gelu", projection_dim=768, bos_token_id=49406, eos_token_id=49407, pad_token_id=49407)
SCHEDULER = dict(_class_name="PNDMScheduler", beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000,
                 set_alpha_to_one=False, skip_prk_steps=True, steps_offset=1, trained_betas=None, prediction_type="epsilon")
START, END = "<|startoftext|>", "<|endoftext|>"


class Call(torch.nn.Module):
    """A module of what a function makes of another."""

    def __init__(self, model, f):
        super().__init__()
        self.model, self.f = model, f

    def forward(self, *args):
        return self.f(self.model, *args)


def unet():
    import diffusers
    m = diffusers.UNet2DConditionModel(**UNET)
    inputs = {"sample": torch.randn(2, 4, 16, 16).half(), "timestep": torch.tensor([10, 500]), "encoder_hidden_states": torch.randn(2, 77, 768).half()}
    return m, lambda m, x, t, c: m(x, t, c, return_dict=False)[0], inputs, ["out_sample"], {
        "sample": {0: "batch", 1: "channels", 2: "height", 3: "width"}, "timestep": {0: "batch"}, "encoder_hidden_states": {0: "batch", 1: "sequence"}}


def text_encoder():
    from transformers import CLIPTextConfig, CLIPTextModel
    m = CLIPTextModel(CLIPTextConfig(**TEXT))
    ids = torch.full((2, 77), 49407, dtype=torch.int32)
    ids[:, :6] = torch.tensor([49406, 320, 1125, 539, 320, 2368])

    def run(m, ids):
        out = m(ids)
        return out.last_hidden_state, out.pooler_output
    return m, run, {"input_ids": ids}, ["last_hidden_state", "pooler_output"], {"input_ids": {0: "batch", 1: "sequence"}}


def vae():
    import diffusers
    return diffusers.AutoencoderKL(**VAE)


def vae_encoder():
    return vae(), lambda m, x: m.encode(x, return_dict=False)[0].parameters, {"sample": torch.randn(1, 3, 64, 64).half()}, ["latent_parameters"], {
        "sample": {0: "batch", 1: "channels", 2: "height", 3: "width"}}


def vae_decoder():
    return vae(), lambda m, z: m.decode(z, return_dict=False)[0], {"latent_sample": torch.randn(1, 4, 8, 8).half()}, ["sample"], {
        "latent_sample": {0: "batch", 1: "channels", 2: "height", 3: "width"}}


PARTS = {"text_encoder": text_encoder, "vae_encoder": vae_encoder, "vae_decoder": vae_decoder, "unet": unet}


def export(part, folder):
    """Writes one part: model.onnx, and its weights in weights.pb beside it."""
    import onnx
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float16)  # modules are made in half floats at once: no copy in floats
    model, f, inputs, outputs, dynamic = PARTS[part]()
    torch.set_default_dtype(torch.float32)
    model = Call(model.eval().half(), f).requires_grad_(False)
    folder.mkdir(parents=True, exist_ok=True)
    config = model.model.config
    (folder / "config.json").write_text(config.to_json_string() if hasattr(config, "to_json_string") else json.dumps(dict(config), indent=1))
    with torch.no_grad():
        torch.onnx.export(model, tuple(inputs.values()), str(folder / "inline.onnx"), input_names=list(inputs), output_names=outputs,
                          dynamic_axes=dynamic, opset_version=14, do_constant_folding=True, dynamo=False)
    del model
    proto = onnx.load(str(folder / "inline.onnx"))
    (folder / "inline.onnx").unlink()
    onnx.save_model(proto, str(folder / "model.onnx"), save_as_external_data=True, all_tensors_to_one_file=True, location="weights.pb", convert_attribute=False)


def bytes_to_characters():
    """The printable characters that byte-level vocabularies write bytes as."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    return {**{b: chr(b) for b in plain}, **{b: chr(256 + i) for i, b in enumerate(rest)}}


def tokenizer(folder):
    """CLIP's tokenizer with bytes for words: the published merges are not needed to measure."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, Regex, AddedToken
    letters = list(bytes_to_characters().values())
    vocab = {c: i for i, c in enumerate(letters + [c + "</w>" for c in letters])}
    vocab.update({START: TEXT["bos_token_id"], END: TEXT["eos_token_id"]})
    t = Tokenizer(models.BPE(vocab=vocab, merges=[], continuing_subword_prefix="", end_of_word_suffix="</w>", unk_token=END))
    t.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), behavior="removed", invert=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False)])
    t.decoder = decoders.ByteLevel()
    t.post_processor = processors.RobertaProcessing((END, TEXT["eos_token_id"]), (START, TEXT["bos_token_id"]), add_prefix_space=False, trim_offsets=False)
    t.add_special_tokens([AddedToken(START), AddedToken(END)])
    folder.mkdir(parents=True, exist_ok=True)
    t.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(
        {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}, indent=1))


def main(out):
    out = pathlib.Path(out)
    tokenizer(out / "tokenizer")
    (out / "scheduler").mkdir(exist_ok=True)
    (out / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER, indent=1))
    for part in PARTS:
        if not (out / part / "weights.pb").exists():
            subprocess.run([sys.executable, __file__, "part", part, str(out)], check=True)
            print("made", part, flush=True)
    model = "OnnxRuntimeModel"
    (out / "model_index.json").write_text(json.dumps({
        "_class_name": "OnnxStableDiffusionPipeline", "_diffusers_version": "0.42.1", "feature_extractor": [None, None], "safety_checker": [None, None],
        "scheduler": ["diffusers", SCHEDULER["_class_name"]], "tokenizer": ["transformers", "CLIPTokenizer"],
        **{part: ["diffusers", model] for part in PARTS}}, indent=1))


PARTS_MEASURED = {
    "draw": "a denoising step of drawing, guided: two rows",
    "learn": "a step of textual inversion to a new row, recomputing",
}
MOST = 14e9  # bytes, for the step that recomputes


def measured(bundle, test, part):
    env = {**os.environ, "FORETOKEN_SD_SIZES": str(pathlib.Path(bundle).resolve()), "FORETOKEN_SD_PART": part, "FORETOKEN_THREADS": "1"}
    p = subprocess.run([pathlib.Path(test).resolve(), "-test.run", "^TestRealSize$", "-test.timeout", "1h"], env=env, cwd=pathlib.Path(__file__).parents[2] / "tuning" / "inversion", capture_output=True, text=True)
    lines = [json.loads(l) for l in p.stdout.splitlines() if l.startswith("{")]
    if p.returncode or not lines:
        sys.exit(f"{part}: {p.stdout[-2000:]}{p.stderr[-2000:]}")
    return lines[0]


def measure(bundle, test, out, *parts):
    rows, peaks = [], {}
    for part, what in PARTS_MEASURED.items():
        if parts and part not in parts:
            continue
        r = measured(bundle, test, part)
        s, peaks[part] = r["seconds"], r["peak_bytes"]
        cell = lambda name: f"{s[name]:.1f}" if name in s else ""
        rows.append(f"| {what} | {cell('step')} | {r['clock']:.0f} | {cell('encode')} | {cell('prepare')} | {r['peak_bytes'] / 1e9:.1f} |")
        print(rows[-1], flush=True)
    head = [f"{real.cpu()}, {os.cpu_count()} cores of which one is used, load {os.getloadavg()[1]:.1f}; torch {torch.__version__}.", "",
            "| what | the step, s of a core | by the clock | reading a picture, s of a core | preparing the session, s of a core | peak RSS of the process, GB |",
            "|---|---|---|---|---|---|"]
    before, rest = pathlib.Path(out).read_text().split("<!-- sd-sizes -->\n")
    after = rest.split("<!-- /sd-sizes -->")[1]
    pathlib.Path(out).write_text(before + "<!-- sd-sizes -->\n" + "\n".join(head + rows) + "\n<!-- /sd-sizes -->" + after)
    if peaks.get("learn", 0) > MOST:
        sys.exit(f"learning takes {peaks['learn'] / 1e9:.1f} GB")


if __name__ == "__main__":
    if sys.argv[1] == "part":
        export(sys.argv[2], pathlib.Path(sys.argv[3]) / sys.argv[2])
    elif sys.argv[1] == "measure":
        measure(*sys.argv[2:])
    else:
        main(sys.argv[2])
