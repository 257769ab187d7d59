"""Measure the starter: zero-shot on what was held out, and few-shot prompts against a linear probe.

Usage: evaluate.py WORK BUNDLE OUT.json [SEEDS [TASKS]]
Reads the bundle's weights and the clean view of the pictures in WORK/tokens0.npy; figures are percent. TASKS is a comma list.
OpenMoji, stamps and Fashion-MNIST were never trained on; `novel` concepts were never trained on in any style. Starts, steps and
rates of the few-shot methods are an earlier trial's, that its figures can be laid beside these.
"""
import json, math, random, re, sys

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

import demo
import teacher
import text
import tokens
import vision

TEMPLATE, SHOTS = "a picture of {}", (1, 4, 16)
STAMP_FOLDERS = "animals clothes food household plants seasonal symbols town vehicles".split()
STAMP_NAMES = "animals,clothing,food,household objects,plants and flowers,seasonal holidays,symbols,buildings in a town,vehicles".split(",")


def weights(path, prefix):
    """A tower's state dict, from the ONNX file that export.py made of it. The exporter names each node after its module,
    keeps the names of biases and norms, and writes a linear layer's weight transposed, as a constant of its own."""
    graph = onnx.load(path).graph
    held = {w.name.removesuffix("_fp16"): torch.from_numpy(onnx.numpy_helper.to_array(w).astype(np.float32)) for w in graph.initializer}
    found = {name.removeprefix(prefix): w for name, w in held.items() if name.startswith(prefix)}
    for node in graph.node:
        module, _, op = node.name.strip("/").replace("/", ".").rpartition(".")
        if op == "MatMul" and node.input[1] in held:
            found[module.removeprefix(prefix) + ".weight"] = held[node.input[1]].T
    return found


class Starter:
    """Both towers of a bundle, with the places where prompts enter."""

    def __init__(self, bundle):
        self.tower, self.words = vision.Tower(), text.build()
        for module, file, prefix in ((self.tower, "vision_model", "tower."), (self.words, "text_model", "model.")):
            module.load_state_dict(weights(f"{bundle}/onnx/{file}.onnx", prefix))
            module.eval().requires_grad_(False)
        self.scale = float(re.search(r"logit_scale: (.+)", open(f"{bundle}/foretoken.yaml").read())[1])
        self.tok = Tokenizer.from_file(f"{bundle}/tokenizer.json")

    def texts(self, lines, context=None):
        """Unit vectors [n,128]; context [M,256] or [n,M,256] goes between the start token and the words."""
        ids = text.pad(text.encode(self.tok, lines))
        if context is None:
            return F.normalize(self.words(input_ids=ids).text_embeds, dim=-1)
        m = context.shape[-2]
        ids = torch.cat([ids[:, :1], ids[:, :1].expand(-1, m), ids[:, 1:]], 1)[:, : text.CONTEXT]
        place = lambda module, inputs, out: torch.cat([out[:, :1], context.expand(len(ids), -1, -1), out[:, 1 + m :]], 1)
        hook = self.words.text_model.embeddings.token_embedding.register_forward_hook(place)
        try:
            return F.normalize(self.words(input_ids=ids).text_embeds, dim=-1)
        finally:
            hook.remove()

    def images(self, t, prompts=None):
        return F.normalize(torch.cat([self.tower(part.float(), prompts) for part in t.split(256)]), dim=-1)


class Pictures:
    """Every picture's row, and its clean stem tokens."""

    def __init__(self, work):
        meta = json.load(open(f"{work}/data160/pairs.json"))
        self.rows, self.concepts = [dict(r, i=i) for i, r in enumerate(meta["rows"])], meta["concepts"]
        self.cache, self.work = np.load(f"{work}/tokens0.npy", mmap_mode="r"), work

    def tokens(self, rows):
        return torch.from_numpy(self.cache[np.array([r["i"] for r in rows])])

    def where(self, keep):
        """Rows that carry a concept and pass keep(row, concept)."""
        return [r for r in self.rows if r["hex"] and keep(r, self.concepts[r["hex"]])]

    def of(self, r):
        return self.concepts[r["hex"]]


def hits(images, names, wanted):
    """Accuracy at 1, 5 and 10 when images [n,128] are ranked against names [c,128]."""
    scores = images @ names.T
    rank = (scores > scores.gather(1, wanted[:, None])).sum(1)
    return [round(100 * (rank < k).float().mean().item(), 1) for k in (1, 5, 10)]


