# Sourced by train.sh and evaluate.sh: packages, a virtual environment and the rendered pictures in $work; what is there is not
# made again. Needs Debian (root, for three data packages), Python 3.11 or newer and npm.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
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

# The frozen stem's tokens of the pictures: 0 is as they are, 1 and 2 are augmented.
stem_tokens() { test -f "$work/tokens${1}_rows.npy" || "$py" tokens.py "$work" "$1"; }
