#!/bin/sh
# inspect, cpu and logits.
. "$SOURCE_ROOT/tests/cli/support.sh"

run 0 inspect
check 'metadata' grep -qE 'general.architecture +string +"qwen3moe"' "$out"
check 'tensors' grep -qE 'blk\.0\.ffn_gate_exps\.weight +(Q4_0|q4_0) ' "$out"
cp "$out" "$work/table"
run 0 inspect "$model"
check 'the file as an operand' cmp -s "$out" "$work/table"
check 'long arrays are cut' [ "$(awk 'length > 300' "$out")" = '' ]
run 0 inspect -v
check 'and with -v whole' [ "$(awk 'length > 20000' "$out" | wc -l)" -gt 0 ]
run 0 inspect -m "$model" --json
check 'JSON' grep -q '"tensors":' "$out"
run 2 inspect -m "$model" "$model"
one_line 'one file at a time'
run 1 inspect "$work/missing"
one_line "$work/missing"
run 1 inspect "$work"
one_line "$work"

run 0 cpu
check 'instruction set' grep -q 'instruction set in use: ' "$out"
run 0 cpu --isa scalar
check 'the limit is honoured' grep -q 'instruction set in use: scalar' "$out"
run 0 cpu --json
check 'JSON' grep -q '"isa":' "$out"

# Ids 1 to 20 as little-endian int32.
for id in 01 02 03 04 05 06 07 10 11 12 13 14 15 16 17 20 21 22 23 24; do
    printf "\\$id\\0\\0\\0"
done >"$work/ids"
run 0 logits --tokens "$work/ids" -o "$work/logits"
check 'a row of 4096 floats for each id' [ "$(wc -c <"$work/logits")" -eq $((20 * 4096 * 4)) ]
run 0 logits --tokens "$work/ids" -o - -b 7
check 'to standard output' [ "$(wc -c <"$out")" -eq $((20 * 4096 * 4)) ]
cp "$work/logits" "$work/before"
run 1 logits -m "$work/missing" --tokens "$work/ids" -o "$work/logits"
one_line 'No such file'
check 'a wrong model leaves an old file alone' cmp -s "$work/logits" "$work/before"
run 1 logits --tokens "$work/missing" -o "$work/logits"
one_line 'No such file'
run 1 logits --tokens "$work/ids" -o "$work/no/such/folder"
one_line 'No such file'
head -c 7 "$work/ids" >"$work/odd"
run 1 logits --tokens "$work/odd" -o "$work/logits"
one_line 'no list of int32 ids'
run 1 logits --tokens /dev/null -o "$work/logits"
one_line 'no list of int32 ids'
run 1 logits --tokens "$work/ids" -o "$work/logits" -c 10
one_line context
check 'a small context leaves it alone, too' cmp -s "$work/logits" "$work/before"
run 1 logits --tokens "$work/ids" -o "$work/logits" -c 2000000000
one_line 'use a smaller -c'
printf '\377\377\377\177' >"$work/large"
run 1 logits --tokens "$work/large" -o "$work/logits"
one_line vocabulary
if [ -c /dev/full ]; then
    run 1 logits --tokens "$work/ids" -o /dev/full
    one_line 'No space left'
fi
finish
