#!/usr/bin/env bash
# The page is tested in Chromium. Installs Debian's package where we may, else says what to type.
set -euo pipefail
for b in chromium chromium-browser google-chrome; do
	if command -v "$b" >/dev/null; then exit 0; fi
done
if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
	echo "installing chromium for the page's test"
	apt-get update -q >/dev/null
	DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends chromium >/dev/null
	exit 0
fi
echo "no Chromium: the page's test will be skipped. To run it: sudo apt-get install chromium"
