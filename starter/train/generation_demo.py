"""Make the demo's data for what captions and draws: three zips, from drawings that neither model has seen.

Usage: generation_demo.py WORK OUT
captions.zip: OpenMoji (CC BY-SA 4.0), a style that no model was trained on, with captions in German, where the captioner speaks
English unless it is told otherwise: {train,test}/metadata.jsonl with file_name and text, as Hugging Face's imagefolder has it.
concept.zip: five pictures of one drawing of a concept that was held out, on white, at five sizes and places. On coloured grounds the
learned word takes the grounds with it. style.zip: OpenMoji again, with English
texts that say what is drawn but not how. The same packages give the same bytes.
"""
import json, random, sys

import numpy as np
from PIL import Image

import captions
from demo import OPENMOJI_LICENSE, png, write_zip

TRAIN, TEST, STYLED, SIDE, COLOURS = 64, 100, 16, 96, 32
CONCEPT, VENDOR = "orange heart", "flat"  # held out; Fluent Emoji, flat
PLACES = [(160, 0, 0), (148, 6, 6), (152, 2, 6), (148, 10, 4), (156, 2, 2)]  # side of 160, left, top

CONCEPT_LICENSE = """Fluent Emoji, https://github.com/microsoft/fluentui-emoji (one drawing, at five sizes and places)

The MIT License (MIT)

Copyright (c) Microsoft Corporation.

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation
files (the "Software"), to deal in the Software without restriction, including without limitation the rights to use, copy,
modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the
Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE,
ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""
LICENSE = OPENMOJI_LICENSE.replace("112 x 112", f"{SIDE} x {SIDE}").replace("sorted into folders by Unicode's\nemoji subgroups", "with texts from Unicode's\nnames")


def on_white(rgba, side, left, top):
    """The drawing, `side` pixels wide, on a white square of its own size."""
    picture = Image.fromarray(rgba)
    out = Image.new("RGBA", picture.size, "white")
    out.alpha_composite(picture.resize((side, side), Image.LANCZOS), (left, top))
    return out.convert("RGB").resize((SIDE, SIDE), Image.LANCZOS).quantize(COLOURS, dither=Image.Dither.NONE)


def openmoji(meta, rng):
    """Rows of OpenMoji in random order: concepts that were trained on in other styles, each kind of thing but flags in turn."""
    groups = {}
    for i, r in enumerate(meta["rows"]):
        c = meta["concepts"].get(r["hex"])
        if r["style"] == "openmoji" and not c["held"] and c["group"] != "flags" and len(c["label"].split()) <= 3:
            groups.setdefault(c["group"], []).append(i)
    for g in groups.values():
        rng.shuffle(g)
    return [g[k] for k in range(max(map(len, groups.values()))) for g in groups.values() if k < len(g)]


def with_texts(files, split, rows, pictures, text):
    lines = []
    for k, row in enumerate(rows):
        files[f"{split}/{k:03d}.png"] = png(on_white(pictures[row], 160, 0, 0))
        lines.append(json.dumps(dict(file_name=f"{k:03d}.png", text=text(row)), ensure_ascii=False))
    files[f"{split}/metadata.jsonl"] = ("\n".join(lines) + "\n").encode()


def main(work, out):
    meta = captions.load(work)
    pictures, rng = np.load(f"{work}/data160/pairs.npz")["x"], random.Random(0)
    concept = lambda row: meta["concepts"][meta["rows"][row]["hex"]]
    rows = openmoji(meta, rng)
    files, german = {"LICENSE": LICENSE.encode()}, lambda row: "eine Zeichnung: " + concept(row)["tr"]["de"][0]
    with_texts(files, "train", rows[:TRAIN], pictures, german)
    with_texts(files, "test", rows[TRAIN : TRAIN + TEST], pictures, german)
    write_zip(f"{out}/captions.zip", files)

    files = {"LICENSE": LICENSE.encode()}
    with_texts(files, "train", rows[TRAIN + TEST :][:STYLED], pictures, lambda row: "a drawing of " + captions.thing(concept(row)["label"]))
    write_zip(f"{out}/style.zip", files)

    row = next(i for i, r in enumerate(meta["rows"]) if r["style"] == VENDOR and r["hex"] and concept(i)["label"] == CONCEPT)
    if not concept(row)["held"]:
        raise SystemExit(f"{CONCEPT} was trained on")
    write_zip(f"{out}/concept.zip", {"LICENSE": CONCEPT_LICENSE.encode(), **{f"{k}.png": png(on_white(pictures[row], *place)) for k, place in enumerate(PLACES)}})


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
