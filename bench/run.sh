#!/usr/bin/env bash
# Benchmarks of the hot paths, then a step of tuning, one of denoising, and captions beside PyTorch; writes docs/benchmarks.md.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${FORETOKEN_REFERENCE_PYTHON:-.cache/reference/bin/python}
if [ ! -x "$python" ]; then
	python3 -m venv .cache/reference
	.cache/reference/bin/pip install -q -r bench/reference/requirements.txt
fi
work=.cache/bench
mkdir -p "$work"
test -f "$work/vit/onnx/vision_model.onnx" || "$python" bench/reference/vit.py export "$work/vit"
go test -c -o "$work/tuning.test" ./tuning
"$python" bench/reference/vit.py compare "$work/vit" "$PWD/$work/tuning.test" "${STEPS:-10}" docs/benchmarks.md
test -f "$work/denoise/unet/model.onnx" || "$python" bench/reference/denoise.py export "$work/denoise"
go test -c -o "$work/diffusion.test" ./generation/diffusion
"$python" bench/reference/denoise.py compare "$work/denoise" "$PWD/$work/diffusion.test" "${STEPS:-10}" docs/benchmarks.md
go test -c -o "$work/caption.test" ./generation/caption
"$python" bench/reference/captions.py starter/captioner "$work/caption.test" docs/benchmarks.md "${ROUNDS:-7}"
go test -run '^$' -bench . -benchtime "${BENCHTIME:-2s}" ./vision ./text/... ./tuning ./serving ./generation/caption | tee "$work/go.txt"
