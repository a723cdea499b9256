#!/bin/sh
# Help, version, and every way of typing something wrong: exit status 2 and one line.
. "$SOURCE_ROOT/tests/cli/support.sh"

run 0 --help
check 'help lists the commands' grep -q '^  tokenize ' "$out"
run 0 --version
check 'version' grep -qE '^tessera [0-9]+\.[0-9]+\.[0-9]+$' "$out"
for command in run chat bench calibrate tokenize detokenize template perplexity logits plan inspect cpu; do
    run 0 "$command" --help
    check "help of $command" grep -q "^usage: tessera $command " "$out"
    check "help of $command ends with the flags" grep -q -- '--help' "$out"
    run 0 help "$command"
done

run 2
one_line 'which command'
run 2 nonsense
one_line 'unknown command nonsense'
run 2 --nonsense
one_line 'unknown flag --nonsense'
run 2 run --nonsense
one_line 'unknown flag --nonsense'
run 2 run --nonsense=3
one_line 'unknown flag --nonsense'
run 2 run -p
one_line '-p needs a value'
run 2 run -p x extra
one_line "unexpected argument 'extra'"
run 2 run -p x -f y
one_line 'exclude each other'

# Flags that a command does not use are refused, not ignored.
run 2 tokenize --temp 1 -p x
one_line '--temp is not used'
run 2 cpu -m x
one_line '-m is not used'
run 2 inspect -t 2
one_line '-t is not used'
run 2 chat --json
one_line '--json is not used'

# Values: no number, trailing letters, out of range, none of the words.
run 2 run -p x -n many
one_line "-n: 'many' is not a whole number"
run 2 run -p x -t 2x
one_line "-t: '2x' is not a whole number"
run 2 run -p x -n -2
one_line '-n: -2 is out of range'
run 2 run -p x -b 0
one_line '-b: 0 is out of range'
run 2 run -p x -c 99999999999999999999
one_line 'is out of range'
run 2 run -p x --temp=-1
one_line '--temp: -1 is out of range'
run 2 run -p x --temp nan
one_line '--temp: nan is out of range'
run 2 run -p x --top-p 1.5
one_line '--top-p: 1.5 is out of range'
run 2 run -p x --min-p ''
one_line 'is not a number'
run 2 run -p x --seed -5
one_line "'-5' is not a seed"
run 2 run -p x --kv-type q8
one_line "'q8' is none of f16|f32|bf16|q8_0"
run 2 run -p x --isa avx
one_line "'avx' is none of"
run 2 run -p x --numa all
one_line "'all' is none of none|isolate|interleave|shard"
run 2 run -p x --amx ''
one_line "'' is none of auto|on|off"

run 2 run -p x -ot attn_q
one_line "-ot: 'attn_q' is not of the form REGEX=POOL"
run 2 run -p x -ot =cpu
one_line "-ot: '=cpu' is not of the form REGEX=POOL"
run 2 run -p x --pool-budget 8G
one_line "--pool-budget: '8G' is not of the form POOL=SIZE"
run 2 run -p x --pool-budget gpu=8G
one_line "--pool-budget: 'gpu' is none of amx|cpu|mapped"
for size in 8Q -1 8GB nan 1e30 ''; do
    run 2 run -p x --pool-budget "cpu=$size"
    one_line "--pool-budget: '$size' is not a size"
done

run 2 template
one_line '--messages FILE is missing'
run 2 logits --tokens x
one_line '-o FILE is missing'
run 2 logits -o x
one_line '--tokens FILE is missing'
echo '[]' >"$work/messages"
run 2 template --messages "$work/messages" --var x
one_line 'is not of the form NAME=JSON'
finish
