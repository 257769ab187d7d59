"""A step of VPT on ViT-B/16 beside PyTorch: shallow, 10 prompts, batch 8, random weights, the same in both.

Usage: vit.py export DIR | vit.py worker VARIANT DIR | vit.py compare DIR GO_TEST_BINARY STEPS OUT.md
`compare` starts a process for each rival, has them take steps in turn, and writes a table. VARIANT is eager, compile or bf16.
"""
import json
import pathlib
import platform
import statistics
import subprocess
import sys
import time

BATCH, PROMPTS, CLASSES, SCALE, THREADS = 8, 10, 20, 100.0, 2


def config():
    from transformers import CLIPVisionConfig
    return CLIPVisionConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, image_size=224,
                            patch_size=16, projection_dim=512, attn_implementation="sdpa")


def export(out):
    """The model, and a batch: pixels, class features, labels, the prompts' start."""
    import numpy as np
    import torch
    from safetensors.torch import save_file
    from transformers import CLIPVisionModelWithProjection
    torch.manual_seed(0)
    model = CLIPVisionModelWithProjection(config()).eval()
    out = pathlib.Path(out)
    (out / "onnx").mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), out / "weights.pt")
    batch = dict(pixels=torch.randn(BATCH, 3, 224, 224), classes=torch.nn.functional.normalize(torch.randn(CLASSES, 512), dim=-1),
                 prompts=torch.randn(1, PROMPTS, 768) * 0.1)
    batch["onehot"] = torch.nn.functional.one_hot(torch.arange(BATCH) % CLASSES, CLASSES).float()
    save_file(batch, out / "batch.safetensors")
    model.config._attn_implementation = "eager"

    class Wrapped(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, pixel_values):
            return self.model(pixel_values=pixel_values).image_embeds

    torch.onnx.export(Wrapped(), (batch["pixels"],), str(out / "onnx" / "vision_model.onnx"), input_names=["pixel_values"], output_names=["image_embeds"],
                      dynamic_axes={"pixel_values": {0: "batch"}, "image_embeds": {0: "batch"}}, opset_version=17, dynamo=False)
    (out / "config.json").write_text(json.dumps({"model_type": "clip", "projection_dim": 512}))
    (out / "preprocessor_config.json").write_text(json.dumps({
        "image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}, "do_resize": True,
        "do_center_crop": True, "do_normalize": True, "do_rescale": True, "resample": 3, "rescale_factor": 1 / 255,
        "image_mean": [0.5] * 3, "image_std": [0.5] * 3}))


def peak():
    """Peak resident memory of this process in bytes."""
    return next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith("VmHWM"))


def worker(variant, folder):
    """Takes a step for each line of standard input; answers a line of JSON."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import CLIPVisionModelWithProjection
    torch.set_num_threads(THREADS)
    model = CLIPVisionModelWithProjection(config()).eval().requires_grad_(False)
    model.load_state_dict(torch.load(f"{folder}/weights.pt"))
    batch = load_file(f"{folder}/batch.safetensors")
    prompts = torch.nn.Parameter(batch["prompts"])
    v = model.vision_model

    def loss_of(pixels, prompts):
        x = v.embeddings(pixels)
        x = v.pre_layrnorm(torch.cat([x[:, :1], prompts.expand(len(x), -1, -1), x[:, 1:]], 1))
        x = v.encoder(inputs_embeds=x).last_hidden_state[:, 0]
        f = torch.nn.functional.normalize(model.visual_projection(v.post_layernorm(x)), dim=-1)
        logits = SCALE * f @ batch["classes"].T
        return -(batch["onehot"] * logits.log_softmax(-1)).sum(-1).mean()

    step = torch.compile(loss_of) if variant == "compile" else loss_of
    for _ in sys.stdin:
        begin = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=variant == "bf16"):
            loss = step(batch["pixels"], prompts)
        prompts.grad = None
        loss.backward()
        seconds = time.perf_counter() - begin
        save_file({"gradient": prompts.grad.contiguous()}, f"{folder}/gradient-{variant}.safetensors")
        print(json.dumps({"seconds": seconds, "loss": loss.item(), "peak": peak()}), flush=True)


def compare(folder, binary, steps, out):
    import os
    from safetensors.torch import load_file
    folder = str(pathlib.Path(folder).resolve())
    here = pathlib.Path(__file__).resolve()
    environment = dict(os.environ, FORETOKEN_BENCH_VIT=folder)
    go = dict(environment, FORETOKEN_THREADS=str(THREADS))
    rivals = {"foretoken": subprocess.Popen([binary, "-test.run", "^TestViTSteps$", "-test.timeout", "0"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                            env=go, cwd=here.parents[2] / "tuning")}
    for variant in ("eager", "compile", "bf16"):
        rivals[variant] = subprocess.Popen([sys.executable, str(here), "worker", variant, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    seconds, last = {name: [] for name in rivals}, {}
    for i in range(int(steps) + 2):  # two steps warm up
        for name, process in rivals.items():
            process.stdin.write("step\n")
            process.stdin.flush()
            line = process.stdout.readline()
            while line and not line.startswith("{"):
                line = process.stdout.readline()
            if not line:
                print(f"{name} ended", file=sys.stderr)
                continue
            last[name] = json.loads(line)
            if i >= 2:
                seconds[name].append(last[name]["seconds"])
    for process in rivals.values():
        process.stdin.close()
        process.wait()
    want = load_file(f"{folder}/gradient-eager.safetensors")["gradient"]
    median = {name: statistics.median(s) for name, s in seconds.items() if s}
    lines = []
    for name in median:
        g = load_file(f"{folder}/gradient-{name}.safetensors")["gradient"]
        difference = ((g - want).abs().max() / want.abs().max()).item()
        lines.append(f"| {name} | {BATCH / median[name]:.2f} | {median['eager'] / median[name]:.2f} | {last[name]['peak'] / 2**30:.2f} | {difference:.1e} | {last[name]['loss']:.5f} |")
    cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), platform.machine())
    import torch
    text = pathlib.Path(out).read_text() if pathlib.Path(out).exists() else ""
    begin, end = "<!-- vit -->", "<!-- /vit -->"
    table = "\n".join([begin, f"{cpu}, {THREADS} threads each, {steps} steps of each in turn after 2 to warm up, medians; torch {torch.__version__}.", "",
                       "| | images/s | times eager's | peak RSS, GiB | gradient, max difference to eager's | loss |", "|---|---|---|---|---|---|", *lines, end])
    if begin in text:
        text = text[: text.index(begin)] + table + text[text.index(end) + len(end):]
    else:
        text += table + "\n"
    pathlib.Path(out).write_text(text)
    print(table)


if __name__ == "__main__":
    dict(export=export, worker=worker, compare=compare)[sys.argv[1]](*sys.argv[2:])
