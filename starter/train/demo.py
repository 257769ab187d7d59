"""Make the two data sets of the demo, as zips of class folders, and three single pictures that lie in neither.

Usage: demo.py WORK OUT
fashion.zip: Fashion-MNIST (MIT), 28x28 grey, inverted so that the garment lies on white, 16 training and 100 test pictures a class.
openmoji.zip: OpenMoji (CC BY-SA 4.0), a style the starter was never trained on, 112x112, the categories of the few-shot
task `openmoji`: 16 training pictures a class, the rest for testing.
Both hold {train,test}/<class>/<number>.png and a LICENSE. The same packages give the same bytes.
"""
import gzip, io, json, os, random, sys, zipfile

import numpy as np
from PIL import Image


FASHION = "/usr/share/datasets/fashion-mnist"
GARMENTS = "t-shirt trousers pullover dress coat sandal shirt sneaker bag ankle_boot".split()
SHOTS, TESTS, SIDE, COLOURS = 16, 100, 112, 32
EPOCH = (1980, 1, 1, 0, 0, 0)  # the zip format's zero: no clock in the bytes

FASHION_LICENSE = """Fashion-MNIST, https://github.com/zalandoresearch/fashion-mnist (a selection, inverted: dark on white)

The MIT License (MIT)

Copyright (c) 2017 Zalando SE, https://tech.zalando.com

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
OPENMOJI_LICENSE = """All emojis designed by OpenMoji, the open-source emoji and icon project, https://openmoji.org
License: CC BY-SA 4.0, https://creativecommons.org/licenses/by-sa/4.0/

Changes: a selection, drawn at 112 x 112 pixels on white with a palette of 32 colours, sorted into folders by Unicode's
emoji subgroups. These pictures are under CC BY-SA 4.0 as well.
"""


def png(picture):
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True)
    return out.getvalue()


def fashion(part):
    """Pictures [n,28,28], dark on white, and labels [n] of the part `train` or `t10k`."""
    read = lambda name, offset: np.frombuffer(gzip.open(f"{FASHION}/{part}-{name}-ubyte.gz").read(), np.uint8, offset=offset)
    return 255 - read("images-idx3", 16).reshape(-1, 28, 28), read("labels-idx1", 8)


def fashion_files():
    """Zip member -> bytes, and the next test pictures of two classes as samples."""
    files, samples, rng = {"LICENSE": FASHION_LICENSE.encode()}, {}, random.Random(0)
    for split, part, count in (("train", "train", SHOTS), ("test", "t10k", TESTS)):
        pictures, labels = fashion(part)
        for c, name in enumerate(GARMENTS):
            rows = [int(i) for i in np.flatnonzero(labels == c)]
            rng.shuffle(rows)
            for k, row in enumerate(sorted(rows[:count])):
                files[f"{split}/{name}/{k:03d}.png"] = png(Image.fromarray(pictures[row]))
            if split == "test" and name in ("ankle_boot", "bag"):
                samples[f"fashion_{name}.png"] = png(Image.fromarray(pictures[rows[count]]))
    return files, samples


def openmoji_classes(meta):
    """category -> rows of the few-shot task `openmoji`: subgroups with at least 32 drawings, no flags or letters."""
    classes = {}
    for i, r in enumerate(meta["rows"]):
        if r["style"] == "openmoji":
            classes.setdefault(meta["concepts"][r["hex"]]["sub"], []).append(i)
    kept = sorted(s for s, rows in classes.items() if len(rows) >= 32 and "flag" not in s and "alphanum" not in s)
    return {s: classes[s] for s in kept[:20]}


def on_white(rgba):
    picture = Image.fromarray(rgba)
    white = Image.new("RGBA", picture.size, "white")
    white.alpha_composite(picture)
    return white.convert("RGB").resize((SIDE, SIDE), Image.LANCZOS).quantize(COLOURS, dither=Image.Dither.NONE)


def openmoji_files(work):
    meta = json.load(open(f"{work}/data160/pairs.json"))
    pictures = np.load(f"{work}/data160/pairs.npz")["x"]
    files, samples, rng = {"LICENSE": OPENMOJI_LICENSE.encode()}, {}, random.Random(0)
    for name, rows in openmoji_classes(meta).items():
        rng.shuffle(rows)
        folder = name.replace("-", "_")
        if name == "animal-mammal":
            samples[f"openmoji_{folder}.png"] = png(on_white(pictures[rows.pop()]))
        for k, row in enumerate(rows):
            member = f"train/{folder}/{k:03d}.png" if k < SHOTS else f"test/{folder}/{k - SHOTS:03d}.png"
            files[member] = png(on_white(pictures[row]))
    return files, samples


def write_zip(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as z:
        for member in sorted(files):
            z.writestr(zipfile.ZipInfo(member, EPOCH), files[member])
    print(path, len(files), "files", os.path.getsize(path), "bytes")


def main(work, out):
    os.makedirs(f"{out}/samples", exist_ok=True)
    for name, (files, samples) in (("fashion", fashion_files()), ("openmoji", openmoji_files(work))):
        write_zip(f"{out}/{name}.zip", files)
        for sample, content in samples.items():
            with open(f"{out}/samples/{sample}", "wb") as f:
                f.write(content)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
