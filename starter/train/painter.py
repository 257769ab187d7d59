"""Train the painter's UNet: noise and the frozen text tower's states -> latents of a 64x64 drawing.

Usage: painter.py WORK BUNDLE MINUTES [PAINTER]
Reads WORK/data160, WORK/vae.pt and BUNDLE's text tower; writes WORK/painter.pt, the running mean of the weights, every few
minutes, and a sheet of samples beside it. With the bundle PAINTER it goes on from its UNet, at a lower rate and with other texts, and
its autoencoder, which stays, becomes WORK/vae.pt. One thread. The target is v (Salimans & Ho 2022, arXiv:2202.00512) under Stable
Diffusion's noise schedule; a tenth of the captions are empty, for classifier-free guidance.
"""
import os, random, sys, time

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from PIL import Image
from tokenizers import Tokenizer

import captions
import half
import vae

VIEWS, CONTEXT, WIDTH = 3, 32, 256  # asked for in so many ways; the text tower's window and width
BATCH, EMPTY, MEMORY, GUIDANCE, STEPS = 32, 0.1, 0.999, 4, 20
FIRST = dict(rate=1e-3, fall=2.5, texts=0)  # the rate stays until 1 / fall of the time is left, then falls to nothing; texts: their seed
THEN = dict(rate=8e-4, fall=1.5, texts=1)
BFLOAT16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()  # elsewhere it is emulated, many times slower
SCHEDULE = dict(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
                clip_sample=False, set_alpha_to_one=False, steps_offset=1, timestep_spacing="leading")
SHEET = ["a flat drawing of a red heart", "a 3d drawing of a grinning face", "a simple drawing of the flag of France", "a shaded drawing of a banana",
         "a monochrome drawing of a cat face", "a flat drawing of a house on a blue background", "a smooth drawing of a tree", "a high contrast drawing of a star",
         "a 3d drawing of an automobile", "a flat drawing of sunglasses on a yellow background", "a simple drawing of a pizza", "a bright drawing of a fish",
         "a flat drawing of a rose", "an old drawing of a dog", "a 3d drawing of a green apple", "a shaded drawing of a cup on a pink background"]


def build():
    unet = UNet2DConditionModel(sample_size=16, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=[96, 144],
                                down_block_types=["DownBlock2D", "CrossAttnDownBlock2D"], up_block_types=["CrossAttnUpBlock2D", "UpBlock2D"],
                                cross_attention_dim=WIDTH, attention_head_dim=4, norm_num_groups=16)
    unet.set_attn_processor(AttnProcessor())
    return unet


class Words:
    """Texts -> the frozen text tower's last hidden states [b,32,256], padded as CLIP's tokenizer pads."""

    def __init__(self, bundle):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(f"{bundle}/onnx/text_model.onnx", options, providers=["CPUExecutionProvider"])
        self.tokenizer = Tokenizer.from_file(f"{bundle}/tokenizer.json")
        self.tokenizer.enable_truncation(CONTEXT)
        self.tokenizer.enable_padding(length=CONTEXT, pad_id=self.tokenizer.token_to_id("<|endoftext|>"), pad_token="<|endoftext|>")

    def __call__(self, texts):
        ids = np.array([e.ids for e in self.tokenizer.encode_batch(texts)], np.int64)
        return self.session.run(["last_hidden_state"], {"input_ids": ids})[0]


def cache(work, words, seed):
    """Latents [n,4,16,16] and text states [n,32,256] of every trained picture in VIEWS ways, as half floats."""
    paths = f"{work}/painter_latents{seed}.npy", f"{work}/painter_states{seed}.npy"
    if not os.path.exists(paths[0]):
        meta, small = captions.load(work), vae.pictures(work)
        rng = random.Random(seed)
        asked = [(row, *captions.describe(meta, row, rng)) for _ in range(VIEWS) for row in captions.trained(meta)]
        coder = vae.Coder().eval()
        coder.load_state_dict(torch.load(f"{work}/vae.pt"))
        latents = np.lib.format.open_memmap(paths[0] + ".part", "w+", "f2", (len(asked), 4, 16, 16))
        states = np.lib.format.open_memmap(paths[1], "w+", "f2", (len(asked), CONTEXT, WIDTH))
        for i in range(0, len(asked), 64):
            rows, texts, colours = zip(*asked[i : i + 64])
            behind = torch.tensor([captions.ground(c) if c else [1.0, 1, 1] for c in colours])
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, BFLOAT16):
                z = coder.encode(vae.on(small[list(rows)], behind)).float()
            latents[i : i + 64], states[i : i + 64] = z.numpy(), words(list(texts))
        os.rename(paths[0] + ".part", paths[0])
    return np.load(paths[0]), np.load(paths[1], mmap_mode="r")


