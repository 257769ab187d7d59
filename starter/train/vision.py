"""Train the image tower: a frozen ImageNet stem's tokens -> a small CLIP-style ViT -> the teacher's meaning space.

Usage: vision.py WORK STEPS
Reads WORK/tokens*.npy (tokens.py) and WORK/teacher.* (teacher.py); writes WORK/vision.pt. One thread.

Three things are asked of the tower. A drawing's embedding is told apart by its concept's name among all names, and by its
category. What the stem knows of photographs is kept without a photograph: `imagined` writes an ImageNet class into
tokens along that class's own classifier weights, and the tower must name it. And the stem's pooled features must stay
readable from the embedding. What is written is the running mean of the weights, which names unseen concepts better than
the last ones.
"""
import glob, json, math, sys, time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import teacher
import tokens

CHANNELS, GRID, WIDTH, BLOCKS, HEADS, DIMS = 1280, 25, 256, 4, 4, 128
BATCH, RATE, IMAGINED, SHARPNESS = 256, 1.5e-3, 64, 30
KEPT, WHOLE = 8, 0.15  # stem tokens kept in training, and the last share of it that sees whole pictures
MEMORY = 0.998  # of the weights' running mean


class Block(nn.Module):
    """CLIP's pre-norm block with quick GELU."""

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def attend(self, x):
        split = lambda y: y.view(x.shape[0], -1, HEADS, WIDTH // HEADS).transpose(1, 2)
        q, k, v = split(self.q(x)), split(self.k(x)), split(self.v(x))
        scores = (q * (WIDTH // HEADS) ** -0.5) @ k.transpose(2, 3)
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(x.shape[0], -1, WIDTH))

    def forward(self, x):
        x = x + self.attend(self.norm1(x))
        h = self.up(self.norm2(x))
        return x + self.down(h * torch.sigmoid(1.702 * h))


class Tower(nn.Module):
    """Stem tokens [B,25,1280] -> embedding [B,128]. Class token, positions, pre-norm, blocks, post-norm, projection."""

    def __init__(self):
        super().__init__()
        self.input = nn.Linear(CHANNELS, WIDTH)
        self.cls = nn.Parameter(torch.randn(WIDTH) * 0.02)
        self.position = nn.Parameter(torch.randn(GRID + 1, WIDTH) * 0.02)
        self.pre, self.post = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.project = nn.Linear(WIDTH, DIMS, bias=False)

    def start_from(self, mean, white):
        """Let the input see the stem's principal directions at equal strength, rather than a random mixture of them."""
        self.input.weight.data.copy_(white.T)
        self.input.bias.data.copy_(-white.T @ mean)

    def insert(self, t, kept):
        """The tensor [B,26,256] where prompts enter: after the positions, before the pre-norm. In training only the
        positions kept [B,n] of the stem's go in."""
        if kept is None:
            return torch.cat([self.cls.expand(t.shape[0], 1, -1), self.input(t)], 1) + self.position
        t = t.gather(1, kept[..., None].expand(-1, -1, CHANNELS))
        return torch.cat([(self.cls + self.position[0]).expand(t.shape[0], 1, -1), self.input(t) + self.position[1:][kept]], 1)

    def forward(self, t, prompts=None, kept=None):
        """prompts [depth,K,256]: K tokens after the class token, overwritten at each later block up to depth."""
        return self.project(self.hidden(t, prompts, kept)[1])

    def hidden(self, t, prompts=None, kept=None):
        """The last block's output [B,N,256], and the normalised class token [B,256]."""
        x, k = self.insert(t, kept), 0
        if prompts is not None:
            k = prompts.shape[1]
            x = torch.cat([x[:, :1], prompts[0].expand(t.shape[0], -1, -1), x[:, 1:]], 1)
        x = self.pre(x)
        for i, block in enumerate(self.blocks):
            if prompts is not None and 0 < i < len(prompts):
                x = torch.cat([x[:, :1], prompts[i].expand(t.shape[0], -1, -1), x[:, 1 + k :]], 1)
            x = block(x)
        return x, self.post(x[:, 0])


class Pictures:
    """Cached views of the training pictures, and the names they should be called by."""

    def __init__(self, work):
        meta, lines = json.load(open(f"{work}/data160/pairs.json")), json.load(open(f"{work}/teacher.json"))
        Z = torch.tensor(np.load(f"{work}/teacher.npz")["Z"])
        vector = dict(zip(lines["texts"], lines["target"]))
        rows, concepts = meta["rows"], meta["concepts"]
        self.rows = np.load(f"{work}/tokens1_rows.npy")
        self.views = [(np.load(f"{work}/tokens0.npy", mmap_mode="r"), self.rows)]
        for path in sorted(glob.glob(f"{work}/tokens[1-9]_rows.npy")):
            self.views.append((np.load(path.replace("_rows", ""), mmap_mode="r"), np.arange(len(self.rows))))
        called = [concepts[rows[i]["hex"]]["label"] if rows[i]["hex"] else rows[i]["text"] for i in self.rows]
        imagenet = teacher.imagenet_names()
        names = sorted(set(called) | set(imagenet))
        at = {n: i for i, n in enumerate(names)}
        subs = sorted({c["sub"] for c in concepts.values()})
        self.names, self.categories = Z[[vector[n] for n in names]], Z[[vector[teacher.words(s)] for s in subs]]
        self.soft = (SHARPNESS * self.names @ self.names.T).softmax(1)
        self.name = torch.tensor([at[n] for n in called])
        self.imagenet = torch.tensor([at[n] for n in imagenet])
        self.category = torch.tensor([subs.index(concepts[rows[i]["hex"]]["sub"]) if rows[i]["hex"] else -1 for i in self.rows])

    def draw(self, count):
        """Random pictures, each in a random view: indices [count] and tokens [count,25,1280]."""
        index, view = torch.randint(len(self.rows), (count,)), np.random.randint(len(self.views), size=count)
        out = np.empty((count, GRID, CHANNELS), "f4")
        for v, (cache, at) in enumerate(self.views):
            out[view == v] = cache[at[index.numpy()[view == v]]]
        return index, torch.from_numpy(out)


def imagined(t, classifier, classes):
    """Drawings' tokens t with ImageNet classes written into them: each position moves along its class's weights, by a
    random share that lifts the pooled class logit by 6 to 16. (A classifier's weights point where its class's features lie.)"""
    direction = classifier[classes] - classifier.mean(0)
    direction = direction / direction.square().sum(1, keepdim=True)
    where = torch.rand(len(t), GRID, 1) ** 2
    where = where / where.mean(1, keepdim=True)
    strength = 6 + 10 * torch.rand(len(t), 1, 1)
    return (torch.rand(len(t), 1, 1) * t + strength * where * direction[:, None]).clamp(0, 6)


def whitening(t, count):
    """Mean [1280] and map [1280,count] that whiten pooled tokens."""
    f = t.mean(1)
    mean = f.mean(0)
    _, s, v = torch.linalg.svd(f - mean, full_matrices=False)
    return mean, v[:count].T / s[:count] * len(f) ** 0.5


def optimiser(parameters, log_scale):
    decayed, plain = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
    return torch.optim.AdamW([dict(params=decayed, weight_decay=0.1), dict(params=[*plain, log_scale], weight_decay=0)], lr=RATE, betas=(0.9, 0.98))


def save(mean, scale, work):
    torch.save(dict(tower=mean.module.state_dict(), scale=scale.item()), f"{work}/vision.pt")


def main(work, steps):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    np.random.seed(0)
    pictures, tower = Pictures(work), Tower()
    classifier = tokens.stem()._fc.weight.detach()
    sample = pictures.draw(2000)[1]
    tower.start_from(*whitening(sample, WIDTH))
    mean, white = whitening(sample, 128)
    reader, log_scale = nn.Linear(DIMS, 128), nn.Parameter(torch.tensor(2.7))
    parameters = [*tower.parameters(), *reader.parameters()]
    opt = optimiser(parameters, log_scale)
    running = torch.optim.swa_utils.AveragedModel(tower, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(MEMORY))
    print(sum(p.numel() for p in tower.parameters()) / 1e6, "M;", len(pictures.rows), "pictures,", len(pictures.views), "views,", len(pictures.names), "names", flush=True)
    begin, average = time.time(), None
    for step in range(1, steps + 1):
        for g in opt.param_groups:
            g["lr"] = RATE * min(1, step / 200) * 0.5 * (1 + math.cos(math.pi * step / steps)) + 1e-6
        index, t = pictures.draw(BATCH)
        wanted, category = pictures.soft[pictures.name[index]], pictures.category[index]
        share, other = 0.5 * torch.rand(BATCH, 1), torch.randperm(BATCH)  # mix pairs of pictures
        t = (1 - share[..., None]) * t + share[..., None] * t[other]
        wanted = (1 - share) * wanted + share * wanted[other]
        classes = torch.randint(1000, (IMAGINED,))
        t[:IMAGINED] = imagined(t[:IMAGINED], classifier, classes)
        wanted[:IMAGINED], category[:IMAGINED] = pictures.soft[pictures.imagenet[classes]], -1
        features = F.normalize((t.mean(1) - mean) @ white, dim=1)
        whole = step > (1 - WHOLE) * steps
        kept = None if whole else torch.rand(BATCH, GRID).argsort(1)[:, :KEPT]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            e = tower(t, kept=kept)
        e = F.normalize(e.float(), dim=-1)
        scale = log_scale.exp().clamp(max=50)
        scores = scale * e @ pictures.names.T
        naming = -(wanted * scores.log_softmax(1)).sum(1)
        sorting = F.cross_entropy(scale * e @ pictures.categories.T, category, ignore_index=-1)
        reading = 1 - F.cosine_similarity(reader(e), features).mean()
        loss = naming.mean() + 0.3 * sorting + reading
        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        opt.step()
        running.update_parameters(tower)
        hit = (scores.argmax(1) == wanted.argmax(1)).float()
        now = np.array([naming.mean().item(), hit[IMAGINED:].mean().item(), hit[:IMAGINED].mean().item(), reading.item()])
        average = now if average is None else 0.98 * average + 0.02 * now
        if step % 50 == 0:
            elapsed = time.time() - begin
            print(f"step {step} {elapsed:.0f}s loss {average[0]:.3f} drawings {average[1]:.3f} imagined {average[2]:.3f} reading {average[3]:.3f} scale {scale.item():.1f} {step * BATCH / elapsed:.0f}/s", flush=True)
    save(running, scale, work)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
