# Sourced by the scripts: makes sure that what a build needs is there.
#
#     need_tool COMMAND PACKAGE      need_library PKG_CONFIG_NAME PACKAGE
#     install_missing
#
# Packages are Debian's. As root on Debian or Ubuntu they are installed, otherwise they are named
# and the script ends.

missing=

need_tool() {
    command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}

need_library() {
    pkg-config --exists "$1" 2>/dev/null || missing="$missing $2"
}

need_build_packages() {
    need_tool gcc gcc
    need_tool meson meson
    need_tool ninja ninja-build
    need_tool pkg-config pkg-config
    [ -e /usr/include/stdlib.h ] || missing="$missing libc6-dev"
    need_library libpcre2-8 libpcre2-dev
    need_library libutf8proc libutf8proc-dev
    need_library jansson libjansson-dev
    need_library libedit libedit-dev
}

install_missing() {
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
        echo "missing packages (names as in Debian):$missing" >&2
        [ "$(id -u)" -eq 0 ] || echo "install them, or run this script as root" >&2
        exit 1
    fi
    echo "installing$missing"
    # $missing is a list of words.
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y \
        --no-install-recommends $missing; } >/tmp/tessera-packages.$$ 2>&1 || {
        tail -n 5 /tmp/tessera-packages.$$ >&2
        rm -f /tmp/tessera-packages.$$
        exit 1
    }
    rm -f /tmp/tessera-packages.$$
    missing=
}
