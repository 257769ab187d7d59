"""Train the image tower: frozen stem tokens -> a small CLIP-shaped ViT -> the meaning space. Works on cached tokens.

Usage: vision.py WORK MINUTES
Writes WORK/vision.pt. One thread. Three things are asked of the tower at once:
  names       the picture's concept among all names trained on, targets softened by the names' own similarity
  photographs what the stem itself sees: its ImageNet classes, as the mean of their names' vectors (ConSE), which
              reaches the tower through one token of its own; alone when the patches are dropped
  features    the pooled stem features stay readable from the class token (a throw-away linear head)
"""
import glob, json, math, sys, time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

import teacher
import tokens

WIDTH, LAYERS, HEADS, DIMS, PATCHES = 256, 4, 4, 128, 25
BATCH, RATE = 256, 1e-3


class Block(nn.Module):
    """CLIP's pre-norm block with quick GELU."""

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        b, n, _ = x.shape
        heads = lambda t: t.view(b, n, HEADS, WIDTH // HEADS).transpose(1, 2)
        h = self.norm1(x)
        scores = heads(self.q(h)) @ heads(self.k(h)).transpose(2, 3) * (WIDTH // HEADS) ** -0.5
        x = x + self.out((scores.softmax(-1) @ heads(self.v(h))).transpose(1, 2).reshape(b, n, WIDTH))
        h = self.up(self.norm2(x))
        return x + self.down(h * torch.sigmoid(1.702 * h))


class Tower(nn.Module):
    """tokens [B,25,1280] of the stem -> [B,128]. The sequence is: class token, 25 patches, what the stem classifies."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Linear(1280, WIDTH)
        self.seen = nn.Linear(DIMS, WIDTH)
        self.pooled = nn.Linear(1280, WIDTH)
        self.cls = nn.Parameter(torch.randn(1, 1, WIDTH) * 0.02)
        self.position = nn.Parameter(torch.randn(1, PATCHES + 2, WIDTH) * 0.02)
        self.pre, self.post = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.project = nn.Linear(WIDTH, DIMS, bias=False)
        # Frozen: the stem's classifier, and its classes' names in the meaning space.
        self.register_buffer("classifier", torch.zeros(1280, 1000))
        self.register_buffer("bias", torch.zeros(1000))
        self.register_buffer("names", torch.zeros(1000, DIMS))

    def conse(self, mean):
        """The names' vectors averaged by the stem's own belief, sharpened in place of a top ten; not normalised."""
        return (1.5 * (mean @ self.classifier + self.bias)).softmax(-1) @ self.names

    def tokens(self, stem, keep=None):
        mean = stem.mean(1)
        patches = self.patch(stem)
        if keep is not None:
            patches = patches * keep
        extra = self.seen(self.conse(mean) * 4) + self.pooled(mean)
        return torch.cat([self.cls.expand(len(stem), -1, -1), patches, extra[:, None]], 1) + self.position

    def forward(self, stem, keep=None, prompts=None, features=False):
        x = self.tokens(stem, keep)
        k = 0 if prompts is None else prompts.shape[1]
        if k:
            x = torch.cat([x[:, :1], prompts[0].expand(len(x), -1, -1), x[:, 1:]], 1)
        x = self.pre(x)
        for i, block in enumerate(self.blocks):
            if k and 0 < i < len(prompts):
                x = torch.cat([x[:, :1], prompts[i].expand(len(x), -1, -1), x[:, 1 + k :]], 1)
            x = block(x)
        x = self.post(x[:, 0])
        return (self.project(x), x) if features else self.project(x)


def with_frozen(tower, work):
    """Fill in the stem's classifier and the class names' vectors."""
    z = np.load(f"{work}/teacher.npz")
    names = (teacher.embed(teacher.imagenet_names()) - z["mu"]) @ z["W"]
    fc = tokens.stem()._fc
    tower.classifier.copy_(fc.weight.data.t())
    tower.bias.copy_(fc.bias.data)
    tower.names.copy_(F.normalize(torch.tensor(names), dim=-1))
    return tower


def labels(work, rows):
    """Per picture: its concept's index, its subgroup's (or -1); and the names' vectors of both."""
    meta = json.load(open(f"{work}/data160/pairs.json"))
    t = json.load(open(f"{work}/teacher.json"))
    Z, at = torch.tensor(np.load(f"{work}/teacher.npz")["Z"]), dict(zip(t["texts"], t["target"]))
    concepts, pictures = meta["concepts"], [meta["rows"][i] for i in rows]
    name = lambda r: concepts[r["hex"]]["label"] if r["hex"] else r["text"]
    names = sorted({name(r) for r in pictures})
    subs = sorted({concepts[r["hex"]]["sub"] for r in pictures if r["hex"]})
    cid = torch.tensor([names.index(name(r)) for r in pictures])
    sid = torch.tensor([subs.index(concepts[r["hex"]]["sub"]) if r["hex"] else -1 for r in pictures])
    return cid, sid, Z[[at[n] for n in names]], Z[[at[teacher.words(s)] for s in subs]]


def main(work, minutes):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = np.load(f"{work}/tokens1_rows.npy")
    views = [torch.from_numpy(np.load(f)) for f in sorted(glob.glob(f"{work}/tokens[1-9].npy")) if np.load(f, mmap_mode="r").shape[0] == len(rows)]
    views.append(torch.from_numpy(np.load(f"{work}/tokens0.npy", mmap_mode="r")[rows]))
    cid, sid, A, S = labels(work, rows)
    soft = F.softmax(30 * (A @ A.T), 1)
    tower = with_frozen(Tower(), work)
    decode, scale = nn.Linear(WIDTH, 1280), nn.Parameter(torch.tensor(2.7))
    trained = list(tower.parameters()) + list(decode.parameters())
    groups = [dict(params=[p for p in trained if p.ndim > 1], weight_decay=0.1), dict(params=[p for p in trained if p.ndim <= 1] + [scale], weight_decay=0)]
    opt = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.98))
    begin, step, mean = time.time(), 0, None
    print(len(views), "views of", len(rows), "pictures;", sum(p.numel() for p in tower.parameters()) / 1e6, "M trained", flush=True)
    while (elapsed := time.time() - begin) < minutes * 60:
        for g in opt.param_groups:
            g["lr"] = RATE * min(1, (step + 1) / 200) * 0.5 * (1 + math.cos(math.pi * elapsed / minutes / 60)) + 1e-6
        k = torch.randint(len(rows), (BATCH,))
        which = torch.randint(len(views), (BATCH,))
        x = torch.stack([views[v][i] for v, i in zip(which.tolist(), k.tolist())]).float()
        other, lam = torch.randperm(BATCH), torch.rand(BATCH, 1, 1) * 0.3
        x = (1 - lam) * x + lam * x[other]
        blind = torch.rand(BATCH, 1, 1) < 0.15
        keep = (torch.rand(BATCH, PATCHES, 1) > 0.1) & ~blind
        with torch.autocast("cpu", dtype=torch.bfloat16):
            e, h = tower(x, keep.float(), features=True)
        e, h, s = F.normalize(e.float(), dim=-1), h.float(), scale.exp().clamp(max=50)
        logits, lam = s * e @ A.T, lam[:, 0]
        target = (1 - lam) * soft[cid[k]] + lam * soft[cid[k[other]]]
        sees = (~blind)[:, 0].float()
        named = -((target * logits.log_softmax(1)).sum(1, keepdim=True) * sees).sum() / sees.sum()
        grouped = F.cross_entropy(s * e @ S.T, torch.where(blind[:, 0, 0], -1, sid[k]), ignore_index=-1)
        with torch.no_grad():
            pooled = x.mean(1)
            belief = F.normalize(tower.conse(pooled), dim=-1)
        photo = 1 - (e * belief).sum(1, keepdim=True)
        photo = (photo * (1 - sees)).sum() / (1 - sees).sum().clamp(min=1) + 0.15 * photo.mean()
        kept = F.mse_loss(decode(h), pooled) / pooled.var()
        loss = named + 0.3 * grouped + photo + 0.5 * kept
        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        opt.step()
        step += 1
        right = ((logits.argmax(1) == cid[k]).float() * sees[:, 0]).sum() / sees.sum()
        now = np.array([named.item(), right.item(), photo.item(), kept.item()])
        mean = now if mean is None else 0.98 * mean + 0.02 * now
        if step % 100 == 0:
            print(f"step {step} {elapsed:.0f}s names {mean[0]:.3f} right {mean[1]:.3f} photo {mean[2]:.3f} kept {mean[3]:.3f} scale {s.item():.1f} {step * BATCH / elapsed:.0f}/s", flush=True)
        if step % 500 == 0:
            torch.save(dict(tower=tower.state_dict(), scale=s.item()), f"{work}/vision.pt")
    torch.save(dict(tower=tower.state_dict(), scale=s.item()), f"{work}/vision.pt")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
