# Sourced by the tests of the program. Needs TESSERA (the program), SOURCE_ROOT and TERMINAL (the
# pseudo terminal helper) in the environment; meson sets them.
#
#     run STATUS ARGUMENT...   runs tessera; its output is in $out and $err (files), input from $in
#     one_line TEXT            standard error is one line that holds TEXT
#     check NAME CONDITION...  a named condition, a command as test(1) would have it

set -u
model=$SOURCE_ROOT/models/tinystories-moe-q4_0.gguf
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
out=$work/out err=$work/err in=/dev/null
failures=0 checks=0

unset TESSERA_MODEL
XDG_STATE_HOME=$work/state TERM=xterm LC_ALL=C.UTF-8
export XDG_STATE_HOME TERM LC_ALL

failed() {
    failures=$((failures + 1))
    printf 'FAILED: %s\n' "$*"
    [ ! -s "$err" ] || sed 's/^/    stderr: /' "$err" | head -n 5
}

run() {
    expected=$1
    shift
    checks=$((checks + 1))
    "$TESSERA" "$@" <"$in" >"$out" 2>"$err"
    status=$?
    [ $status -eq "$expected" ] || failed "tessera $*: exit status $status, not $expected"
}

check() {
    name=$1
    shift
    checks=$((checks + 1))
    "$@" || failed "$name"
}

one_line() {
    checks=$((checks + 1))
    [ "$(wc -l <"$err")" -eq 1 ] || failed "not one line on standard error"
    grep -qF -e "$1" "$err" || failed "standard error does not say: $1"
}

prints() {
    checks=$((checks + 1))
    [ "$(cat "$out")" = "$1" ] || failed "printed $(head -c 200 "$out"), not $1"
}

finish() {
    printf '%d checks, %d failed\n' "$checks" "$failures"
    [ "$failures" -eq 0 ] && [ "$checks" -gt 0 ]
    exit
}
