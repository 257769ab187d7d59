"""Train the painter's autoencoder: 64x64 pixels <-> 16x16 latents of 4 numbers.

Usage: vae.py WORK MINUTES
Reads WORK/data160; writes WORK/pictures64.npy (premultiplied RGBA) and WORK/vae.pt. One thread.
Both halves are a linear map plus a small convolutional network. The maps start as the four principal components of 4x4
patches, the networks at nothing, so that it is a fair code from the first step. The loss is the absolute error of pixels and
of their differences to the right and below, which keeps edges sharp. At the end the latents are centred and scaled to one.
"""
import os, sys, time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import captions

SIDE, PATCH, LATENTS, BATCH, RATE, NOISE, MEMORY = 64, 4, 4, 16, 1e-3, 0.05, 0.998


class Residual(nn.Module):
    """x + two convolutions, of which the second starts at nothing."""

    def __init__(self, width):
        super().__init__()
        self.first, self.second = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        nothing(self.second)

    def forward(self, x):
        return x + self.second(F.relu(self.first(F.relu(x))))


def nothing(layer):
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class Coder(nn.Module):
    """encode: pixels [B,3,64,64], -1 to 1 -> latents [B,4,16,16]; decode: back."""

    def __init__(self, width=96, fine=32):
        super().__init__()
        inputs = 3 * PATCH**2
        self.shrink, self.grow = nn.Conv2d(inputs, LATENTS, 1), nn.Conv2d(LATENTS, inputs, 1)
        self.encoder = nn.Sequential(nn.Conv2d(inputs, width, 3, padding=1), *[Residual(width) for _ in range(2)], nn.ReLU(), nothing(nn.Conv2d(width, LATENTS, 1)))
        self.decoder = nn.Sequential(nn.Conv2d(LATENTS, width, 3, padding=1), *[Residual(width) for _ in range(4)], nn.ReLU(), nn.Conv2d(width, 4 * fine, 1), nn.PixelShuffle(2),
                                     Residual(fine), nn.ReLU(), nothing(nn.Conv2d(fine, 12, 3, padding=1)), nn.PixelShuffle(2))

    def encode(self, x):
        x = F.pixel_unshuffle(x, PATCH)
        return self.shrink(x) + self.encoder(x)

    def decode(self, z):
        return F.pixel_shuffle(self.grow(z), PATCH) + self.decoder(z)

    @torch.no_grad()
    def start_from(self, x):
        """The linear maps as the pictures' principal components, scaled to one, and their inverse."""
        patches = F.pixel_unshuffle(x, PATCH).transpose(0, 1).flatten(1).T
        mean = patches.mean(0)
        _, s, v = torch.linalg.svd(patches - mean, full_matrices=False)
        spread, v = s[:LATENTS] / len(patches) ** 0.5, v[:LATENTS]
        self.shrink.weight.copy_((v / spread[:, None])[..., None, None])
        self.shrink.bias.copy_(-(v / spread[:, None]) @ mean)
        self.grow.weight.copy_((v * spread[:, None]).T[..., None, None])
        self.grow.bias.copy_(mean)

    @torch.no_grad()
    def centre(self, x):
        """Give the latents of x mean 0 and standard deviation 1, each, without a change to what is decoded."""
        z = self.encode(x)
        mean, spread = z.mean((0, 2, 3)), z.std((0, 2, 3))
        for layer in (self.shrink, self.encoder[-1]):
            layer.weight /= spread[:, None, None, None]
            layer.bias /= spread
        self.shrink.bias -= mean / spread
        self.grow.bias += self.grow.weight[:, :, 0, 0] @ mean
        self.grow.weight *= spread[:, None, None]
        first = self.decoder[0]
        first.bias += (first.weight * mean[:, None, None]).sum((1, 2, 3))
        first.weight *= spread[:, None, None]


def pictures(work):
    """All pictures, small: premultiplied RGBA [n,64,64,4] bytes."""
    path = f"{work}/pictures64.npy"
    if not os.path.exists(path):
        x = np.load(f"{work}/data160/pairs.npz")["x"]
        out = np.empty((len(x), SIDE, SIDE, 4), np.uint8)
        for i in range(0, len(x), 256):
            y = torch.from_numpy(x[i : i + 256]).float().permute(0, 3, 1, 2)
            y = torch.cat([y[:, :3] * y[:, 3:] / 255, y[:, 3:]], 1)
            out[i : i + 256] = F.interpolate(y, (SIDE, SIDE), mode="bilinear", antialias=True).permute(0, 2, 3, 1).round().numpy()
        np.save(path, out)
    return np.load(path, mmap_mode="r")


def on(rgba, ground):
    """Premultiplied bytes [b,64,64,4] over a colour [b,3], 0 to 1 -> pixels [b,3,64,64], -1 to 1."""
    x = torch.from_numpy(np.ascontiguousarray(rgba)).permute(0, 3, 1, 2).float() / 255
    return (x[:, :3] + ground[:, :, None, None] * (1 - x[:, 3:])) * 2 - 1


def draw(small, rows, count):
    """Random pictures, half of them on white, half on any colour."""
    index = rows[torch.randint(len(rows), (count,))].numpy()
    return on(small[index], torch.where(torch.rand(count, 1) < 0.5, torch.ones(count, 3), torch.rand(count, 3)))


def edges(x):
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def main(work, minutes):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    small, rows = pictures(work), torch.tensor(captions.trained(captions.load(work)))
    model = Coder()
    model.start_from(draw(small, rows, 512))
    running = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(MEMORY))
    opt = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=1e-4, betas=(0.9, 0.99))
    print(sum(p.numel() for p in model.parameters()) / 1e6, "M;", len(rows), "pictures", flush=True)
    begin, average, step = time.time(), None, 0
    while (share := (time.time() - begin) / 60 / minutes) < 1:
        step += 1
        for g in opt.param_groups:
            g["lr"] = RATE * min(1, step / 50, 3 * (1 - share)) + 1e-6
        x = draw(small, rows, BATCH)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            z = model.encode(x)
            y = model.decode(z + NOISE * torch.randn_like(z))
        y = y.float()
        loss = F.l1_loss(y, x) + sum(F.l1_loss(a, b) for a, b in zip(edges(y), edges(x)))
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        running.update_parameters(model)
        now = np.array([loss.item(), 10 * np.log10(4 / F.mse_loss(y, x).item())])
        average = now if average is None else 0.98 * average + 0.02 * now
        if step == 1 or step % 200 == 0:
            elapsed = time.time() - begin
            print(f"step {step} {elapsed:.0f}s loss {average[0]:.4f} psnr {average[1]:.2f} latent std {z.float().std().item():.2f} {step * BATCH / elapsed:.0f}/s", flush=True)
    model = running.module.eval()
    model.centre(draw(small, rows, 512))
    torch.save(model.state_dict(), f"{work}/vae.pt")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
