"""Tiny diffusers pipelines with random weights, as ONNX folders in the real layout, and the pictures that diffusers draws with them.

Usage: diffusion.py OUT
Writes OUT/sd (Stable Diffusion 1's layout), OUT/inpaint (a network of 9 channels that is told whole timesteps; a safety checker),
OUT/xl (SDXL's two encoders; weights in a file of their own), OUT/half (Stable Diffusion 1 in half floats, weights so too), OUT/distilled (the network and scheduler of a latent consistency model; the rest is sd's), OUT/inpaint_xl (a network of 9 channels and another text encoder; the rest is xl's), and OUT/golden.npz with OUT/cases.json:
`normals` [60,n] is all noise: for seed s row (17 s + k) mod 60, where k is 0 for the first latents, 1 for the image's latents, 2 for those of
the masked image, 3 + i behind step i. `image` [H,W,3] and `mask` [H,W] are what image-to-image and inpainting begin with; case i's picture is
`i` [3,H,W] in 0..1. Learned rows are `concept` [2,D], `style` [3,D] and `negative` [2,D], `concept_2` [2,D2].
"""
import contextlib
import importlib
import json
import logging
import pathlib
import shutil
import sys
import warnings

import diffusers
import numpy as np
import onnx
import torch
import transformers
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

SIDE = 32  # pixels; latents are half of it
ROWS = 60
torch.manual_seed(0)
CLIPTextModel.text_model = property(lambda self: self)  # where diffusers 0.42 looks for the last norm, which transformers 5 keeps in the model itself
warnings.simplefilter("ignore")
logging.disable(logging.WARNING)


def byte_letters():
    """GPT-2's letters for bytes."""
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {b: chr(b) for b in keep}
    for b in range(256):
        letters.setdefault(b, chr(256 + len(letters) - len(keep)))
    return [letters[b] for b in range(256)]


def write_tokenizer(folder, pad, merged):
    """CLIP's vocabulary of bytes and a few words; as vocab.json and merges.txt, or as tokenizer.json."""
    folder.mkdir(parents=True)
    letters = byte_letters()
    words = [("c", "a"), ("ca", "t</w>"), ("d", "o"), ("do", "g</w>"), ("r", "e"), ("re", "d</w>"), ("o", "f</w>"), ("t", "h"), ("th", "e</w>")]
    names = letters + [x + "</w>" for x in letters] + [a + b for a, b in words] + ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({n: i for i, n in enumerate(names)}, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in words))
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 20, "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "pad_token": pad}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    t = CLIPTokenizer.from_pretrained(folder)
    if merged:
        (folder / "vocab.json").unlink()
        (folder / "merges.txt").unlink()
        t.save_pretrained(folder)
    return t, len(names)


def text_encoder(kind, vocabulary, width, layers, act):
    config = CLIPTextConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers, num_attention_heads=2, max_position_embeddings=20,
        projection_dim=12, hidden_act=act, bos_token_id=vocabulary - 2, eos_token_id=vocabulary - 1, pad_token_id=vocabulary - 1, initializer_range=0.4)
    return kind(config).eval()


def unet(channels, cross, **more):
    return diffusers.UNet2DConditionModel(
        sample_size=SIDE // 2, in_channels=channels, out_channels=4, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=cross,
        attention_head_dim=2, **more).eval()


def autoencoder(scaling):
    return diffusers.AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1, sample_size=SIDE, scaling_factor=scaling,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2).eval()


class Call(torch.nn.Module):
    def __init__(self, f, module):
        super().__init__()
        self.f, self.module = f, module

    def forward(self, *a):
        return self.f(self.module, *a)


def export(folder, call, module, inputs, outputs, axes, half=False, outside=False):
    """One model.onnx by the tracing exporter, in half floats with the weights beside it where asked."""
    folder.mkdir(parents=True)
    path = str(folder / "model.onnx")
    args = tuple(inputs.values())
    if half:
        module = module.half()
        args = tuple(a.half() if a.is_floating_point() and n != "timestep" else a for n, a in inputs.items())
    with torch.no_grad():
        torch.onnx.export(Call(call, module), args, path, input_names=list(inputs), output_names=outputs, dynamic_axes=axes, opset_version=17, dynamo=False)
    if half:
        module.float()
    model = onnx.load(path)
    if outside:
        onnx.save_model(model, path, save_as_external_data=True, all_tensors_to_one_file=True, location="weights.pb", size_threshold=64)
    if hasattr(module, "config"):
        config = module.config
        (folder / "config.json").write_text(config.to_json_string() if hasattr(config, "to_json_string") else json.dumps(dict(config), default=str))


