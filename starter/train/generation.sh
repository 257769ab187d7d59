#!/usr/bin/env bash
# Trains the captioner and the painter beside the dual encoder as it is committed, writes them over starter/captioner and
# starter/painter, their figures and the demo's data beside them: two and a half hours on two cores, 4 GB of disk beyond train.sh's.
#
# Usage: starter/train/generation.sh [WORK]    WORK as for train.sh: what is there is not made again.
set -euo pipefail
source "$(dirname "$0")/prepare.sh"
bundle="$here/../bundle"
test -d "$work/optimum" || (python3 -m venv "$work/optimum" && "$work/optimum/bin/pip" install -q -r "$here/captioner_requirements.txt")

export_captioner() { "$work/optimum/bin/python" captioner_export.py "$work" "$bundle" "$here/../captioner"; }
export_painter() { "$py" painter_export.py "$work" "$bundle" "$here/../painter"; }

# The last training of each goes on from the exported weights, as anybody's can.
captioner() {
	test -f "$work/captioner_done" && return
	for view in 0 1; do test -f "$work/seen${view}_done" || { "$py" seen.py "$work" "$bundle" "$view" && touch "$work/seen${view}_done"; }; done
	"$py" captioner.py "$work" "$bundle" 35
	mv "$work/captioner.pt" "$work/captioner1.pt"
	"$py" captioner.py "$work" "$bundle" 9 "$work/captioner1.pt"
	export_captioner
	"$py" captioner.py "$work" "$bundle" 32 "$here/../captioner"
	export_captioner
	touch "$work/captioner_done"
}
painter() {
	test -f "$work/painter_done" && return
	test -f "$work/vae.pt" || "$py" vae.py "$work" 5
	"$py" painter.py "$work" "$bundle" 60
	export_painter
	"$py" painter.py "$work" "$bundle" 70 "$here/../painter"
	export_painter
	touch "$work/painter_done"
}
captioner & writing=$!
painter
wait "$writing"

"$py" generation_demo.py "$work" "$here/../demo"
"$py" generation_evaluate.py "$work" "$here/.." "$here/../generation_figures.json" "$here/../../docs/painter.png"
