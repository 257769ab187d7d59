#!/usr/bin/env bash
# Trains the starter bundle from ordinary packages and writes it over starter/bundle: about two hours on two cores, 11 GB
# of disk. Needs Debian (root, for three data packages), Python 3.11 or newer and npm.
#
# Usage: starter/train/train.sh [WORK]    WORK, default .cache/starter, keeps every stage: what is there is not made again.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mkdir -p "${1:-$here/../../.cache/starter}" && cd "${1:-$here/../../.cache/starter}" && pwd)

have() { dpkg -s "$1" >/dev/null 2>&1; }
for p in dataset-fashion-mnist tuxpaint-stamps-default wordnet-base; do
	have "$p" || apt-get install -qy --no-install-recommends "$p"
done
test -d "$work/node_modules" || (cp "$here/package.json" "$work/" && cd "$work" && npm install --silent)
test -d "$work/venv" || (python3 -m venv "$work/venv" && "$work/venv/bin/pip" install -q -r "$here/requirements.txt")

cd "$here"
export HF_HUB_OFFLINE=1
py="$work/venv/bin/python"
test -f "$work/data160/pairs.npz" || "$py" data.py "$work/node_modules" /usr/share/tuxpaint/stamps "$work/data160"
test -f "$work/teacher.npz" || "$py" teacher.py "$work"

# The towers meet in the teacher's space alone, so each is trained on a core of its own.
text_tower() { test -f "$work/text.pt" || "$py" text.py "$work" 2000; }
image_tower() {
	for view in 0 1 2; do
		test -f "$work/tokens${view}_rows.npy" || "$py" tokens.py "$work" "$view"
	done
	test -f "$work/vision.pt" || "$py" vision.py "$work" 3600
}
text_tower & text=$!
image_tower
wait "$text"

"$py" export.py "$work" "$here/../bundle"
"$py" evaluate.py "$work" "$here/../figures.json" 8
"$py" demo.py "$work" "$here/../demo"
