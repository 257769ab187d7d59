"""Writes golden files of decoding and preprocessing, by Pillow and transformers' CLIPImageProcessor.

Usage: golden.py BUNDLE        (needs pillow, numpy, transformers; any bundle's preprocessor_config.json)
Pictures are made here, by formula, so they are nobody's. golden.json.gz holds for each case the processor's settings and its
output, de-normalised and rounded to levels of 0..255, every 29th number; decoded.json.gz the decoded RGB of every file.
"""
import base64, gzip, io, json, os, sys

import numpy as np
from PIL import Image
from transformers import CLIPImageProcessor

HERE = os.path.dirname(os.path.abspath(__file__))


def picture(w, h, seed):
    """Gradients, stripes and noise: smooth parts, sharp edges and grain. They keep away from 0 and 255: Pillow 13 resizes the columns of
    some tall pictures first, and where values overshoot and are cut off, the order of the passes shows."""
    y, x = np.mgrid[0:h, 0:w]
    r = np.random.default_rng(seed)
    a = np.stack([60 + 140 * x / max(1, w - 1), 127 + 50 * np.sin(x / 3.0 + y / 5.0), 90 + 80 * ((x // 7 + y // 11) % 2)], -1)
    return Image.fromarray(np.clip(a + r.normal(0, 6, a.shape), 0, 255).astype(np.uint8))


def smooth(w, h):
    """Slow gradients, whose colours survive chroma at half the resolution."""
    y, x = np.mgrid[0:h, 0:w]
    return Image.fromarray(np.stack([255 * x / w, 255 * y / h, 255 - 255 * x / w], -1).astype(np.uint8))


def encoded(img, fmt, **kw):
    out = io.BytesIO()
    img.save(out, fmt, **kw)
    return base64.b64encode(out.getvalue()).decode()


def files():
    """Name -> file and what Pillow makes of it."""
    base, out = picture(23, 17, 1), {}
    add = lambda name, data: out.__setitem__(name, data)
    for o in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = o
        add(f"orientation {o}", encoded(base, "JPEG", quality=95, subsampling=0, exif=exif))
    alpha = base.convert("RGBA")
    alpha.putalpha(Image.fromarray((np.mgrid[0:17, 0:23][1] * 11).astype(np.uint8)))
    add("alpha", encoded(alpha, "PNG"))
    add("palette", encoded(base.quantize(32), "PNG"))
    add("palette with transparency", encoded(base.quantize(32), "PNG", transparency=3))
    add("grey", encoded(base.convert("L"), "PNG"))
    add("grey and alpha", encoded(base.convert("LA"), "PNG"))
    add("one bit", encoded(base.convert("1"), "PNG"))
    add("gif", encoded(base.quantize(16), "GIF"))
    add("bmp", encoded(base, "BMP"))
    add("webp, lossless", encoded(base, "WEBP", lossless=True))
    add("webp, lossy", encoded(smooth(64, 48), "WEBP", quality=90))
    add("jpeg, 4:2:0", encoded(smooth(64, 48), "JPEG", quality=90))
    add("jpeg, grey", encoded(base.convert("L"), "JPEG", quality=95))
    return out


def decode(data):
    from PIL import ImageOps
    return ImageOps.exif_transpose(Image.open(io.BytesIO(base64.b64decode(data)))).convert("RGB")


def main(bundle):
    decoded = {}
    for name, data in files().items():
        img = decode(data)
        decoded[name] = dict(file=data, width=img.width, height=img.height, rgb=base64.b64encode(img.tobytes()).decode())
    write("decoded.json.gz", decoded)
    own = json.load(open(f"{bundle}/preprocessor_config.json"))
    clip = dict(image_processor_type="CLIPImageProcessor", do_resize=True, do_center_crop=True, do_rescale=True, do_normalize=True, resample=3, rescale_factor=1 / 255,
                image_mean=[0.48145466, 0.4578275, 0.40821073], image_std=[0.26862954, 0.26130258, 0.27577711])
    settings = {
        "starter": own,
        "clip 224": dict(clip, size={"shortest_edge": 224}, crop_size={"height": 224, "width": 224}),
        "squashed": dict(clip, size={"height": 96, "width": 96}, do_center_crop=False),
        "crop larger than the picture": dict(clip, size={"shortest_edge": 40}, crop_size={"height": 64, "width": 64}),
        "bilinear": dict(clip, size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}, resample=2),
    }
    cases = []
    for name, config in settings.items():
        kind = {k: v for k, v in config.items() if k not in ("image_processor_type", "processor_class")}
        p = CLIPImageProcessor(**kind)
        for i, (w, h) in enumerate([(150, 100), (97, 251), (160, 160), (31, 45), (200, 40)]):
            img = picture(w, h, i)
            x = np.asarray(p(img, return_tensors="np")["pixel_values"][0], dtype=np.float64)
            mean, std = (np.array(config[k])[:, None, None] for k in ("image_mean", "image_std"))
            levels = ((x * std + mean) / config.get("rescale_factor", 1 / 255)).ravel()
            cases.append(dict(name=name, config=config, width=w, height=h, file=encoded(img, "PNG"), shape=x.shape, levels=[round(float(v)) for v in levels[::29]]))
    write("golden.json.gz", cases)


def write(name, v):
    with gzip.GzipFile(os.path.join(HERE, name), "wb", 9, mtime=0) as f:
        f.write(json.dumps(v).encode())


if __name__ == "__main__":
    main(sys.argv[1])