def export_vae(out, vae, parameters, **how):
    z, x = torch.randn(1, 4, SIDE // 2, SIDE // 2), torch.randn(1, 3, SIDE, SIDE)
    spatial = lambda a, b: {a: {0: "batch", 2: "height", 3: "width"}, b: {0: "batch", 2: "out_height", 3: "out_width"}}
    export(out / "vae_decoder", lambda m, z: m.decode(z).sample, vae, {"latent_sample": z}, ["sample"], spatial("latent_sample", "sample"), **how)
    if parameters:  # as optimum has it; below, as diffusers' own script: the file draws noise itself
        export(out / "vae_encoder", lambda m, x: m.encode(x).latent_dist.parameters, vae, {"sample": x}, ["latent_parameters"], spatial("sample", "latent_parameters"), **how)
    else:
        def sample(m, x):
            d = m.encode(x).latent_dist
            return d.mean + d.std * torch.randn_like(d.mean)
        export(out / "vae_encoder", sample, vae, {"sample": x}, ["latent_sample"], spatial("sample", "latent_sample"), **how)
    for part in ("vae_decoder", "vae_encoder"):
        vae.save_config(out / part)


def export_unet(out, net, cross, time, more={}, **how):
    channels = net.config.in_channels
    inputs = {"sample": torch.randn(2, channels, SIDE // 2, SIDE // 2), "timestep": time, "encoder_hidden_states": torch.randn(2, 20, cross), **more}
    axes = {"sample": {0: "batch", 2: "height", 3: "width"}, "encoder_hidden_states": {0: "batch", 1: "sequence"}, "out_sample": {0: "batch", 2: "height", 3: "width"}, **{n: {0: "batch"} for n in more}}

    def call(m, x, t, text, *extra):
        added = dict(zip(more, extra))
        cond = added.pop("timestep_cond", None)
        return m(x, t.to(torch.float32) if time.dtype == torch.int64 else t, encoder_hidden_states=text, timestep_cond=cond, added_cond_kwargs=added or None).sample
    export(out / "unet", call, net, inputs, ["out_sample"], axes, **how)
    net.save_config(out / "unet")


IDS = torch.randint(0, 500, (2, 20))
TEXT_AXES = {"input_ids": {0: "batch"}, "last_hidden_state": {0: "batch"}, "text_embeds": {0: "batch"}, "pooler_output": {0: "batch"}}
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def write_index(out, name, **more):
    (out / "model_index.json").write_text(json.dumps({"_class_name": name, "_diffusers_version": diffusers.__version__, **more}))


def make_sd(out, half=False):
    tok, n = write_tokenizer(out / "tokenizer", "<|endoftext|>", merged=False)
    text, net, vae = text_encoder(CLIPTextModel, n, 16, 2, "quick_gelu"), unet(4, 16), autoencoder(0.18215)
    how = {"half": half, "outside": half}
    if half:
        for m in (text, net, vae):  # what half floats hold, so that both sides have the same weights
            m.half().float()
    export(out / "text_encoder", lambda m, i: tuple(m(i)[:2]), text, {"input_ids": IDS.int()}, ["last_hidden_state", "pooler_output"], TEXT_AXES, **how)
    export_unet(out, net, 16, torch.tensor([3.5]), **how)
    export_vae(out, vae, parameters=True, **how)
    diffusers.PNDMScheduler(**SD, skip_prk_steps=True, steps_offset=1).save_pretrained(out / "scheduler")
    write_index(out, "StableDiffusionPipeline")
    return {"text_encoder": text, "tokenizer": tok, "unet": net, "vae": vae, "safety_checker": None, "feature_extractor": None}


def make_inpaint(out):
    tok, n = write_tokenizer(out / "tokenizer", "<|endoftext|>", merged=True)
    text, net, vae = text_encoder(CLIPTextModel, n, 16, 2, "quick_gelu"), unet(9, 16), autoencoder(0.18215)
    export(out / "text_encoder", lambda m, i: tuple(m(i)[:2]), text, {"input_ids": IDS}, ["last_hidden_state", "pooler_output"], TEXT_AXES)
    export_unet(out, net, 16, torch.tensor(3, dtype=torch.int64))
    export_vae(out, vae, parameters=False)
    diffusers.DDIMScheduler(**SD, clip_sample=False, set_alpha_to_one=False, steps_offset=1).save_pretrained(out / "scheduler")
    write_index(out, "StableDiffusionInpaintPipeline")
    return {"text_encoder": text, "tokenizer": tok, "unet": net, "vae": vae, "safety_checker": None, "feature_extractor": None}


def make_checker(out, pictures):
    """A safety checker that finds half of the pictures unsafe."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    vision = dict(hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8, projection_dim=6)
    checker = StableDiffusionSafetyChecker(transformers.CLIPConfig(text_config=dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8), vision_config=vision, projection_dim=6)).eval()
    torch.nn.init.normal_(checker.visual_projection.weight)
    for name in ("concept_embeds", "special_care_embeds"):
        torch.nn.init.normal_(getattr(checker, name))
    extractor = transformers.CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    extractor.save_pretrained(out / "feature_extractor")
    seen = extractor([Image.fromarray((x.transpose(1, 2, 0) * 255).round().astype(np.uint8)) for x in pictures], return_tensors="pt").pixel_values
    with torch.no_grad():
        embeds = checker.visual_projection(checker.vision_model(seen)[1])
        near = torch.nn.functional.normalize(embeds) @ torch.nn.functional.normalize(checker.concept_embeds).T
    concept = int(near.std(0).argmax())  # the one that tells them apart
    order = near[:, concept].sort().values
    checker.concept_embeds_weights.data.fill_(2)
    checker.concept_embeds_weights.data[concept] = (order[len(order) // 2 - 1] + order[len(order) // 2]) / 2
    checker.special_care_embeds_weights.data.fill_(2)
    axes = {"clip_input": {0: "batch"}, "images": {0: "batch", 1: "height", 2: "width"}, "out_images": {0: "batch", 1: "height", 2: "width"}, "has_nsfw_concepts": {0: "batch"}}
    export(out / "safety_checker", lambda m, c, i: m.forward_onnx(c, i), checker, {"clip_input": torch.randn(1, 3, 16, 16), "images": torch.rand(1, SIDE, SIDE, 3)}, ["out_images", "has_nsfw_concepts"], axes)
    return {"safety_checker": checker, "feature_extractor": extractor}


def unet_xl(channels):
    return unet(channels, 40, addition_embed_type="text_time", addition_time_embed_dim=4, projection_class_embeddings_input_dim=12 + 6 * 4, transformer_layers_per_block=1)


def export_unet_xl(out, net, **how):
    export_unet(out, net, 40, torch.tensor([3.5]), {"text_embeds": torch.randn(2, 12), "time_ids": torch.randn(2, 6)}, **how)


def export_text_2(out, text, **how):
    states = [f"hidden_states.{i}" for i in range(text.config.num_hidden_layers + 1)]
    axes = TEXT_AXES | {s: {0: "batch"} for s in states}
    export(out / "text_encoder_2", lambda m, i: (lambda o: (o.text_embeds, o.last_hidden_state, *o.hidden_states))(m(i, output_hidden_states=True)), text, {"input_ids": IDS}, ["text_embeds", "last_hidden_state", *states], axes, **how)


def make_xl(out):
    tok, n = write_tokenizer(out / "tokenizer", "<|endoftext|>", merged=False)
    tok2, _ = write_tokenizer(out / "tokenizer_2", "!", merged=False)
    one, two = text_encoder(CLIPTextModel, n, 16, 3, "quick_gelu"), text_encoder(CLIPTextModelWithProjection, n, 24, 2, "gelu")
    net = unet_xl(4)
    vae = autoencoder(0.13025)
    how = {"outside": True}
    states = [f"hidden_states.{i}" for i in range(4)]
    axes = TEXT_AXES | {s: {0: "batch"} for s in states}
    export(out / "text_encoder", lambda m, i: (lambda o: (o.last_hidden_state, o.pooler_output, *o.hidden_states))(m(i, output_hidden_states=True)), one, {"input_ids": IDS}, ["last_hidden_state", "pooler_output", *states], axes, **how)
    export_text_2(out, two, **how)
    export_unet_xl(out, net, **how)
    export_vae(out, vae, parameters=True, **how)
    diffusers.EulerDiscreteScheduler(**SD, timestep_spacing="leading", steps_offset=1).save_pretrained(out / "scheduler")
    write_index(out, "StableDiffusionXLPipeline", force_zeros_for_empty_prompt=True)
    return {"text_encoder": one, "text_encoder_2": two, "tokenizer": tok, "tokenizer_2": tok2, "unet": net, "vae": vae}


def make_distilled(out, sd):
    """A network that is told its guidance, and its scheduler; all else is that of sd."""
    net = unet(4, 16, time_cond_proj_dim=8)
    torch.nn.init.normal_(net.time_embedding.cond_proj.weight)
    export_unet(out, net, 16, torch.tensor([3.5]), {"timestep_cond": torch.randn(2, 8)})
    diffusers.LCMScheduler(**SD).save_pretrained(out / "scheduler")
    return sd | {"unet": net}


def make_inpaint_xl(out, xl):
    """A network of 9 channels, and a second text encoder of which a layer can be left out; all else is that of xl."""
    net, text = unet_xl(9), text_encoder(CLIPTextModelWithProjection, xl["text_encoder_2"].config.vocab_size, 24, 3, "gelu")
    export_unet_xl(out, net)
    export_text_2(out, text, outside=True)
    write_index(out, "StableDiffusionXLInpaintPipeline", force_zeros_for_empty_prompt=True)
    return xl | {"unet": net, "text_encoder_2": text}


SCHEDULERS = {"pndm": "PNDMScheduler", "ddim": "DDIMScheduler", "euler": "EulerDiscreteScheduler", "euler_ancestral": "EulerAncestralDiscreteScheduler", "dpmpp_2m": "DPMSolverMultistepScheduler", "lcm": "LCMScheduler"}


@contextlib.contextmanager
def noise(normals, seed):
    """Has diffusers draw the given noise: what draws it is told by the module that asks."""
    shape = (1, 4, SIDE // 2, SIDE // 2)
    of = lambda k: normals[(17 * seed + k) % ROWS].reshape(shape)
    counts = {"step": 0, "posterior": 0}

    def count(kind, first):
        def drawn(*a, **k):
            counts[kind] += 1
            return of(first + counts[kind] - 1).clone()
        return drawn
    patched = []

    def patch(module, f):
        m = importlib.import_module(module)
        patched.append((m, m.randn_tensor))
        m.randn_tensor = f
    for name in ("ddim", "euler_discrete", "euler_ancestral_discrete", "dpmsolver_multistep", "lcm"):
        patch(f"diffusers.schedulers.scheduling_{name}", count("step", 3))
    patch("diffusers.models.autoencoders.vae", count("posterior", 1))
    for name in ("stable_diffusion.pipeline_stable_diffusion_img2img", "stable_diffusion.pipeline_stable_diffusion_inpaint", "stable_diffusion.pipeline_stable_diffusion", "stable_diffusion_xl.pipeline_stable_diffusion_xl", "stable_diffusion_xl.pipeline_stable_diffusion_xl_img2img", "stable_diffusion_xl.pipeline_stable_diffusion_xl_inpaint"):
        patch(f"diffusers.pipelines.{name}", lambda *a, **k: of(0).clone())
    try:
        yield
    finally:
        for m, f in patched:
            m.randn_tensor = f


def pipeline(parts, kind, case):
    config = json.loads((case["folder"] / "scheduler" / "scheduler_config.json").read_text())
    name = SCHEDULERS[case["scheduler"]] if case.get("scheduler") else config["_class_name"]
    p = kind(**parts, scheduler=getattr(diffusers, name).from_config(config))
    p.set_progress_bar_config(disable=True)
    return p


def learn(parts, learned):
    """Adds the learned rows as words, as diffusers' load_textual_inversion does."""
    for key, suffix in (("", ""), ("_2", "_2")):
        tok, enc = parts.get("tokenizer" + key), parts.get("text_encoder" + key)
        if enc is None:
            continue
        for name, token in (("concept", "<mug>"), ("style", "<style>"), ("negative", "<bad>")):
            rows = learned.get(name + suffix)
            if rows is None:
                continue
            words = [f"{token[:-1]}{i}>" for i in range(len(rows))]
            tok.add_tokens(words)
            enc.resize_token_embeddings(len(tok))
            table = enc.get_input_embeddings().weight.data
            for w, r in zip(words, rows):
                table[tok.convert_tokens_to_ids(w)] = r


def cases():
    both = {"prompt": "a cat of the red dog", "negative": "the dog"}
    for s in SCHEDULERS:
        yield {"bundle": "sd", "scheduler": s, "steps": 8 if s == "lcm" else 20, "guidance": 7.5, **both}
    yield {"bundle": "sd", "steps": 20, "guidance": 3, "prompt": "red", "negative": "", "seed": 1}
    yield {"bundle": "sd", "steps": 10, "guidance": 1, "prompt": "a dog", "negative": "", "seed": 2}
    yield {"bundle": "sd", "scheduler": "ddim", "steps": 10, "guidance": 9, "rescale": 0.7, **both}
    yield {"bundle": "sd", "scheduler": "ddim", "steps": 10, "guidance": 5, "prompt": "a cat " * 30, "negative": ""}
    yield {"bundle": "sd", "clip_skip": 1, "steps": 10, "guidance": 1, **both}  # diffusers skips nothing of negative prompts
    yield {"bundle": "distilled", "steps": 4, "guidance": 8.5, "prompt": "a cat", "negative": ""}
    yield {"bundle": "distilled", "steps": 4, "guidance": 2, "prompt": "a cat", "negative": ""}
    for s in SCHEDULERS:
        yield {"bundle": "sd", "scheduler": s, "steps": 20, "guidance": 4, "strength": 0.6, "image": True, "seed": 1, **both}
        yield {"bundle": "sd", "scheduler": s, "steps": 20, "guidance": 4, "strength": 1.0, "image": True, "mask": True, "seed": 2, **both}
    yield {"bundle": "sd", "steps": 20, "guidance": 4, "strength": 0.7, "image": True, "mask": True, **both}
    yield {"bundle": "sd", "scheduler": "euler", "steps": 20, "guidance": 4, "strength": 0.7, "image": True, "mask": True, **both}
    for seed in range(6):
        yield {"bundle": "inpaint", "steps": 10, "guidance": 4, "strength": 1.0, "image": True, "mask": True, "seed": seed, **both}
    yield {"bundle": "inpaint", "steps": 20, "guidance": 4, "strength": 0.8, "image": True, "mask": True, **both}
    yield {"bundle": "half", "steps": 20, "guidance": 4, **both}
    yield {"bundle": "half", "scheduler": "euler", "steps": 20, "guidance": 4, "strength": 0.6, "image": True, **both}
    for s in SCHEDULERS:
        yield {"bundle": "xl", "scheduler": s, "steps": 8 if s == "lcm" else 20, "guidance": 5, **both}
    yield {"bundle": "xl", "steps": 20, "guidance": 5, "prompt": "a cat", "negative": ""}
    yield {"bundle": "xl", "steps": 10, "guidance": 5, "strength": 0.5, "image": True, **both}
    yield {"bundle": "sd", "steps": 20, "guidance": 5, "prompt": "a <mug> of red", "negative": "the", "concepts": ["concept"]}
    yield {"bundle": "sd", "steps": 20, "guidance": 5, "prompt": "a cat and <mug>, <mug>!", "negative": "dog", "concepts": ["concept", "style", "negative"], "seed": 1}
    yield {"bundle": "xl", "steps": 20, "guidance": 5, "prompt": "a <mug> of red", "negative": "the", "concepts": ["concept"]}
    for strength in (1.0, 0.6):
        yield {"bundle": "sd", "scheduler": "ddim", "eta": 0.8, "steps": 10, "guidance": 4, **({"strength": strength, "image": True} if strength < 1 else {}), **both}
    for bundle in ("xl", "inpaint_xl"):
        yield {"bundle": bundle, "steps": 10, "guidance": 5, "strength": 1.0, "image": True, "mask": True, "seed": 1, **both}
        yield {"bundle": bundle, "scheduler": "ddim", "steps": 10, "guidance": 5, "strength": 0.7, "image": True, "mask": True, **both}
    yield {"bundle": "inpaint_xl", "scheduler": "dpmpp_2m", "steps": 10, "guidance": 5, "strength": 1.0, "image": True, "mask": True, "prompt": "a cat", "negative": "", "seed": 2}
    yield {"bundle": "inpaint_xl", "clip_skip": 1, "steps": 10, "guidance": 1, "strength": 1.0, "image": True, "mask": True, **both}


def spelled(case, learned):
    """The texts with the learned words written out."""
    count = lambda name: len(learned[name])
    words = lambda token, n: " ".join(f"{token[:-1]}{i}>" for i in range(n))
    used = case.get("concepts", [])
    prompt, negative = case["prompt"], case["negative"]
    prompt = prompt.replace("<mug>", words("<mug>", count("concept")))
    if "style" in used:
        prompt = words("<style>", count("style")) + " " + prompt
    if "negative" in used:
        negative = words("<bad>", count("negative")) + " " + negative
    return prompt, negative


KINDS = {
    "sd": (diffusers.StableDiffusionPipeline, diffusers.StableDiffusionImg2ImgPipeline, diffusers.StableDiffusionInpaintPipeline),
    "distilled": (diffusers.StableDiffusionPipeline, None, None),
    "half": (diffusers.StableDiffusionPipeline, diffusers.StableDiffusionImg2ImgPipeline, None),
    "inpaint": (None, None, diffusers.StableDiffusionInpaintPipeline),
    "xl": (diffusers.StableDiffusionXLPipeline, diffusers.StableDiffusionXLImg2ImgPipeline, diffusers.StableDiffusionXLInpaintPipeline),
    "inpaint_xl": (None, None, diffusers.StableDiffusionXLInpaintPipeline),
}


def draw(case, parts, normals, image, mask, learned):
    kind = KINDS[case["bundle"]][2 if case.get("mask") else 1 if case.get("image") else 0]
    parts = dict(parts)
    if case["bundle"] != "inpaint" and kind not in KINDS["xl"]:
        parts |= {"safety_checker": None, "feature_extractor": None}
    p = pipeline(parts, kind, case)
    prompt, negative = spelled(case, learned)
    more = {}
    if case.get("image"):
        more |= {"image": Image.fromarray(image), "strength": case["strength"]}
    else:
        more["latents"] = normals[17 * case.get("seed", 0) % ROWS].reshape(1, 4, SIDE // 2, SIDE // 2).clone()
    if case.get("mask"):
        more |= {"mask_image": Image.fromarray(mask), "height": SIDE, "width": SIDE}
    if "clip_skip" in case:
        more["clip_skip"] = case["clip_skip"]
    if "eta" in case:
        more["eta"] = case["eta"]
    if "rescale" in case:
        more["guidance_rescale"] = case["rescale"]
    with noise(normals, case.get("seed", 0)), torch.no_grad():
        out = p(prompt, negative_prompt=negative or None, num_inference_steps=case["steps"], guidance_scale=float(case["guidance"]), output_type="np", **more)
    return out.images[0].transpose(2, 0, 1).astype(np.float32), bool((getattr(out, "nsfw_content_detected", None) or [False])[0])


def main(out):
    torch.set_num_threads(1)
    out = pathlib.Path(out)
    for name in ("sd", "inpaint", "xl", "half", "distilled", "inpaint_xl"):
        shutil.rmtree(out / name, ignore_errors=True)
    models = {"sd": make_sd(out / "sd"), "inpaint": make_inpaint(out / "inpaint"), "xl": make_xl(out / "xl"), "half": make_sd(out / "half", half=True)}
    g = torch.Generator().manual_seed(3)
    size = 4 * (SIDE // 2) ** 2
    normals = torch.randn(ROWS, size, generator=g)
    learned = {n: torch.randn(k, w, generator=g) * 0.5 for n, k, w in (("concept", 2, 16), ("style", 3, 16), ("negative", 2, 16), ("concept_2", 2, 24))}
    r = np.random.default_rng(5)
    image = np.asarray(Image.fromarray(r.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((SIDE, SIDE), Image.BICUBIC))
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
    mask[8:20, 10:31] = 255
    for m in models.values():
        learn(m, learned)
    models["distilled"] = make_distilled(out / "distilled", models["sd"])
    first = [c for c in cases() if c["bundle"] == "inpaint"][:6]
    unchecked = [draw(c | {"folder": out / "inpaint"}, models["inpaint"], normals, image, mask, learned)[0] for c in first]
    models["inpaint"] |= make_checker(out / "inpaint", unchecked)
    models["inpaint_xl"] = make_inpaint_xl(out / "inpaint_xl", models["xl"])
    arrays = {"normals": normals.numpy(), "image": image, "mask": mask, **{n: v.numpy() for n, v in learned.items()}}
    written = []
    for i, case in enumerate(cases()):
        folder = out / ("xl" if case["bundle"] == "inpaint_xl" else case["bundle"])  # where the scheduler's file is
        drawn, unsafe = draw(case | {"folder": folder}, models[case["bundle"]], normals, image, mask, learned)
        arrays[str(i)] = drawn
        written.append(case | {"picture": i, "unsafe": unsafe})
        print(i, case["bundle"], case.get("scheduler"), unsafe, drawn.mean(), drawn.std(), flush=True)
    np.savez_compressed(out / "golden.npz", **arrays)
    (out / "cases.json").write_text("[\n" + ",\n".join(json.dumps(c) for c in written) + "\n]\n")


if __name__ == "__main__":
    main(sys.argv[1])
