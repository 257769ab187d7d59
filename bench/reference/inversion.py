"""Textual inversion in PyTorch, from the rows, pictures, texts and noise that foretoken's test wrote down.

Usage: inversion.py bundles OUT          writes OUT/sd and OUT/xl: tiny pipelines with random weights, in diffusers' ONNX layout,
                                         and OUT/inpaint: a network of 9 channels that is told its guidance; the rest is sd's
       inversion.py follow IN OUT        for each PIPELINE-PREDICTION.npz of IN writes what the steps come to into OUT
IN's files hold the rows at the start, and of each step the scaled latents, noise, timesteps, token ids and weights; OUT's the losses, the
first step's gradient and the rows at the end. Noise is added and targets are made by diffusers' DDPMScheduler; the optimiser is
torch.optim.AdamW over the rows alone. See `make reference`.
"""
import pathlib
import shutil
import sys

import diffusers
import numpy as np
import torch
from transformers import CLIPTextModel, CLIPTextModelWithProjection

import diffusion
from diffusion import SD, SIDE, TEXT_AXES, autoencoder, export, export_unet, export_vae, text_encoder, unet, write_index, write_tokenizer

TOKENS = 523  # of the tokenizer's vocabulary
IDS = torch.randint(0, 500, (2, 20))


def models(kind):
    """The same weights each time."""
    torch.manual_seed(20)
    if kind == "inpaint":
        m = models("sd")
        m["unet"] = unet(9, 16, time_cond_proj_dim=8)
        torch.nn.init.normal_(m["unet"].time_embedding.cond_proj.weight)
        return m
    if kind == "sd":
        return {"text_encoder": text_encoder(CLIPTextModel, TOKENS, 16, 2, "quick_gelu"), "unet": unet(4, 16), "vae": autoencoder(0.18215)}
    net = unet(4, 40, addition_embed_type="text_time", addition_time_embed_dim=4, projection_class_embeddings_input_dim=12 + 6 * 4, transformer_layers_per_block=1)
    return {"text_encoder": text_encoder(CLIPTextModel, TOKENS, 16, 3, "quick_gelu"),
            "text_encoder_2": text_encoder(CLIPTextModelWithProjection, TOKENS, 24, 2, "gelu"), "unet": net, "vae": autoencoder(0.13025)}


def states(out, first):
    return (*first, *out.hidden_states)


def bundle(kind, out):
    shutil.rmtree(out, ignore_errors=True)
    m = models(kind)
    torch.manual_seed(0)
    if kind == "inpaint":
        export_unet(out, m["unet"], 16, torch.tensor([3.5]), {"timestep_cond": torch.randn(2, 8)})
        return
    _, n = write_tokenizer(out / "tokenizer", "<|endoftext|>", merged=False)
    assert n == TOKENS, n
    net, side = m["unet"], SIDE // 2
    inputs = {"sample": torch.randn(2, 4, side, side), "timestep": torch.tensor([3, 500]), "encoder_hidden_states": torch.randn(2, 20, net.config.cross_attention_dim)}
    if kind == "sd":
        export(out / "text_encoder", lambda m, i: tuple(m(i)[:2]), m["text_encoder"], {"input_ids": IDS.int()}, ["last_hidden_state", "pooler_output"], TEXT_AXES)
    else:
        write_tokenizer(out / "tokenizer_2", "!", merged=False)
        names = [f"hidden_states.{i}" for i in range(4)]
        axes = TEXT_AXES | {s: {0: "batch"} for s in names}
        export(out / "text_encoder", lambda m, i: (lambda o: states(o, (o.last_hidden_state, o.pooler_output)))(m(i, output_hidden_states=True)),
               m["text_encoder"], {"input_ids": IDS}, ["last_hidden_state", "pooler_output", *names], axes)
        export(out / "text_encoder_2", lambda m, i: (lambda o: states(o, (o.text_embeds, o.last_hidden_state)))(m(i, output_hidden_states=True)),
               m["text_encoder_2"], {"input_ids": IDS}, ["text_embeds", "last_hidden_state", *names[:3]], axes)
        inputs |= {"text_embeds": torch.randn(2, 12), "time_ids": torch.randn(2, 6)}
    axes = {n: {0: "batch", **({2: "height", 3: "width"} if n == "sample" else {})} for n in inputs} | {"out_sample": {0: "batch", 2: "height", 3: "width"}}

    def denoise(m, x, t, text, *more):
        return m(x, t, encoder_hidden_states=text, added_cond_kwargs=dict(zip(("text_embeds", "time_ids"), more)) or None).sample
    export(out / "unet", denoise, net, inputs, ["out_sample"], axes)
    export_vae(out, m["vae"], parameters=True)
    diffusers.DDIMScheduler(**SD, clip_sample=False, set_alpha_to_one=False, steps_offset=1).save_pretrained(out / "scheduler")
    write_index(out, "StableDiffusionPipeline" if kind == "sd" else "StableDiffusionXLPipeline")