@torch.no_grad()
def sheet(unet, work, words, path):
    """Draw SHEET from fixed noise with DDIM and guidance."""
    coder = vae.Coder().eval()
    coder.load_state_dict(torch.load(f"{work}/vae.pt"))
    scheduler = DDIMScheduler(**SCHEDULE)
    scheduler.set_timesteps(STEPS)
    x = torch.randn(len(SHEET), 4, 16, 16, generator=torch.Generator().manual_seed(0))
    states = torch.from_numpy(words([""] * len(SHEET) + SHEET))
    for t in scheduler.timesteps:
        empty, asked = unet(torch.cat([x, x]), t, states).sample.chunk(2)
        x = scheduler.step(empty + GUIDANCE * (asked - empty), t, x).prev_sample
    y = ((coder.decode(x).clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    Image.fromarray(y.reshape(2, 8, 64, 64, 3).transpose(0, 2, 1, 3, 4).reshape(128, 512, 3)).save(path)


def main(work, bundle, minutes, start=None):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    phase, unet, words = THEN if start else FIRST, build(), Words(bundle)
    if start:
        unet.load_state_dict(half.read(f"{start}/unet/model.onnx"))
        torch.save({**half.read(f"{start}/vae_encoder/model.onnx"), **half.read(f"{start}/vae_decoder/model.onnx")}, f"{work}/vae.pt")
    latents, states = cache(work, words, phase["texts"])
    nothing = torch.from_numpy(words([""]))
    compiled = torch.compile(unet)
    compiled(torch.zeros(BATCH, 4, 16, 16), torch.zeros(BATCH, dtype=torch.int64), nothing.repeat(BATCH, 1, 1)).sample.sum().backward()
    memory = lambda mean, new, n: mean + (1 - min(MEMORY, (1 + n) / (10 + n))) * (new - mean)
    running = torch.optim.swa_utils.AveragedModel(unet, avg_fn=memory)
    opt = torch.optim.AdamW(unet.parameters(), lr=phase["rate"], weight_decay=1e-2, betas=(0.9, 0.99), fused=True)
    kept = DDIMScheduler(**SCHEDULE).alphas_cumprod
    print(sum(p.numel() for p in unet.parameters()) / 1e6, "M;", len(latents), "pictures and texts", flush=True)
    begin, average, step, saved = time.time(), None, 0, 0
    while (share := (time.time() - begin) / 60 / minutes) < 1:
        step += 1
        for g in opt.param_groups:
            g["lr"] = phase["rate"] * min(1, step / 200, phase["fall"] * (1 - share)) + 1e-6
        index = np.random.randint(len(latents), size=BATCH)
        x, s = torch.from_numpy(latents[index]).float(), torch.from_numpy(states[index]).float()
        s = torch.where(torch.rand(BATCH, 1, 1) < EMPTY, nothing, s)
        t, noise = ((torch.arange(BATCH) + torch.rand(BATCH)) * 1000 / BATCH).long(), torch.randn_like(x)  # timesteps from all of the schedule
        signal, spread = kept[t].sqrt().view(-1, 1, 1, 1), (1 - kept[t]).sqrt().view(-1, 1, 1, 1)
        with torch.autocast("cpu", torch.bfloat16, BFLOAT16):
            v = compiled(signal * x + spread * noise, t, s).sample
        loss = F.mse_loss(v.float(), signal * noise - spread * x)
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        opt.step()
        running.update_parameters(unet)
        average = loss.item() if average is None else 0.99 * average + 0.01 * loss.item()
        elapsed = time.time() - begin
        if step % 100 == 0:
            print(f"step {step} {elapsed:.0f}s loss {average:.4f} {step * BATCH / elapsed:.0f}/s", flush=True)
        if elapsed - saved > 600:
            saved = elapsed
            torch.save(running.module.state_dict(), f"{work}/painter.pt")
            sheet(running.module, work, words, f"{work}/painter_{step}.png")
    torch.save(running.module.state_dict(), f"{work}/painter.pt")
    sheet(running.module, work, words, f"{work}/painter.png")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), *sys.argv[4:])
