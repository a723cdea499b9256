#!/bin/sh
# tessera bench: the three formats say the same, shapes are made as asked for, lists are combined.
. "$SOURCE_ROOT/tests/cli/support.sh"

# Meson itself runs on Python.
python() {
    checks=$((checks + 1))
    python3 -c "$1" "$out" || failed "$2"
}

run 0 bench -m "$model" -p 16,32 -n 4 -r 2 -t 1
check 'roofs first' grep -q '^roofs, 1 thread: streaming read [0-9.]* GB/s' "$out"
check 'three rows' test "$(grep -c '^| [^m-].* ± ' "$out")" -eq 3
check 'a prompt' grep -q '| pp32 |' "$out"
check 'generation has percent of read' grep -qE '\| tg4 \| [0-9.]+ ± [0-9.]+ \| [0-9.]+ \|' "$out"
check 'load time' grep -qE 'loaded in [0-9.]+ s' "$out"

run 0 bench --shape tiny-moe:q4_0,2 -p 16 -n 4 -d 0,8 -r 2 -t 1,2 -b 8,16 --kv-type f32,q8_0 \
    --isa scalar -o csv
python 'import csv, sys
rows = list(csv.DictReader(open(sys.argv[1])))
assert len(rows) == 2 * 2 * 2 * 2 * 2, len(rows)
assert [r["kv_type"] for r in rows[:5]] == 4 * ["f32"] + ["q8_0"]
assert {r["test"] for r in rows} == {"pp16", "tg4", "pp16 @ d8", "tg4 @ d8"}
assert {(r["threads"], r["batch"]) for r in rows} == {(t, b) for t in "12" for b in ("8", "16")}
for r in rows:
    assert r["model"] == "tiny-moe" and r["type"] == "Q4_0" and r["isa"] == "scalar"
    assert float(r["tps_min"]) <= float(r["tps_median"]) <= float(r["tps_max"])
    assert float(r["roof_read"]) > 0 and None not in r.values()
    assert (float(r["percent_read"] or 0) > 0) == (r["n_gen"] == "4")' 'rows of CSV'

# Two layers: q and output 256 x 256, k and v 128 x 256, 8 experts of three 256 x 256, router.
run 0 bench --shape tiny-moe:bf16,2 -p 0 -n 2 -r 1 -t 1 -o json
python 'import json, sys
rows = json.load(open(sys.argv[1]))
assert len(rows) == 1 and rows[0]["test"] == "tg2" and rows[0]["type"] == "BF16"
matrices = 2 * 256 * 256 + 2 * 128 * 256 + 8 * 3 * 256 * 256
assert rows[0]["token_flop"] == 2 * 2 * (matrices + 128 * 256)
norms = 4 * (2 * (2 * 256 + 2 * 64) + 256)
assert rows[0]["token_bytes"] == 2 * 2 * matrices + 2 * 4 * 128 * 256 + 2 * 1024 * 256 + norms
assert rows[0]["percent_tiles"] is None and rows[0]["load_seconds"] > 0' 'rows of JSON'

run 0 bench --shape tiny-moe:q8_0,2 -p 32 -n 8 -r 1 -t 2 -o json --profile
python 'import json, sys
for row in json.load(open(sys.argv[1])):
    phases = {p["phase"]: p for p in row["phases"]}
    assert all(phases[n]["percent_work"] > 0 for n in ("attention", "router", "gate, up", "down"))
    total = sum(p["percent_work"] + p["percent_wait"] for p in row["phases"])
    assert 99 < total < 101, total' 'phases of JSON'
run 2 bench -o csv --profile
one_line '--profile needs -o md or -o json'

# llama.cpp's mix of types; of -b and -ub, which it tells apart, the smaller.
run 0 bench --shape tiny-moe:q4_k_m -p 4 -n 0 -r 1 -t 1 -b 8,16 -ub 4,0 -o csv
check 'mostly Q4_K' grep -q '"Q4_K"' "$out"
python 'import csv, sys
assert [r["batch"] for r in csv.DictReader(open(sys.argv[1]))] == ["4", "8", "4", "16"]' 'rows of -ub'

# Latent attention and shared experts.
run 0 bench --shape tiny-mla:q4_k_m,2 -p 16 -n 4 -d 8 -r 1 -t 2 -o csv
check 'the latent shape' grep -q '"tiny-mla"' "$out"

run 2 bench --shape nonsense:q4_0
one_line "no shape 'nonsense'"
run 2 bench --shape tiny-moe
one_line 'give a type'
run 2 bench --shape tiny-moe:q4_0,5
one_line 'layers must be 1 to 4'
run 2 bench --shape tiny-moe:q4_0 -m "$model"
one_line 'exclude each other'
run 2 bench --shape tiny-moe:q4_0 --pack-cache "$work"
one_line '--pack-cache keeps nothing'
run 2 bench -p 1,x
one_line "-p: 'x' is not a whole number"
run 2 bench --isa avx2,mmx
one_line "--isa: 'mmx' is none of"
run 2 bench -o yaml
one_line "-o: 'yaml' is none of md|csv|json"
run 2 run -r 3 -p x
one_line '-r is not used'
run 1 bench -m "$work/absent.gguf"
one_line 'absent.gguf'
finish
