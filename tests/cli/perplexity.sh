#!/bin/sh
# tessera perplexity: the figures are those of `tessera logits`, and files of logits are what
# prediction.h and logits_file.h say.
. "$SOURCE_ROOT/tests/cli/support.sh"

# Sixteen stories, so that chunks differ.
for name in Tom Lily Ben Mia Sam Anna Max Lucy Tim Sue Bob Amy Jack Ella Dan Rose; do
    echo "Once upon a time there was a child called $name. $name had a red ball and a small dog." \
        "One day $name went to the park. The dog saw the ball and ran. \"Come back!\" said $name." \
        "The dog came back with the ball in its mouth. $name was very happy, and they went home."
done >"$work/text"

run 0 perplexity -f "$work/text" -c 64 --json -t 2
cp "$out" "$work/all.json"
"$TESSERA" tokenize -f "$work/text" --json --no-special >"$work/ids.json"
checks=$((checks + 1))
python3 - "$work" "$TESSERA" <<'END' || failed 'the perplexity of the logits'
import array, json, math, subprocess, sys
work, tessera = sys.argv[1:]
ids = json.load(open(work + "/ids.json"))["ids"]
found = json.load(open(work + "/all.json"))
n_ctx = 64
assert found["chunks"] == len(ids) // n_ctx > 10 and found["n_ctx"] == n_ctx
losses = []
for start in range(0, len(ids) // n_ctx * n_ctx, n_ctx):
    chunk = array.array("i", ids[start:start + n_ctx])
    with open(work + "/chunk", "wb") as file:
        chunk.tofile(file)
    logits = subprocess.run([tessera, "logits", "--tokens", work + "/chunk", "-o", "-"],
                            capture_output=True, check=True).stdout
    logits = array.array("f", logits)
    n_vocab = len(logits) // n_ctx
    for i in range(n_ctx // 2, n_ctx - 1):
        row = logits[i * n_vocab:(i + 1) * n_vocab]
        top = max(row)
        losses.append(top + math.log(sum(math.exp(x - top) for x in row)) - row[chunk[i + 1]])
assert found["predictions"] == len(losses)
mean = sum(losses) / len(losses)
variance = sum((x - mean) ** 2 for x in losses) / len(losses)
assert abs(found["perplexity"] / math.exp(mean) - 1) < 1e-5, (found, math.exp(mean))
error = math.exp(mean) * math.sqrt(variance / (len(losses) - 1))
assert abs(found["error"] / error - 1) < 1e-4, (found, error)
END

run 0 perplexity -f "$work/text" -c 64
check 'a line' grep -qE '^perplexity [0-9.]+ ± [0-9.]+ \([0-9]+ chunks of 64 tokens' "$out"
"$TESSERA" perplexity -c 64 --chunks 2 <"$work/text" >"$out"
check 'two chunks of standard input' grep -q '(2 chunks of 64 tokens, 62 predictions)' "$out"

# ---- Beside other logits ----
base=$work/base
run 0 perplexity -f "$work/text" -c 64 --chunks 6 --kl-divergence-base "$base"
cp "$out" "$work/first"
check 'as long as it has to be' \
    [ "$(wc -c <"$base")" -eq $((20 + 6 * 64 * 4 + 6 * 31 * (4096 + 4) * 2)) ]
run 0 perplexity --kl-divergence-base "$base" --kl-divergence
check 'the same perplexity' [ "$(head -n 1 "$out")" = "$(cat "$work/first")" ]
check 'the likeliest tokens are the same' grep -q '^same likeliest token 100.000%' "$out"
run 0 perplexity --kl-divergence-base "$base" --kl-divergence --json
checks=$((checks + 1))
python3 -c 'import json, sys
found = json.load(open(sys.argv[1]))
assert abs(found["kl_divergence"]["mean"]) < 2e-5, found
assert abs(found["base"]["perplexity"] / found["perplexity"] - 1) < 0.01, found' "$out" ||
    failed 'no divergence from itself'
run 0 perplexity --kl-divergence-base "$base" --kl-divergence --json --kv-type q8_0 --chunks 3
checks=$((checks + 1))
python3 -c 'import json, sys
found = json.load(open(sys.argv[1]))
kl = found["kl_divergence"]
assert found["chunks"] == 3 and 2e-5 < kl["mean"] < 0.1, found
assert kl["median"] <= kl["p99"] <= kl["max"], found' "$out" || failed 'some from a rounded context'

# ---- What cannot be ----
run 2 perplexity -f "$work/text" --kl-divergence
one_line 'needs --kl-divergence-base'
run 2 perplexity -f "$work/text" --kl-divergence-base "$base" --kl-divergence
one_line 'leave out -f'
run 1 perplexity -f "$work/text" -c 20000
one_line 'less than a chunk of 20000'
run 1 perplexity -f "$work/text" -c 3
one_line 'at least 4'
run 1 perplexity --kl-divergence-base "$base" --kl-divergence -c 32
one_line 'has chunks of 64'
run 1 perplexity --kl-divergence-base "$work/text" --kl-divergence
one_line 'no file of logits'
head -c 100000 "$base" >"$work/cut"
run 1 perplexity --kl-divergence-base "$work/cut" --kl-divergence
one_line 'not as long'
printf '_logits_\100\0\0\0\0\020\0\0\377\377\377\177' >"$work/huge"
run 1 perplexity --kl-divergence-base "$work/huge" --kl-divergence
one_line 'out of range'
{ head -c 20 "$base" && printf '\377\377\377\377' && tail -c +25 "$base"; } >"$work/ids"
run 1 perplexity --kl-divergence-base "$work/ids" --kl-divergence
one_line 'outside the vocabulary'
run 1 perplexity --kl-divergence-base "$work/missing" --kl-divergence
one_line 'No such file'
run 1 perplexity -f "$work/text" -c 64 --kl-divergence-base "$work/no/folder"
one_line 'No such file'
if [ -c /dev/full ]; then
    run 1 perplexity -f "$work/text" -c 64 --chunks 1 --kl-divergence-base /dev/full
    one_line 'No space left'
fi
for i in 1 2 3 4 5 6 7 8; do cat "$work/text" "$work/text"; done >"$work/long"
"$TERMINAL" "$TESSERA" perplexity -f "$work/long" --isa scalar -t 1 <<'END'
expect perplexity so far
key ctrl-c
status 130
END
check 'progress on a terminal, and Ctrl-C' [ $? -eq 0 ]
finish
