#!/bin/sh
# tessera calibrate and --calibration: measured once, used by others, and anew where it is of no use.
. "$SOURCE_ROOT/tests/cli/support.sh"
file=$work/choice.json
cp "$model" "$work/model.gguf" || exit 1

# says KEY VALUE: in the calibration file.
says() {
    checks=$((checks + 1))
    python3 -c 'import json, sys
value = json.load(open(sys.argv[1]))
for key in sys.argv[2].split("."):
    value = value[key]
sys.exit(str(value) != sys.argv[3])' "$file" "$1" "$2" || failed "$1 is not $2"
}

run 0 calibrate -m "$work/model.gguf" --seconds 0.1 -o "$file"
check 'no line on standard error' test ! -s "$err"
check 'one number of threads for prompts and for generation' \
    test "$(grep -oE '[0-9] \*' "$out" | wc -l)" -eq 2
says calibration "$("$TESSERA" --version | cut -d' ' -f2)"
says machine.emulated False
says kernels '[]'
run 0 calibrate -m "$work/model.gguf" --seconds 0.1 --emulate-tiles -o -
checks=$((checks + 1))
python3 -c 'import json, sys
found = json.load(open(sys.argv[1]))
assert {kernel["type"] for kernel in found["kernels"]} == {"Q4_0", "Q8_0"}
assert set(found["choice"]["min_rows"]) == {"Q4_0", "Q8_0"}
for kernel in found["kernels"]:
    assert all(rate["tiles"] > 0 and rate["vectors"] > 0 for rate in kernel["gflops"])
for part in found["prompt"], found["generation"]:
    assert all(rate["tokens_per_second"] > 0 for rate in part["threads"])' "$out" ||
    failed 'the JSON of tiles'
run 0 calibrate --shape tiny-moe:q6_k,1 --seconds 0.1 --emulate-tiles
check 'a table of tiles' grep -q '^| rows, Q6_K of ' "$out"
check 'the number of rows' grep -qE '^amx.* Q6_K: (no tiles|tiles from)' "$out"

# ---- Used by others ----
story() {
    run 0 run -m "$work/model.gguf" -p "Once upon" -n 12 --temp 0 "$@"
}
same_story() {
    story --calibration "$file" "$@"
    check "the same text ($*)" cmp -s "$out" "$work/plain"
}
story
cp "$out" "$work/plain"
cp "$file" "$work/first"
same_story
check 'nothing to say' test ! -s "$err"
check 'nothing measured' cmp -s "$file" "$work/first"
same_story -t 1 -tb 1 -v
check 'given threads' grep -q 'threads: 1, 1 for prompts' "$err"
run 0 bench -m "$work/model.gguf" --calibration "$file" -p 16 -n 4 -r 1
check 'bench measures nothing anew' cmp -s "$file" "$work/first"

# ---- Measured anew ----
rm "$file"
same_story
one_line "there is none yet: measuring, and writing it to $file"
same_story --isa scalar
one_line 'not scalar: measuring'
says machine.isa scalar
rm "$file"
same_story --isa scalar -q
check 'quiet' test ! -s "$err"
touch -d '2001-02-03 04:05:06' "$work/model.gguf"
same_story --isa scalar
check 'then nothing to say, nor of a copy' test ! -s "$err"
run 0 calibrate --shape tiny-moe:q4_0,1 --seconds 0.1 -o "$file"
run 0 bench --shape tiny-moe:q4_0,1 -p 4 -n 0 -r 1 --calibration "$file"
check 'shapes are known again' test ! -s "$err"
run 0 bench --shape tiny-moe:q4_0,2 -p 4 -n 0 -r 1 --calibration "$file"
one_line 'made for another model: measuring'
check "nothing is left over" test -z "$(find "$work" -name "*.tmp")"

# ---- What is no calibration is not overwritten ----
cp "$work/model.gguf" "$work/precious"
run 1 run -m "$work/model.gguf" -p x -n 1 --calibration "$work/precious"
one_line 'calibration'
check 'still there' cmp -s "$work/model.gguf" "$work/precious"
run 1 run -m "$work/model.gguf" -p x -n 1 --calibration "$work"
one_line "$work"
run 1 run -m "$work/model.gguf" -p x -n 1 -q --calibration "$work/none/file"
one_line "$work/none/file"
run 1 calibrate -m "$work/model.gguf" --seconds 0.1 -o "$work/none/file"
one_line "$work/none/file"
run 2 calibrate --shape tiny-moe:q4_0 -m "$model"
one_line 'exclude each other'
run 2 calibrate -t 2
one_line '-t is not used'

# ---- Ctrl-C ----
for delay in 0.05 0.2 0.5; do
    checks=$((checks + 1))
    timeout --foreground -s INT -k 30 --preserve-status $delay \
        "$TESSERA" calibrate -m "$model" --seconds 60 --emulate-tiles -o "$file.never" >/dev/null 2>&1
    status=$?
    [ $status -eq 130 ] || failed "interrupted after $delay s: exit status $status"
    [ -z "$(find "$work" -name 'choice.json.never*')" ] || failed "written after $delay s"
done
finish
