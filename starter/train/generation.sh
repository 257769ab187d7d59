#!/usr/bin/env bash
# Trains the captioner and the painter beside the dual encoder as it is committed, writes them over starter/captioner and
# starter/painter, their figures and the demo's data beside them: about two hours on two cores, 4 GB of disk beyond train.sh's.
#
# Usage: starter/train/generation.sh [WORK]    WORK as for train.sh: what is there is not made again.
set -euo pipefail
source "$(dirname "$0")/prepare.sh"
bundle="$here/../bundle"
test -d "$work/optimum" || (python3 -m venv "$work/optimum" && "$work/optimum/bin/pip" install -q -r "$here/captioner_requirements.txt")

captioner() {
	for view in 0 1; do test -f "$work/seen${view}_done" || { "$py" seen.py "$work" "$bundle" "$view" && touch "$work/seen${view}_done"; }; done
	test -f "$work/captioner.pt" || { "$py" captioner.py "$work" "$bundle" 35 && mv "$work/captioner.pt" "$work/captioner1.pt" && "$py" captioner.py "$work" "$bundle" 9 "$work/captioner1.pt"; }
}
painter() {
	test -f "$work/vae.pt" || "$py" vae.py "$work" 5
	test -f "$work/painter.pt" || "$py" painter.py "$work" "$bundle" 60
}
captioner & writing=$!
painter
wait "$writing"

"$work/optimum/bin/python" captioner_export.py "$work" "$bundle" "$here/../captioner"
"$py" painter_export.py "$work" "$bundle" "$here/../painter"
"$py" generation_demo.py "$work" "$here/../demo"
"$py" generation_evaluate.py "$work" "$here/.." "$here/../generation_figures.json" "$here/../../docs/painter.png"