def learned(encoder, rows):
    """Makes ids from the table's length on look up rows."""
    table = encoder.get_input_embeddings()
    table.forward = lambda ids: torch.nn.functional.embedding(ids, torch.cat([table.weight, rows]))


def texts(m, ids):
    if "text_encoder_2" not in m:
        return m["text_encoder"](ids[0]).last_hidden_state, None
    one, two = m["text_encoder"](ids[0], output_hidden_states=True), m["text_encoder_2"](ids[1], output_hidden_states=True)
    return torch.cat([one.hidden_states[-2], two.hidden_states[-2]], -1), two.text_embeds


def follow(path, out):
    data = {n: torch.from_numpy(x) for n, x in np.load(path).items()}
    kind, prediction = path.stem.split("-")
    m = models(kind)
    for x in m.values():
        x.requires_grad_(False)
    noise = diffusers.DDPMScheduler(**SD, num_train_timesteps=1000, prediction_type=prediction)
    encoders = [m[n] for n in ("text_encoder", "text_encoder_2") if n in m]
    rows = [torch.nn.Parameter(data[f"start.rows.{i}"].clone()) for i in range(len(encoders))]
    for e, r in zip(encoders, rows):
        learned(e, r)
    rate, decay = (float(data[n]) for n in ("rate", "weight_decay"))
    opt = torch.optim.AdamW(rows, lr=rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=decay)
    beside, guidance = None, None
    if kind == "inpaint":  # all of the picture is masked, and grey
        with torch.no_grad():
            grey = m["vae"].encode(torch.zeros(1, 3, SIDE, SIDE)).latent_dist.mean * m["vae"].config.scaling_factor
        beside = torch.cat([torch.ones_like(grey[:, :1]), grey], 1)
        guidance = diffusers.StableDiffusionPipeline.get_guidance_scale_embedding(None, torch.tensor([8.5 - 1]), 8)
    losses, found = [], {}
    for step in range(int(data["steps"])):
        get = lambda n: data[f"step.{step:04d}.{n}"]
        x, n, t = get("latents"), get("noise"), get("timesteps")
        target = noise.get_velocity(x, n, t) if prediction == "v_prediction" else n
        tokens, pooled = texts(m, [get(f"ids.{i}") for i in range(len(encoders))])
        added = None
        if pooled is not None:
            added = {"text_embeds": pooled, "time_ids": torch.tensor([[SIDE, SIDE, 0, 0, SIDE, SIDE]] * len(x), dtype=torch.float32)}
        seen, told = noise.add_noise(x, n, t), None
        if beside is not None:
            seen, told = torch.cat([seen, beside.expand(len(x), -1, -1, -1)], 1), guidance.expand(len(x), -1)
        y = m["unet"](seen, t, timestep_cond=told, encoder_hidden_states=tokens, added_cond_kwargs=added).sample
        loss = (torch.nn.functional.mse_loss(y, target, reduction="none").mean((1, 2, 3)) * get("weights")).sum()
        opt.zero_grad()
        loss.backward()
        if step == 0:
            found = {f"first.rows.{i}": r.grad.clone() for i, r in enumerate(rows)}
        opt.step()
        losses.append(loss.item())
    ends = {f"end.rows.{i}": r.detach().contiguous() for i, r in enumerate(rows)}
    print(f"{path.stem}: loss {losses[0]:.4f} to {losses[-1]:.4f}")
    np.savez(f"{out}/{path.name}", losses=np.float32(losses), **{n: v.numpy() for n, v in {**found, **ends}.items()})


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "bundles":
        for kind in ("sd", "xl", "inpaint"):
            bundle(kind, pathlib.Path(sys.argv[2]) / kind)
    else:
        for path in sorted(pathlib.Path(sys.argv[2]).glob("*.npz")):
            follow(path, sys.argv[3])