@torch.no_grad()
def zero_shot(s, p):
    """The rows of the zero-shot table: title -> images, ways, hits @1 @5 @10."""
    table = {}

    def put(title, rows, names, label, images):
        at = {n: k for k, n in enumerate(names)}
        table[title] = dict(images=len(rows), ways=len(names), at=hits(images, s.texts(names), torch.tensor([at[label(r)] for r in rows])))
        print(title, table[title], flush=True)

    subs = sorted({teacher.words(c["sub"]) for c in p.concepts.values()})
    for title, keep in (
        ("OpenMoji (unseen style), seen concepts", lambda r, c: r["style"] == "openmoji" and not c["held"]),
        ("novel concepts, training styles", lambda r, c: not r["test"] and c["held"]),
        ("novel concepts, unseen style", lambda r, c: r["style"] == "openmoji" and c["held"]),
    ):
        rows = p.where(keep)
        images = s.images(p.tokens(rows))
        put(title, rows, sorted({p.of(r)["label"] for r in rows}), lambda r: p.of(r)["label"], images)
        put(title + ": subgroup", rows, subs, lambda r: teacher.words(p.of(r)["sub"]), images)
    rows = [r for r in p.rows if r["style"] == "stamp"]
    images = s.images(p.tokens(rows))
    put("stamps: own caption", rows, sorted({r["text"] for r in rows}), lambda r: r["text"], images)
    inside = torch.tensor([r["cat"] in STAMP_FOLDERS for r in rows])
    rows = [r for r in rows if r["cat"] in STAMP_FOLDERS]
    put("stamps: folder", rows, STAMP_NAMES, lambda r: STAMP_NAMES[STAMP_FOLDERS.index(r["cat"])], images[inside])
    return table


def halves(rows, of, count, cap):
    """Per class half of the rows, at most cap, for testing; the rest as the pool of shots."""
    rng, pool, test = random.Random(0), [], []
    for c in range(count):
        mine = [r for r in rows if of(r) == c]
        rng.shuffle(mine)
        k = min(cap, len(mine) // 2)
        test += [(r, c) for r in mine[:k]]
        pool += [(r, c) for r in mine[k:]]
    return pool, test


def packed(p, names, pool, test):
    split = lambda part: (p.tokens([r for r, _ in part]), torch.tensor([c for _, c in part]))
    return names, *split(pool), *split(test)


def stamps(p):
    rows = [r for r in p.rows if r["style"] == "stamp" and r["cat"] in STAMP_FOLDERS]
    return packed(p, STAMP_NAMES, *halves(rows, lambda r: STAMP_FOLDERS.index(r["cat"]), len(STAMP_NAMES), 60))


def openmoji(p):
    subs = list(demo.openmoji_classes(dict(rows=p.rows, concepts=p.concepts)))
    rows = [r for r in p.rows if r["style"] == "openmoji" and p.of(r)["sub"] in subs]
    return packed(p, [teacher.words(x) for x in subs], *halves(rows, lambda r: subs.index(p.of(r)["sub"]), len(subs), 16))


def novel(p):
    """60 concepts never trained on: shots from training styles, tests in the two unseen styles."""
    groups, pool, test = ("animals-nature", "food-drink", "objects", "travel-places"), {}, {}
    for r in p.where(lambda r, c: c["held"] and c["group"] in groups):
        (test if r["test"] else pool).setdefault(r["hex"], []).append(r)
    kept = sorted(h for h in pool if len(pool[h]) >= 8 and len(test.get(h, ())) == 2)[:60]
    flat = lambda part: [(r, c) for c, h in enumerate(kept) for r in part[h]]
    return packed(p, [p.concepts[h]["label"] for h in kept], flat(pool), flat(test))


@torch.no_grad()
def fashion(p):
    """Fashion-MNIST through the stem: 48 pictures a class to draw shots from, 50 a class for testing."""
    net, out = tokens.stem(), []
    for part, count in (("train", 48), ("t10k", 50)):
        pictures, labels = demo.fashion(part)
        rows = np.concatenate([np.flatnonzero(labels == c)[:count] for c in range(10)])
        x = torch.from_numpy(pictures[rows]).float()[:, None] / 255
        x = F.interpolate(x, (tokens.SIDE, tokens.SIDE), mode="bicubic", antialias=True).clamp(0, 1).expand(-1, 3, -1, -1)
        x = (x - tokens.MEAN) / tokens.STD
        out += [torch.cat([net.extract_features(b).flatten(2).transpose(1, 2) for b in x.split(32)]), torch.from_numpy(labels[rows].astype(np.int64))]
    return [g.replace("_", " ") for g in demo.GARMENTS], *out


TASKS = dict(openmoji=openmoji, stamps=stamps, novel=novel, fashion=fashion)


def fit(parameter, steps, rate, warmup, count, loss):
    """AdamW with steps of warm-up and a cosine over batches of at most 32."""
    opt = torch.optim.AdamW([parameter], lr=rate, weight_decay=0.01)
    for step in range(steps):
        for g in opt.param_groups:
            g["lr"] = rate * min(1, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * step / steps))
        value = loss(torch.randperm(count)[:32])
        opt.zero_grad()
        value.backward()
        opt.step()


