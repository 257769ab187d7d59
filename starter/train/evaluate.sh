#!/usr/bin/env bash
# Measures the starter bundle as it is committed, without training it: about an hour on one core.
#
# Usage: starter/train/evaluate.sh [WORK [OUT.json [SEEDS [TASKS]]]]
# WORK, default .cache/starter, is as for train.sh; OUT.json, default starter/figures.json; see evaluate.py for SEEDS and TASKS.
set -euo pipefail
out=$(realpath "${2:-$(dirname "$0")/../figures.json}")
source "$(dirname "$0")/prepare.sh"
stem_tokens 0
"$py" evaluate.py "$work" "$here/../bundle" "$out" "${@:3}"
