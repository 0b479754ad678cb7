#!/usr/bin/env bash
# A Chromium for the tests of the web page, from the system's own packages, where there is none yet.
set -euo pipefail
command -v chromium chromium-browser google-chrome >/dev/null && exit 0
as_root=$([ "$(id -u)" = 0 ] || echo sudo)
$as_root apt-get update -qq
DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends chromium
