"""Exports encoders of the sizes that people use, with random weights, by both of torch's exporters, with PyTorch's gradients beside each.

Usage: real.py export OUT [NAME...]     NAME: a part of the folders' names
       real.py measure WORK FORETOKEN TEST OUT.md [NAME...]
The folders are what the fixtures' test reads (see exporters.py), a folder a tower. Opset 17 is torchscript's export with weights
inline, opset 18 dynamo's with external data, as each does it by default.
`measure` makes one folder after the other in WORK, has the program FORETOKEN inspect it and the test binary TEST of tuning/inspect
differentiate it, deletes it, and writes a table between OUT.md's marks. It is an error when a gradient is not PyTorch's; times are
reported: those of steps are the processor's, on one thread, as other work on the machine makes any other time a matter of luck. Each tower is exported by a process of its own, which gives its memory back.
"""
import json
import os
import pathlib
import platform
import resource
import shutil
import subprocess
import sys
import time

import numpy as np
import torch

import exporters
from exporters import DY, TS, Text, Vision, named, one

BATCH = 2


class RealVision(Vision):
    def __init__(self, model, width, *args, **more):
        super().__init__(model, *args, batch=BATCH, side=224, **more)
        self.width = width


def clip_vision(width, layers, heads, patch, out):
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
    m = CLIPVisionModelWithProjection(CLIPVisionConfig(hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers, num_attention_heads=heads,
                                                       image_size=224, patch_size=patch, projection_dim=out))
    v = m.vision_model if hasattr(m, "vision_model") else m.base_model
    return RealVision(one((m, lambda m, x: m(pixel_values=x).image_embeds)), width, v.embeddings, v.encoder.layers, 1)


def clip_text(width, heads, out):
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection
    m = CLIPTextModelWithProjection(CLIPTextConfig(vocab_size=49408, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=12, num_attention_heads=heads,
                                                   max_position_embeddings=77, projection_dim=out, eos_token_id=49407, bos_token_id=49406, pad_token_id=1))
    ids = exporters.text_ids(49407, 16, 49408, 49406)
    t = m.text_model if hasattr(m, "text_model") else m.base_model
    return Text(named(m, ["input_ids"], lambda m, i: m(input_ids=i).text_embeds), t.embeddings.token_embedding, {"input_ids": ids})


def siglip_vision():
    from transformers import SiglipVisionConfig, SiglipVisionModel
    m = SiglipVisionModel(SiglipVisionConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, image_size=224, patch_size=16))
    v = m.vision_model if hasattr(m, "vision_model") else m
    return RealVision(one((m, lambda m, x: m(pixel_values=x).pooler_output)), 768, v.embeddings, v.encoder.layers, 0, out="pooler_output")


def siglip_text():
    from transformers import SiglipTextConfig, SiglipTextModel
    m = SiglipTextModel(SiglipTextConfig(vocab_size=32000, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, max_position_embeddings=64))
    ids = torch.randint(2, 31000, (3, 64))
    t = m.text_model if hasattr(m, "text_model") else m
    return Text(named(m, ["input_ids"], lambda m, i: m(input_ids=i).pooler_output), t.embeddings.token_embedding, {"input_ids": ids}, out="pooler_output",
                dynamic={"input_ids": {0: "batch"}})


MODELS = {
    "clip_vit_b16_vision": lambda: clip_vision(768, 12, 12, 16, 512),
    "clip_vit_b16_text": lambda: clip_text(512, 8, 512),
    "clip_vit_l14_vision": lambda: clip_vision(1024, 24, 16, 14, 768),
    "clip_vit_l14_text": lambda: clip_text(768, 12, 768),
    "siglip_b16_vision": siglip_vision,
    "siglip_b16_text": siglip_text,
}


def export(case, path, exporter):
    if exporter == TS:
        exporters.export(case, path, TS, 17, static=False)
        return
    names, args = list(case.inputs), tuple(case.inputs.values())
    shapes = tuple({axis: torch.export.Dim.DYNAMIC for axis in case.dynamic[n]} for n in names)
    torch.onnx.export(case.model, args, str(path), input_names=names, output_names=[case.out], opset_version=18, dynamo=True, dynamic_shapes=shapes, external_data=True,
                      verbose=False)


def folders(wanted):
    """The folders' names, and of each the model, exporter and opset."""
    for name in MODELS:
        for exporter, opset in ((TS, 17), (DY, 18)):
            folder = f"{name}_{exporter}_op{opset}"
            if not wanted or any(w in folder for w in wanted):
                yield folder, name, exporter


