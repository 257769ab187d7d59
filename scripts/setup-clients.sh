#!/usr/bin/env bash
# OpenAI's clients for Python and Node, which the service is tested with, in .cache/clients. What this machine can't have is
# said, and the test says it again.
set -uo pipefail
cd "$(dirname "$0")/.."

python_version=3.57.0
node_version=6.49.0
dir=.cache/clients
mkdir -p "$dir/node"

if ! "$dir/python/bin/python" -c "import openai; assert openai.__version__ == '$python_version'" 2>/dev/null; then
	echo "installing OpenAI's client for Python"
	python3 -m venv "$dir/python" && "$dir/python/bin/pip" install -q "openai==$python_version" ||
		echo "no Python client: the test of it will be skipped. To run it: install Python with venv and pip"
fi
if ! grep -qs "\"version\": \"$node_version\"" "$dir/node/node_modules/openai/package.json"; then
	echo "installing OpenAI's client for Node"
	(cd "$dir/node" && npm install --silent --no-fund --no-audit --no-save --prefix . "openai@$node_version") ||
		echo "no Node client: the test of it will be skipped. To run it: install Node.js with npm"
fi
exit 0
