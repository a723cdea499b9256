#!/bin/sh
# An installed tree: moved elsewhere, the program finds its model and a program builds against the
# library by pkg-config.
. "$SOURCE_ROOT/tests/cli/support.sh"

meson install -C "$BUILD_ROOT" --no-rebuild --quiet --destdir "$work/moved" >"$out" 2>"$err"
check 'install' [ $? -eq 0 ]
TESSERA=$(find "$work/moved" -path '*/bin/tessera')
check 'the program is installed' [ -x "$TESSERA" ]
run 0 run -p 'Once upon a time' -n 3
check 'and writes' [ -s "$out" ]

description=$(find "$work/moved" -name tessera.pc)
prefix=$(sed -n 's/^prefix=//p' "$description")
PKG_CONFIG_PATH=$(dirname "$description") PKG_CONFIG_SYSROOT_DIR=$work/moved
export PKG_CONFIG_PATH PKG_CONFIG_SYSROOT_DIR
${CC:-cc} "$SOURCE_ROOT/examples/story.c" -o "$work/story" \
    $(pkg-config --cflags --libs tessera) >"$out" 2>"$err"
check 'the example builds' [ $? -eq 0 ]
LD_LIBRARY_PATH=$(dirname "$(find "$work/moved$prefix" -name libtessera.so.0)")
export LD_LIBRARY_PATH
"$work/story" "$model" 'Once upon a time' >"$out" 2>"$err"
check 'and tells a story' [ $? -eq 0 ]

# Nothing but the public functions is visible.
for name in $(nm -D --defined-only "$LD_LIBRARY_PATH/libtessera.so.0" | awk '{print $3}'); do
    case $name in
    tsr_*) ;;
    *) failed "$name is visible" ;;
    esac
done
checks=$((checks + 1))
finish
