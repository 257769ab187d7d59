#!/usr/bin/env bash
# Trains the starter bundles from ordinary packages and writes them over starter/bundle, starter/captioner and starter/painter,
# and their figures beside them: about four hours on two cores, 15 GB of disk.
#
# Usage: starter/train/train.sh [WORK]    WORK, default .cache/starter, keeps every stage: what is there is not made again.
set -euo pipefail
source "$(dirname "$0")/prepare.sh"
test -f "$work/teacher.npz" || "$py" teacher.py "$work"

# The towers meet in the teacher's space alone, so each is trained on a core of its own.
text_tower() { test -f "$work/text.pt" || "$py" text.py "$work" 2000; }
image_tower() {
	for view in 0 1 2; do stem_tokens "$view"; done
	test -f "$work/vision.pt" || "$py" vision.py "$work" 3600
}
text_tower & text=$!
image_tower
wait "$text"

"$py" export.py "$work" "$here/../bundle"
"$py" evaluate.py "$work" "$here/../bundle" "$here/../figures.json"
"$py" demo.py "$work" "$here/../demo"
"$here/generation.sh" "$work"
