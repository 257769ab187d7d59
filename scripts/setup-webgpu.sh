#!/usr/bin/env bash
# What `make test-webgpu` needs: ONNX Runtime's library with WebGPU, from Node's package, and a Vulkan driver that needs no
# GPU. That is SwiftShader, which Chromium comes with, and a loader for it; Mesa's lavapipe of Debian 12 is refused for what it
# lacks. VK_ICD_FILENAMES, where it is set, names another driver. The settings go to .cache/ort-webgpu/env.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/fetch-ort.sh webgpu

driver=${VK_ICD_FILENAMES:-}
if [ -z "$driver" ]; then
	scripts/setup-browser.sh
	for folder in /usr/lib/chromium /usr/lib/chromium-browser /opt/google/chrome; do
		if [ -f "$folder/libvk_swiftshader.so" ]; then
			driver=$folder/vk_swiftshader_icd.json
			libraries=$folder # Chromium's own loader is there as well
			break
		fi
	done
fi
[ -n "$driver" ] || { echo "no software Vulkan driver: install Chromium, whose package holds SwiftShader, or set VK_ICD_FILENAMES" >&2; exit 1; }
if [ ! -e "${libraries:-}/libvulkan.so.1" ] && ! ldconfig -p | grep -q 'libvulkan.so.1'; then
	command -v apt-get >/dev/null && [ "$(id -u)" = 0 ] || { echo "no Vulkan loader: install libvulkan1" >&2; exit 1; }
	DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends libvulkan1 >/dev/null
fi
cat >.cache/ort-webgpu/env <<-ENV
	export FORETOKEN_ORT_LIB=$PWD/.cache/ort-webgpu/libonnxruntime.so
	export VK_ICD_FILENAMES=$driver
	export LD_LIBRARY_PATH=${libraries:-}\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}
	export XDG_RUNTIME_DIR=\${XDG_RUNTIME_DIR:-/tmp}
ENV
echo "WebGPU runs on $driver"
