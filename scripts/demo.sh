#!/bin/sh
# Builds tessera into build/ and writes a story with the model that comes with it.
# usage: sh scripts/demo.sh [BEGINNING]
set -eu
cd "$(dirname "$0")/.."
. scripts/packages.sh

need_build_packages
install_missing
log=$(mktemp)
trap 'rm -f "$log"' EXIT
{ [ -e build/build.ninja ] || meson setup build -Dtests=false; } >"$log" 2>&1 &&
    ninja -C build tessera >>"$log" 2>&1 || {
    cat "$log" >&2
    exit 1
}

beginning=${1:-Once upon a time, there was a little fox who lived in a forest.}
printf '%s' "$beginning"
build/tessera run -p "$beginning" -n 250
echo
