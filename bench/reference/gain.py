"""What whole runs gain in PyTorch, beside what foretoken's gained: the demo's sets, the starter's recipes, three seeds.

Usage: gain.py BUNDLE IN LOG OUT.md
IN holds SET.RECIPE.SEED.safetensors, and LOG the lines `GAIN SET RECIPE SEED ZERO TUNED`, both by TestGain. See `make report`.
"""
import pathlib
import sys

import torch
from safetensors import safe_open

from towers import ImageTower, TextTower
from trajectory import layer, run


def accuracy(data, features, classes):
    f, w = (torch.nn.functional.normalize(x, dim=-1) for x in (features, classes))
    return ((f @ w.T).argmax(1) == data["test.labels"]).float().mean().item()


@torch.no_grad()
def scores(data, params, images, texts):
    """Zero-shot and tuned accuracy on the test images."""
    order = lambda kind: [params[n] for n in sorted(params) if n.startswith(kind + ".")]
    context, visual = order("context"), order("visual")
    couple = sorted((n for n in params if n.startswith("couple") and n.endswith("weight")), key=layer)
    if couple:
        visual = [torch.nn.functional.linear(context[layer(n)], params[n], params[n.replace("weight", "bias")]) for n in couple]
    raw = data["test.features"]
    embed = lambda prompts: torch.cat([images(part, prompts) for part in raw.split(100)]) if raw.ndim == 3 else raw
    classes = texts(data["ids"], context) if context else data["classes"]
    return accuracy(data, embed([]), data["zero"]), accuracy(data, embed(visual), classes)


def main(bundle, source, log, out):
    torch.set_num_threads(2)
    images, texts = ImageTower(f"{bundle}/onnx/vision_model.onnx"), TextTower(f"{bundle}/onnx/text_model.onnx")
    ours = {tuple(l.split()[1:4]): tuple(map(float, l.split()[4:6])) for l in open(log) if l.startswith("GAIN ")}
    gains = {}
    for (name, recipe, seed), (zero, tuned) in sorted(ours.items()):
        with safe_open(pathlib.Path(source) / f"{name}.{recipe}.{seed}.safetensors", "pt") as f:
            data = {n: f.get_tensor(n) for n in f.keys()}
        _, params = run(data, images, texts)
        reference = scores(data, params, images, texts)
        print(name, recipe, seed, f"here {zero:.4f} {tuned:.4f}, PyTorch {reference[0]:.4f} {reference[1]:.4f}", flush=True)
        gains.setdefault((name, recipe), []).append((zero, tuned, *reference))
    mean = lambda rows, i: sum(r[i] for r in rows) / len(rows)
    lines = ["# Gains beside PyTorch", "", "Accuracy on the demo's test images, in percent, means of three seeds: the starter's recipes, and PyTorch's repetition of the same",
             "runs (`bench/reference/gain.py`: the same start and batches, torch's autograd and optimiser). Written by `make report`.", "",
             "| set | recipe | zero-shot | tuned, by seed | gain | PyTorch: zero-shot | tuned, by seed | gain | ratio of the gains |", "|---|---|---|---|---|---|---|---|---|"]
    for (name, recipe), rows in gains.items():
        ours_gain, theirs = (100 * (mean(rows, i + 1) - mean(rows, i)) for i in (0, 2))
        each = lambda i: " ".join(f"{100 * r[i]:.1f}" for r in rows)
        ratio = f"{ours_gain / theirs:.2f}" if theirs > 0 else "-"
        lines.append(f"| {name} | {recipe} | {100 * mean(rows, 0):.1f} | {each(1)} | {ours_gain:.1f} | {100 * mean(rows, 2):.1f} | {each(3)} | {theirs:.1f} | {ratio} |")
    pathlib.Path(out).write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main(*sys.argv[1:])
