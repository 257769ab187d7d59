"""One denoising step of a Stable-Diffusion-1-shaped network beside PyTorch: guidance, so two rows; random weights, the same in both.

Usage: denoise.py export DIR | denoise.py worker DIR | denoise.py compare DIR GO_TEST_BINARY STEPS OUT.md
`compare` starts a process for each rival, has them take steps in turn, and writes a table. The network has Stable Diffusion 1's blocks
at 128, 256, 512, 512 channels instead of 320, 640, 1280, 1280, and latents of 32x32: 138 million weights.
"""
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

import numpy as np
import torch

import diffusion as tiny

LATENT, WIDTH, WINDOW, THREADS = 32, 768, 77, int(os.environ.get("THREADS", "2"))


def network():
    import diffusers
    torch.manual_seed(0)
    return diffusers.UNet2DConditionModel(sample_size=LATENT, block_out_channels=(128, 256, 512, 512), cross_attention_dim=WIDTH, attention_head_dim=8).eval().requires_grad_(False)


def inputs():
    g = torch.Generator().manual_seed(1)
    return torch.randn(2, 4, LATENT, LATENT, generator=g), torch.tensor([500.0]), torch.randn(2, WINDOW, WIDTH, generator=g)


def export(out):
    """The network alone, and what it is given."""
    out = pathlib.Path(out)
    net = network()
    x, t, text = inputs()
    tiny.export(out / "unet", lambda m, x, t, text: m(x, t, encoder_hidden_states=text).sample, net, {"sample": x, "timestep": t, "encoder_hidden_states": text}, ["out_sample"],
                {"sample": {0: "batch", 2: "height", 3: "width"}, "encoder_hidden_states": {0: "batch", 1: "sequence"}}, outside=True)
    np.savez(out / "inputs.npz", sample=x.numpy(), text=text.numpy())


def peak():
    return next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith("VmHWM"))


def worker(folder):
    """Takes a step for each line of standard input; answers a line of JSON."""
    torch.set_num_threads(THREADS)
    net = network()
    x, t, text = inputs()
    for _ in sys.stdin:
        begin = time.perf_counter()
        with torch.no_grad():
            y = net(x, t, encoder_hidden_states=text).sample
        seconds = time.perf_counter() - begin
        np.savez(f"{folder}/output-eager.npz", output=y.numpy())
        print(json.dumps({"seconds": seconds, "peak": peak()}), flush=True)


def compare(folder, binary, steps, out):
    folder, here = str(pathlib.Path(folder).resolve()), pathlib.Path(__file__).resolve()
    go = dict(os.environ, FORETOKEN_BENCH_DENOISE=folder, FORETOKEN_THREADS=str(THREADS))
    start = lambda args, **how: subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **how)
    rivals = {"foretoken": start([binary, "-test.run", "^TestDenoisingSteps$", "-test.timeout", "0"], env=go, cwd=here.parents[2] / "generation" / "diffusion"),
              "eager": start([sys.executable, str(here), "worker", folder])}
    seconds, last = {name: [] for name in rivals}, {}
    for i in range(int(steps) + 2):  # two steps warm up
        for name, process in rivals.items():
            process.stdin.write("step\n")
            process.stdin.flush()
            line = process.stdout.readline()
            while line and not line.startswith("{"):
                line = process.stdout.readline()
            last[name] = json.loads(line)
            if i >= 2:
                seconds[name].append(last[name]["seconds"])
    for process in rivals.values():
        process.stdin.close()
        process.wait()
    want = np.load(f"{folder}/output-eager.npz")["output"]
    median = {name: statistics.median(s) for name, s in seconds.items()}
    lines = []
    for name in median:
        y = np.load(f"{folder}/output-{name}.npz")["output"]
        lines.append(f"| {name} | {median[name]:.2f} | {median['eager'] / median[name]:.2f} | {last[name]['peak'] / 2**30:.2f} | {abs(y - want).max() / abs(want).max():.1e} |")
    cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), platform.machine())
    begin, end = "<!-- denoise -->", "<!-- /denoise -->"
    threads = f"{THREADS} thread" + "s" * (THREADS > 1)
    table = "\n".join([begin, f"{cpu}, load {os.getloadavg()[0]:.1f}, {threads} each, {steps} steps of each in turn after 2 to warm up, medians; torch {torch.__version__}.", "",
                       "| | s a step | times eager's | peak RSS, GiB | output, max difference to eager's |", "|---|---|---|---|---|", *lines, end])
    text = pathlib.Path(out).read_text()
    pathlib.Path(out).write_text(text[: text.index(begin)] + table + text[text.index(end) + len(end):])
    print(table)


if __name__ == "__main__":
    dict(export=export, worker=worker, compare=compare)[sys.argv[1]](*sys.argv[2:])