def probe(x, y, tests, count):
    """Logistic regression on the embeddings by L-BFGS; class of each test."""
    w, b = torch.zeros(count, x.shape[1], requires_grad=True), torch.zeros(count, requires_grad=True)
    opt = torch.optim.LBFGS([w, b], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        opt.zero_grad()
        loss = F.cross_entropy(10 * x @ w.T + b, y) + 1e-3 * w.square().sum()
        loss.backward()
        return loss

    opt.step(closure)
    return (10 * tests @ w.T + b).argmax(1)


def coop(s, names, x, y, tests, *shape):
    """Context [4,256], or [C,4,256], learned before the class names from N(0, 0.02); image features stay."""
    context = (0.02 * torch.randn(*shape, 4, text.WIDTH)).requires_grad_()
    fit(context, 100, 0.01, 1, len(y), lambda b: F.cross_entropy(s.scale * x[b] @ s.texts(names, context).T, y[b]))
    with torch.no_grad():
        return (tests @ s.texts(names, context).T).argmax(1)


def vpt(s, names, t, y, tests, depth, count=10):
    """Visual prompts learned against the frozen class names."""
    prompts, target = torch.empty(depth, count, vision.WIDTH).uniform_(-0.1, 0.1).requires_grad_(), s.texts(names)
    fit(prompts, 150, 0.02, 10, len(y), lambda b: F.cross_entropy(s.scale * s.images(t[b], prompts) @ target.T, y[b]))
    with torch.no_grad():
        return (s.images(tests, prompts) @ target.T).argmax(1)


def few_shot(s, p, task, seeds):
    """shots -> method -> [mean, standard deviation] over the seeds, and the zero-shot figures of the same test."""
    names, pool, labels, tests, wanted = TASKS[task](p)
    score = lambda found: 100 * (found == wanted).float().mean().item()
    with torch.no_grad():
        pooled, tested = s.images(pool), s.images(tests)
        result = dict(seeds=seeds, classes=len(names), tests=len(wanted), zero_shot=round(score((tested @ s.texts(names).T).argmax(1)), 1),
                      template=round(score((tested @ s.texts([TEMPLATE.format(n) for n in names]).T).argmax(1)), 1), shots={})
    print(task, result, flush=True)
    for shots in SHOTS:
        found = {}
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            rows = torch.from_numpy(np.concatenate([rng.permutation(np.flatnonzero(labels.numpy() == c))[:shots] for c in range(len(names))]))
            x, t, y = pooled[rows], pool[rows], labels[rows]
            for method, run in dict(
                probe=lambda: probe(x, y, tested, len(names)),
                coop4=lambda: coop(s, names, x, y, tested),
                class_specific=lambda: coop(s, names, x, y, tested, len(names)),
                vpt_shallow=lambda: vpt(s, names, t, y, tests, 1),
                vpt_deep=lambda: vpt(s, names, t, y, tests, vision.BLOCKS),
            ).items():
                torch.manual_seed(seed)
                found.setdefault(method, []).append(score(run()))
        result["shots"][shots] = {m: [round(float(np.mean(v)), 1), round(float(np.std(v)), 1)] for m, v in found.items()}
        print(task, shots, result["shots"][shots], flush=True)
    return result


def main(work, bundle, out, seeds=8, tasks=",".join(TASKS)):
    torch.set_num_threads(1)
    s, p = Starter(bundle), Pictures(work)
    figures = dict(zero_shot=zero_shot(s, p), few_shot={})
    for task in filter(None, tasks.split(",")):
        figures["few_shot"][task] = few_shot(s, p, task, seeds)
        with open(out, "w") as f:
            json.dump(figures, f, indent=1)
    with open(out, "w") as f:
        json.dump(figures, f, indent=1)


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:5]), *sys.argv[5:6])
