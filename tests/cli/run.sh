#!/bin/sh
# tessera run: what goes where, seeds, limits, broken output, interrupts.
. "$SOURCE_ROOT/tests/cli/support.sh"

run 0 run -p 'Once upon a time' -n 20 --seed 1
check 'a text' [ "$(wc -c <"$out")" -gt 20 ]
check 'nothing on standard error when it is no terminal' [ ! -s "$err" ]
check 'the prompt is not repeated' [ "$(grep -c '^Once upon a time' "$out")" -eq 0 ]
cp "$out" "$work/first"
run 0 run -p 'Once upon a time' -n 20 --seed 1
check 'the same seed, the same text' cmp -s "$out" "$work/first"
run 0 run -p 'Once upon a time' -n 20 --seed 2
check 'another seed, another text' [ "$(cmp -s "$out" "$work/first" && echo same)" = '' ]
run 0 run -p 'Once upon a time' -n 20 --temp 0
cp "$out" "$work/greedy"
run 0 run -m "$model" -p 'Once upon a time' -n 20 --temp 0 -t 1 -b 3 -c 64
check 'threads and batches change nothing' cmp -s "$out" "$work/greedy"
echo 'Once upon a time' >"$work/prompt"
run 0 run -f "$work/prompt" -n 20 --temp 0
check 'the prompt from a file' cmp -s "$out" "$work/greedy"
in=$work/prompt
run 0 run -n 20 --temp 0
check 'the prompt from standard input' cmp -s "$out" "$work/greedy"
in=/dev/null
run 0 run -p 'Once upon a time' -n 0
check 'no tokens, no text' [ ! -s "$out" ]
run 0 run -p 'Once upon a time' -n 20 --temp 0 -v
check 'timings with -v' grep -q 'generated 20 tokens' "$err"

run 0 run -p 'Once upon a time' -n 8 --temp 0 --json
check 'one line of JSON' [ "$(wc -l <"$out")" -eq 1 ]
for key in text ids prompt_ids stop seed timings prompt_per_second; do
    check "JSON has $key" grep -q "\"$key\":" "$out"
done
check 'stopped by -n' grep -q '"stop":"limit"' "$out"
run 0 run -p 'Once upon a time' --temp 0 -c 16 --ignore-eos --json
check 'stopped by the context' grep -q '"stop":"context"' "$out"

# --prompt-cache: the second time all but the last token are known; other files stay as they are.
story='Once upon a time there was a girl who lived by the sea'
run 0 run -p "$story" -n 8 --temp 0 --seed 1 --json
sed 's/,"timings.*//' "$out" >"$work/uncached"
for known in 0 12; do
    run 0 run -p "$story" -n 8 --temp 0 --seed 1 --json --prompt-cache "$work/context"
    check "$known known tokens" grep -q "\"reused_tokens\":$known," "$out"
    sed 's/,"timings.*//' "$out" >"$work/cached"
    check 'the same text' cmp -s "$work/cached" "$work/uncached"
done
run 0 run -p "$story and" -n 1 --prompt-cache "$work/context" --kv-type q8_0
one_line 'this session keeps Q8_0: it will be replaced'
cp "$work/context" "$work/long"
run 0 run -q -p "$story" -n 1 --prompt-cache "$work/context"
check 'nothing with -q' [ ! -s "$err" ]
run 1 run -p Once -n 1 -c 8 --prompt-cache "$work/long" --kv-type q8_0
one_line 'has 14 tokens, the context holds 8'
check 'a longer context is left alone' [ "$(wc -c <"$work/long")" -gt 14000 ]
run 1 run -p "$story" -n 1 --prompt-cache "$work/prompt"
one_line 'is no saved context'
check 'other files are left alone' [ "$(cat "$work/prompt")" = 'Once upon a time' ]

# More threads than CPUs.
run 0 run -p 'Once upon a time' -n 2 --temp 0 -t $(($(nproc) + 1))
check 'a warning' grep -qE '[0-9]+ threads for [0-9]+ CPUs have to take turns' "$err"

# A prompt of one token is a prompt.
run 0 run -p Once -n 3 --temp 0 --json
check 'one token of a prompt' grep -q '"prompt_tokens":1,"decode_tokens":2' "$out"

# Bad input.
run 2 run -p x --seed 9223372036854775808
one_line 'is not a seed'
run 1 run -p "$(yes fox | head -n 200)" -c 64
one_line 'the context holds 64'
run 1 run -m "$work/missing.gguf" -p x
one_line "$work/missing.gguf"
run 1 run -m "$work" -p x
one_line "$work"
run 1 run -m "$work/prompt" -p x
one_line "$work/prompt"
: >"$work/empty.gguf"
run 1 run -m "$work/empty.gguf" -p x
one_line "$work/empty.gguf"
head -c 100000 "$model" >"$work/cut.gguf"
run 1 run -m "$work/cut.gguf" -p x
one_line "$work/cut.gguf"
run 1 run -f "$work/missing"
one_line 'No such file'
TESSERA_MODEL=$work/named-by-environment
export TESSERA_MODEL
run 1 run -p x
one_line named-by-environment
unset TESSERA_MODEL

# One node or several: the modes change no text, and the report says where weights lie.
run 0 run -p 'Once upon a time' -n 20 --temp 0 -t 1
cp "$out" "$work/plain"
for mode in none isolate interleave shard; do
    run 0 run -v -p 'Once upon a time' -n 20 --temp 0 -t 1 --numa $mode
    check "--numa $mode: the same text" cmp -s "$out" "$work/plain"
done

# Output that cannot be written.
if [ -c /dev/full ]; then
    "$TESSERA" run -p Once -n 5 >/dev/full 2>"$err"
    check 'full disk: exit status 1' [ $? -eq 1 ]
    one_line 'No space left'
    "$TESSERA" --help >/dev/full 2>"$err"
    check 'full disk, help: exit status 1' [ $? -eq 1 ]
    one_line 'No space left'
fi
"$TESSERA" run -p Once -n 5 >&- 2>"$err"
check 'closed output: exit status 1' [ $? -eq 1 ]
one_line 'cannot be written'
{ "$TESSERA" run -p Once --ignore-eos -c 1024 2>"$err"; echo $? >"$work/status"; } | head -c 1 >"$out"
check 'closed pipe: exit status 1' [ "$(cat "$work/status")" -eq 1 ]
one_line 'Broken pipe'

# Progress, timings and interrupts on a terminal.
"$TERMINAL" "$TESSERA" run -p 'Once upon a time' -n 5 --temp 0 <<'END'
expect stopped: limit
status 0
END
check 'a terminal sees timings' [ $? -eq 0 ]
"$TERMINAL" "$TESSERA" run -q -p 'Once upon a time' --ignore-eos --isa scalar -t 1 -c 20000 <<'END'
expect a
key ctrl-c
absent generated
status 130
END
check 'Ctrl-C ends with 130' [ $? -eq 0 ]
"$TERMINAL" "$TESSERA" run <<'END'
expect no text
status 2
END
check 'no prompt on a terminal is wrong usage' [ $? -eq 0 ]
finish
