"""Tokens a second of a captioner's bundle beside transformers eager on a model of the same sizes, in turns, and writes the table into docs/benchmarks.md.

Usage: captions.py BUNDLE BINARY OUT [ROUNDS]     BINARY: go test -c of generation/caption; captions.py worker BUNDLE
Both encode the images and make 39 tokens each, with a cache and with no end before. What the weights are changes no speed; eager's are random. The
starter's encoder is a transformer behind an EfficientNet-Lite0 (starter/train/export.py), and eager's is then built of the same parts. Seconds are the processor's time of each process, on one thread: other work on the machine changes it little.
"""
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

THREADS = 1
STEPS = [{"rows": 1, "beams": 1}, {"rows": 8, "beams": 1}, {"rows": 1, "beams": 4}]
TOKENS = 39


def behind_stem(encoder, config):
    """A CLIP image tower whose patches are what an EfficientNet-Lite0 makes of them: pixels [B,3,160,160] to tokens [B,26,256]. Which numbers the class
    token and the positions are is of no account here."""
    import torch
    from efficientnet_lite_pytorch import EfficientNet
    stem, patches = EfficientNet.from_name("efficientnet-lite0").eval(), torch.nn.Linear(1280, config["hidden_size"])
    blocks = next(m for m in encoder.modules() if type(m).__name__ == "CLIPEncoder")
    norm = next(m for name, m in encoder.named_modules() if name.endswith("pre_layrnorm"))

    def encode(pixels):
        x = patches(stem.extract_features(pixels).flatten(2).transpose(1, 2))
        return blocks(inputs_embeds=norm(torch.cat([x[:, :1], x], 1) + x[:1, :1])).last_hidden_state
    return encode


def convolutions(bundle):
    import onnx
    return sum(n.op_type == "Conv" for n in onnx.load(pathlib.Path(bundle) / "encoder_model.onnx", load_external_data=False).graph.node)


def worker(bundle):
    import torch
    import transformers as t
    from transformers.modeling_outputs import BaseModelOutput
    torch.set_num_threads(THREADS)
    config = json.loads((pathlib.Path(bundle) / "config.json").read_text())
    kinds = {"clip_vision_model": (t.CLIPVisionConfig, t.CLIPVisionModel), "vit": (t.ViTConfig, t.ViTModel)}
    encoder, decoder = dict(config["encoder"]), dict(config["decoder"])
    of, kind = kinds[encoder.pop("model_type")]
    decoder.pop("model_type")
    model = t.VisionEncoderDecoderModel(encoder=kind(of(**encoder)), decoder=t.GPT2LMHeadModel(t.GPT2Config(**decoder))).eval()
    side = encoder["image_size"]
    start = config["decoder_start_token_id"]
    encode = behind_stem(model.encoder, encoder) if convolutions(bundle) > 1 else lambda pixels: model.encoder(pixel_values=pixels)[0]
    for line in sys.stdin:
        step = json.loads(line)
        pixels = torch.randn(step["rows"], 3, side, side)
        begin = time.process_time()
        with torch.inference_mode():
            ids = model.generate(encoder_outputs=BaseModelOutput(encode(pixels)), decoder_start_token_id=start, pad_token_id=0, eos_token_id=None, max_new_tokens=TOKENS, num_beams=step["beams"])
        took = time.process_time() - begin
        assert ids.shape[1] == TOKENS + 1
        print(json.dumps({"seconds": took}), flush=True)


def compare(bundle, binary, out, rounds="7"):
    here = pathlib.Path(__file__).resolve()
    bundle, binary = str(pathlib.Path(bundle).resolve()), str(pathlib.Path(binary).resolve())
    go = dict(os.environ, FORETOKEN_BENCH_CAPTIONER=bundle, FORETOKEN_THREADS=str(THREADS))
    torch_environment = dict(os.environ, OMP_NUM_THREADS=str(THREADS))
    rivals = {"foretoken": subprocess.Popen([binary, "-test.run", "^TestCaptionSteps$", "-test.timeout", "0"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=go, cwd=here.parents[2] / "generation" / "caption"),
              "eager": subprocess.Popen([sys.executable, "-W", "ignore", str(here), "worker", bundle], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=torch_environment)}
    seconds = {}
    for i in range(int(rounds) + 1):  # one warms up
        for at, step in enumerate(STEPS):
            for name, process in rivals.items():
                process.stdin.write(json.dumps(step) + "\n")
                process.stdin.flush()
                line = process.stdout.readline()
                while line and not line.startswith("{"):
                    line = process.stdout.readline()
                if not line:
                    raise SystemExit(f"{name} ended")
                if i:
                    seconds.setdefault((at, name), []).append(json.loads(line)["seconds"])
    for process in rivals.values():
        process.stdin.close()
        process.wait()
    lines = []
    for at, step in enumerate(STEPS):
        speed = {name: step["rows"] * TOKENS / statistics.median(seconds[at, name]) for name in rivals}
        ratios = sorted(b / a for a, b in zip(seconds[at, "foretoken"], seconds[at, "eager"]))
        lines.append(f"| {step['rows']} | {step['beams']} | {speed['foretoken']:.0f} | {speed['eager']:.0f} | {statistics.median(ratios):.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f}) |")
    import torch
    import transformers
    cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), platform.machine())
    text = pathlib.Path(out).read_text()
    begin, end = "<!-- captions -->", "<!-- /captions -->"
    table = "\n".join([begin, f"{cpu}, seconds of the processor's time, one thread each, load {os.getloadavg()[0]:.0f}, {rounds} rounds of each in turn after one to warm up, medians; torch {torch.__version__}, transformers {transformers.__version__}.", "",
                       "| images | beams | foretoken, tokens/s | eager, tokens/s | ratio, round by round |", "|---|---|---|---|---|", *lines, end])
    if begin not in text:
        text += "\n## Tokens of captions, beside transformers\n\nThe starter's captioner (`bench/run.sh`): the encoder once, then 39 tokens an image with a cache of keys and values, none of them an end.\n\n" + begin + end + "\n"
    text = text[: text.index(begin)] + table + text[text.index(end) + len(end):]
    pathlib.Path(out).write_text(text)
    print(table)


if __name__ == "__main__":
    worker(sys.argv[2]) if sys.argv[1] == "worker" else compare(*sys.argv[1:])
