# Memory limits, locked memory, and Ctrl-C while a model is being loaded.
. "$SOURCE_ROOT/tests/cli/support.sh"

# ---- What does not fit is refused before it is loaded ----
run 1 run -p x -n 1 -c 2000000000
one_line "a KV cache of"
one_line "MiB available"
run 1 run -p x -n 1 -c 1000000000 --kv-type f32
one_line "use a smaller -c"

# A sanitized program reserves more address space than any limit leaves.
if (ulimit -v 400000 && "$TESSERA" cpu) >/dev/null 2>&1; then
    (
        ulimit -v 400000
        run 1 run -p x -n 1 -c 300000
        one_line "available (RLIMIT_AS (ulimit -v))"
        run 0 run -p x -n 1
        finish
    ) >"$work/limited" || failed "$(cat "$work/limited")"
fi

# ---- --mlock ----
run 0 run -p "Once upon" -n 8 --temp 0
cp "$out" "$work/plain"
run 0 run -p "Once upon" -n 8 --temp 0 --no-huge-pages
check "the same text without huge pages" cmp -s "$out" "$work/plain"
as_user=
[ "$(id -u)" -ne 0 ] || as_user="setpriv --bounding-set=-ipc_lock"
if (ulimit -l 64 && $as_user true) 2>/dev/null; then
    (
        ulimit -l 64
        $as_user "$TESSERA" run -p x -n 1 --mlock >"$out" 2>"$err"
        [ $? -eq 1 ] || failed "--mlock beyond the limit: exit status $?"
        one_line "RLIMIT_MEMLOCK is 64 KiB"
        one_line "ulimit -l"
        finish
    ) >"$work/limited" || failed "$(cat "$work/limited")"
fi
if [ "$(ulimit -l)" = unlimited ] || [ "$(id -u)" -eq 0 ] || [ "$(ulimit -l)" -gt 100000 ]; then
    run 0 run -p "Once upon" -n 8 --temp 0 --mlock
    check "the same text from locked memory" cmp -s "$out" "$work/plain"
fi
finish
