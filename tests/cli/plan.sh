#!/bin/sh
# tessera plan: tables, JSON against its schema for every golden model, what cannot be planned, and
# that planning takes no time and changes no text.
. "$SOURCE_ROOT/tests/cli/support.sh"
schema=$SOURCE_ROOT/docs/plan.schema.json
fixtures=${TSR_SHARED:-$SOURCE_ROOT/../shared}/fixtures

valid() {
    python3 "$SOURCE_ROOT/tests/cli/check_schema.py" "$schema" "$@"
}

# What the JSON must add up to, whatever the model.
adds_up() {
    python3 - "$@" <<'EOF'
import json, sys
for name in sys.argv[1:]:
    plan = json.load(open(name))
    pools = {pool["name"]: pool for pool in plan["pools"]}
    tensors, memory = plan["tensors"], plan["memory"]
    assert sum(p["tensors"] for p in pools.values()) == plan["tensors_in_file"]
    assert plan["tensors_in_file"] == sum(not t["tied"] for t in tensors)
    assert sum(p["file_bytes"] for p in pools.values()) == plan["tensor_bytes"] < plan["file_bytes"]
    assert plan["tensor_bytes"] == sum(t["file_bytes"] for t in tensors if not t["tied"])
    for name, pool in pools.items():
        assert pool["bytes"] == sum(t["bytes"] for t in tensors if t["pool"] == name), name
        assert sum(pool["arena_bytes_by_node"]) == (0 if name == "mapped" else pool["bytes"]), name
        assert pool["budget"] is None or pool["bytes"] <= pool["budget"], name
    assert memory["arenas"] == pools["amx"]["bytes"] + pools["cpu"]["bytes"]
    assert memory["total"] == sum(bytes for key, bytes in memory.items() if key != "total")
    never = ("norm", "bias", "gate_inp", "rope", "token_embd")
    assert not any(word in t["name"] for t in tensors if t["pool"] != "mapped" for word in never)
EOF
}

run 0 plan
check 'a row for each pool' [ "$(grep -cE '^(amx|cpu|mapped) ' "$out")" -eq 3 ]
check 'the sum' grep -qE '^sum +99 .*of a file of 16.7 MiB' "$out"
check 'nothing on standard error' [ ! -s "$err" ]
run 0 plan -v --isa scalar
check 'a row for each tensor' [ "$(grep -cE '^(blk\.[0-9]+|token_embd|output)' "$out")" -eq 99 ]
check 'reasons' grep -q 'gate_inp.* the router stays in its file precision' "$out"
check 'kernels' grep -q 'blk.0.attn_q.weight .*scalar Q4_0' "$out"

# Every golden, and every level on the shipped model.
count=0
mkdir "$work/plans"
for file in "$model" "$SOURCE_ROOT"/tests/data/golden/*/*.gguf "$fixtures"/*.gguf \
    "$fixtures"/logits/*.gguf "$fixtures"/quant/*.gguf; do
    [ -e "$file" ] || continue
    if "$TESSERA" plan -m "$file" --json >"$out" 2>"$err" </dev/null; then
        count=$((count + 1))
        mv "$out" "$work/plans/$count"
    else
        check "$file" grep -qE 'is not supported|for which there is no kernel' "$err"
    fi
done
check 'goldens were planned' [ "$count" -ge 6 ]
check 'JSON of the goldens' valid "$work"/plans/*
check 'sums of the goldens' adds_up "$work"/plans/*
for flags in '--isa scalar' '--isa avx2' '--isa amx --emulate-tiles' \
    '--amx on --isa avx2 --emulate-tiles' \
    '--emulate-tiles --pool-budget amx=4M -ot _exps=amx,mapped' \
    '-ot attn=cpu,mapped -ot nothing=mapped' '-c 77 -b 5 --kv-type f32 -t 1 --numa shard'; do
    run 0 plan --json -q $flags
    check "JSON with $flags" valid "$out"
    check "sums with $flags" adds_up "$out"
done

# With tiles every matrix but the router is theirs; without, the plan is that of the plain pools.
run 0 plan --json --isa amx --emulate-tiles
check 'all on tiles' [ "$(grep -o '"pool":"amx","kernel"' "$out" | wc -l)" -eq 57 ]
check 'none is left to the cpu pool' [ "$(grep -o '"pool":"cpu","kernel"' "$out" | wc -l)" -eq 0 ]
run 0 plan --isa avx2
cp "$out" "$work/plain"
run 0 plan --isa avx2 --amx off
check 'the pools without AMX' [ "$(sed 1d "$out")" = "$(sed 1d "$work/plain")" ]
run 0 run -p 'Once upon a time' -n 20 --temp 0 --isa avx2
cp "$out" "$work/text"
run 0 run -p 'Once upon a time' -n 20 --temp 0 --isa avx2 --amx off
check 'the text without AMX' cmp -s "$out" "$work/text"
run 0 run -p 'Once upon a time' -n 20 --temp 0 --isa avx2 -ot 'gate_exps=mapped' -ot 'down=mapped,cpu'
check 'a text with gate and up in unlike pools' [ -s "$out" ]
run 0 run -p 'Once upon a time' -n 4 --temp 0 --emulate-tiles --amx on -ot '_(up|q|k)(_exps)?\.=cpu'
check 'a text with tiles and vectors mixed' [ -s "$out" ]

# What cannot be: one line each.
run 1 plan -ot 'attn_norm=cpu'
one_line "-ot 'attn_norm=cpu': tensor blk.0.attn_norm.weight (F32): pool cpu refuses: not a matrix"
run 1 plan --amx off -ot '_exps=amx'
one_line "tensor blk.0.ffn_gate_exps.weight (Q4_0): pool amx refuses: AMX is off"
run 1 run -p x --amx off -ot '_exps=amx'
one_line 'pool amx refuses: AMX is off'
run 1 plan -ot 'attn_(=cpu'
one_line "-ot 'attn_(=cpu': at character"
run 1 plan -ot 'attn=gpu'
one_line "-ot 'attn=gpu': 'gpu' is not a pool"
run 1 plan --pool-budget mapped=1M
one_line "tensor token_embd.weight (Q8_0)"
one_line "pool mapped refuses: the pool's budget is spent: 1114112 bytes wanted, 1048576 left"
run 1 plan -m "$work/none.gguf"
one_line 'No such file'
run 0 plan -ot 'shexp=cpu'
one_line "-ot 'shexp=cpu' is the first match of no tensor"
if "$TESSERA" plan | grep -q 'no AMX: the CPU has no AMX'; then
    run 1 plan --amx on
    one_line '--amx on: the CPU has no AMX'
    run 1 run -p x --amx on
    one_line '--amx on: the CPU has no AMX'
fi

# 130 GB of weights that are not there: nothing of them is read.
"$MAKE_MODEL" --hole qwen3-235b-a22b:q4_0 "$work/large.gguf" || failed 'a large file'
run 0 plan -m "$work/large.gguf" --emulate-tiles --json
check 'JSON of a large file' valid "$out"
check 'sums of a large file' adds_up "$out"
check 'its size' grep -q '"file_bytes":13[0-9]\{10\},' "$out"
finish
