#!/bin/sh
# Damaged model files: one line and status 1, never a crash. The library's own tests go through many
# more; here it is the program that meets them.
. "$SOURCE_ROOT/tests/cli/support.sh"
good=$SOURCE_ROOT/tests/data/golden/quant/qwen3moe_q-q4_0.gguf
ids=$SOURCE_ROOT/tests/data/golden/quant/qwen3moe_q.tokens.i32
bad=$work/bad.gguf
size=$(wc -c <"$good")
logits() {
    run "$1" logits -m "$bad" --tokens "$ids" -o /dev/null -t 1
}

# Cut short at every 5,000th byte, and at every byte of the first 40.
for at in $(seq 0 40) $(seq 5000 5000 "$size"); do
    head -c "$at" "$good" >"$bad"
    logits 1
    one_line "$bad"
done

# A bit of the header turned over: refused with a line, or harmless (a letter of a token).
seed=1
for _ in $(seq 200); do
    seed=$(((seed * 1103515245 + 12345) % 2147483648))
    at=$((seed / 8 % 20000)) bit=$((seed % 8))
    cp "$good" "$bad"
    byte=$(od -An -tu1 -j "$at" -N 1 "$good")
    printf "\\$(printf '%03o' $((byte ^ (1 << bit))))" |
        dd of="$bad" bs=1 seek="$at" conv=notrunc 2>/dev/null
    checks=$((checks + 1))
    "$TESSERA" logits -m "$bad" --tokens "$ids" -o /dev/null -t 1 >"$out" 2>"$err" </dev/null
    status=$?
    [ $status -eq 0 ] || [ $status -eq 1 ] || failed "bit $bit of byte $at: exit status $status"
    [ "$(wc -l <"$err")" -eq $status ] || failed "bit $bit of byte $at: status $status"
done

: >"$bad"
logits 1
one_line "$bad"
printf 'Once upon a time there was a file that was no model at all.\n' >"$bad"
logits 1
one_line "$bad"
run 1 run -m "$work" -p x
one_line "$work"
finish
