#!/usr/bin/env bash
# The starter's recipes on the demo's sets over three seeds, beside PyTorch's repetition of the same runs; writes docs/report.md.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${FORETOKEN_REFERENCE_PYTHON:-.cache/reference/bin/python}
if [ ! -x "$python" ]; then
	python3 -m venv .cache/reference
	.cache/reference/bin/pip install -q -r bench/reference/requirements.txt
fi
work=.cache/gain
rm -rf "$work" && mkdir -p "$work"
FORETOKEN_GAIN_OUT=$PWD/$work go test -count 1 -timeout 60m -v ./tuning -run '^TestGain$' | tee "$work/log.txt"
"$python" bench/reference/gain.py starter/bundle "$work" "$work/log.txt" docs/report.md