def make(out, wanted):
    for folder, name, exporter in folders(wanted):
        folder = pathlib.Path(out) / folder
        if (folder / "meta.json").exists():
            continue
        torch.manual_seed(0)
        case = MODELS[name]()
        for p in case.model.parameters():
            p.requires_grad_(False)
        folder.mkdir(parents=True, exist_ok=True)
        inputs, found = case.reference()
        with torch.no_grad():
            export(case, folder / "model.onnx", exporter)
        plain = lambda d: {k: v.detach().numpy() for k, v in d.items()}
        np.savez(folder / "inputs.npz", **plain(case.inputs), **plain(inputs))
        np.savez(folder / "gradients.npz", **plain(found))
        (folder / "meta.json").write_text(json.dumps({"kind": case.kind, "output": case.out, **case.meta()}, indent=1))
        print("made", folder.name, flush=True)


def measured(test, path):
    """What the test binary says of a folder: a line a tower; none where it fails."""
    p = subprocess.run([test, "-test.run", "^TestRealSize$"], env={**os.environ, "FORETOKEN_REAL_SIZE": str(path.resolve()), "FORETOKEN_THREADS": "1"}, capture_output=True, text=True)
    if p.returncode:
        print(path, p.stdout[-2000:], p.stderr[-2000:], sep="\n", flush=True)
        return []
    return [json.loads(l) for l in p.stdout.splitlines() if l.startswith("{")]


def inspected(foretoken, path):
    """How long inspecting takes: of three times the shortest by the clock, and the processor's least."""
    wall, used = [], []
    for _ in range(3):
        start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([foretoken, "model", "inspect", "--json", str(path)], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        wall.append(time.monotonic() - start)
        used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return f"{min(wall):.2f} ({min(used):.2f})"


def costs(s):
    return (f"{s['seconds']:.2f} / {s['measured_seconds']:.2f} ({s['seconds'] / s['measured_seconds']:.2f}) "
            f"| {s['memory_bytes'] / 1e9:.2f} / {s['measured_memory_bytes'] / 1e9:.2f} ({s['memory_bytes'] / s['measured_memory_bytes']:.2f}) |")


def is_far(s):
    """Whether a step's estimated time is further off than the 30 % that it may be."""
    return abs(s["seconds"] / s["measured_seconds"] - 1) > 0.3


def measure(work, foretoken, test, out, wanted):
    rows, failed, far, starter = [], [], [], pathlib.Path(__file__).parents[2] / "starter" / "bundle"
    for tower, r in zip(("image", "text"), measured(test, starter)):
        rows.append(f"| the starter's {tower} tower, batch of 64 | {inspected(foretoken, starter)} | | | | {costs(r['Step'])}")
        far += [f"the starter's {tower} tower"] * is_far(r["Step"])
    for folder, _, _ in folders(wanted):
        path = pathlib.Path(work) / folder
        made = subprocess.run([sys.executable, __file__, "export", work, folder], capture_output=True, text=True)
        if made.returncode:
            sys.exit(f"{folder} is not exported: {made.stderr[-2000:]}")
        time_taken, lines = inspected(foretoken, path / "model.onnx"), measured(test, path)
        shutil.rmtree(path)
        if not lines:
            failed.append(folder)
            continue
        r = lines[0]
        error = lambda kind: max(e for name, e in r["Errors"].items() if name.startswith(kind))
        rows.append(f"| {folder} | {time_taken} | {r['Seconds']:.2f} | {error('out'):.1e} | {error('grad'):.1e} | {costs(r['Step'])}")
        far += [folder] * is_far(r["Step"])
        print(rows[-1], flush=True)
    head = [f"{cpu()}, {os.cpu_count()} cores, load {os.getloadavg()[1]:.1f}; torch {torch.__version__}.", "",
            "| tower, exporter, opset | inspect, s (of a core) | gradient graph, s | output | gradient | a step on one thread, s: estimated / measured (ratio) | memory, GB: estimated / measured (ratio) |",
            "|---|---|---|---|---|---|---|"]
    before, rest = pathlib.Path(out).read_text().split("<!-- real-sizes -->\n")
    after = rest.split("<!-- /real-sizes -->")[1]
    pathlib.Path(out).write_text(before + "<!-- real-sizes -->\n" + "\n".join(head + rows) + "\n<!-- /real-sizes -->" + after)
    if failed:
        sys.exit("not PyTorch's gradient: " + ", ".join(failed))
    if far:
        sys.exit("a step takes over 30 % more or less time than estimated: " + ", ".join(far))


def cpu():
    try:
        return next(l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


if __name__ == "__main__":
    if sys.argv[1] == "export":
        make(sys.argv[2], sys.argv[3:])
    else:
        measure(*sys.argv[2:6], sys.argv[6:])
