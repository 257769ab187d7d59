#!/usr/bin/env bash
# Puts ONNX Runtime's shared library into .cache/ort, taken by package name from Python's or
# Node's ordinary package index, pinned by version and checksum. Does nothing when it is there, or
# when FORETOKEN_ORT_LIB names one. With the argument "webgpu", Node's package, whose library runs on
# WebGPU as well, goes into .cache/ort-webgpu.
set -euo pipefail
cd "$(dirname "$0")/.."

version=1.32.0
wheel_sha256=5a34fc4dfeb5a7b4a74c95dcba1e773d722abda720b474edf1b0c419dc6d163d
npm_version=1.30.0
npm_sha256=6e3390d6b783e7be946fad629292799da28d0b42f84856e50d2c1b0383291e75
folder=.cache/ort
case "${1:-}" in
"") ;;
webgpu) folder=.cache/ort-webgpu version=$npm_version; unset FORETOKEN_ORT_LIB ;;
*) echo "usage: fetch-ort.sh [webgpu]" >&2; exit 2 ;;
esac
target=$folder/libonnxruntime.so

if [ -n "${FORETOKEN_ORT_LIB:-}" ]; then
	[ -f "$FORETOKEN_ORT_LIB" ] || { echo "FORETOKEN_ORT_LIB names $FORETOKEN_ORT_LIB, which is no file" >&2; exit 1; }
	exit 0
fi
if [ -f "$target" ] && [ "$(cat $folder/version 2>/dev/null)" = "$version" ]; then exit 0; fi

mkdir -p $folder
work=$(mktemp -d $folder/fetch.XXXXXX)
trap 'rm -rf "$work"' EXIT

# pinned SHA256 FILE ends the script when the file is another one.
pinned() {
	echo "$1  $2" | sha256sum --check --quiet || { echo "$(basename "$2"): its checksum is not the pinned $1" >&2; exit 1; }
}

from_wheel() {
	python3 -m pip --version >/dev/null 2>&1 || return 1
	echo "fetching ONNX Runtime $version as a Python wheel"
	python3 -m pip download -q --no-deps --only-binary=:all: --python-version 3.11 --implementation cp --abi cp311 \
		--platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 -d "$work" "onnxruntime==$version" || return 1
	pinned "$wheel_sha256" "$work"/*.whl
	python3 - "$work" <<-'PY'
		import glob, sys, zipfile
		work = sys.argv[1]
		wheel = zipfile.ZipFile(glob.glob(work + "/*.whl")[0])
		name = next(n for n in wheel.namelist() if "/capi/libonnxruntime.so" in n)
		open(work + "/libonnxruntime.so", "wb").write(wheel.read(name))
	PY
}

from_npm() {
	command -v npm >/dev/null || return 1
	echo "fetching ONNX Runtime $npm_version as a Node package"
	(cd "$work" && npm pack --silent "onnxruntime-node@$npm_version" >/dev/null) || return 1
	pinned "$npm_sha256" "$work"/onnxruntime-node-*.tgz
	tar xzf "$work"/onnxruntime-node-*.tgz -C "$work"
	cp "$(find "$work/package" -path '*linux/x64*' -name 'libonnxruntime.so*' | head -1)" "$work/libonnxruntime.so"
}

case "$(uname -s)-$(uname -m)" in
Linux-x86_64) ;;
*) echo "no pinned ONNX Runtime for $(uname -s) on $(uname -m): put one of version 1.24 or newer somewhere and set FORETOKEN_ORT_LIB to it" >&2; exit 1 ;;
esac
if [ "${1:-}" = webgpu ]; then
	from_npm || { echo "ONNX Runtime with WebGPU could not be fetched with npm: install Node" >&2; exit 1; }
else
	from_wheel || from_npm || { echo "ONNX Runtime could not be fetched with pip or npm; install one of them, or set FORETOKEN_ORT_LIB to a libonnxruntime.so of version 1.24 or newer" >&2; exit 1; }
fi
mv "$work/libonnxruntime.so" "$target"
echo "$version" >$folder/version
