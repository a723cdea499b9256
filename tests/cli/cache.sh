# --pack-cache: made at the first start, mapped at the next, replaced when it is of no use.
. "$SOURCE_ROOT/tests/cli/support.sh"
folder=$work/cache
mkdir "$folder"
cp "$model" "$work/model.gguf" || exit 1

# with_cache LINE [FLAG...]: the same text as without, and a report of LINE.
with_cache() {
    line=$1
    shift
    run 0 run -m "$work/model.gguf" -p "Once upon" -n 12 --temp 0 -v --pack-cache "$folder" "$@"
    check "the same text ($line)" cmp -s "$out" "$work/plain"
    grep -qF -e "$line" "$err" || failed "the report does not say: $line"
}
run 0 run -m "$work/model.gguf" -p "Once upon" -n 12 --temp 0
cp "$out" "$work/plain"

with_cache "there is none yet: packing"
check "one file" test "$(ls "$folder" | wc -l)" -eq 1
file=$folder/$(ls "$folder")
with_cache ".pack: mapped"

# patch OFFSET BYTE: damages the file.
patch() {
    printf "$2" | dd of="$file" bs=1 seek="$1" conv=notrunc 2>/dev/null
}
good_again() {
    with_cache "$1: packing"
    with_cache ".pack: mapped"
}
patch 0 X
good_again "its header is damaged"
patch 8 '\377'
good_again "it is of another version of tessera"
patch 40 '\377\377'
good_again "its header is damaged"
patch 4100 '\252\125\252'
good_again "its contents are damaged"
size=$(wc -c <"$file")
truncate -s $((size - 5000)) "$file"
good_again "it was cut short"
: >"$file"
good_again "its header is damaged"
touch -d '2001-02-03 04:05:06' "$work/model.gguf"
good_again "the model's file has changed"

# A line without -v, as it is worth knowing.
patch 0 X
run 0 run -m "$work/model.gguf" -p "Once upon" -n 12 --temp 0 --pack-cache "$folder"
grep -qF "its header is damaged" "$err" || failed "damage is not reported"

# What an interrupted process left is used again; another level has a file of its own.
echo rubbish >"$file.tmp"
rm "$file"
with_cache "there is none yet: packing"
check "nothing is left over" test ! -e "$file.tmp"
run 0 run -m "$work/model.gguf" -p "Once upon" -n 12 --temp 0 -v --isa scalar --pack-cache "$folder"
check "a file for each level" test "$(ls "$folder" | wc -l)" -eq 2

# ---- A folder that cannot be written ----
for bad in "$work/none" "$work/model.gguf"; do
    run 1 run -m "$work/model.gguf" -p x -n 1 --pack-cache "$bad"
    one_line "$bad"
done

# ---- Ctrl-C, whenever it comes ----
# --foreground: timeout would send a second one, to its whole group, which ends the program at once.
for delay in 0.004 0.008 0.012 0.016 0.02 0.03 0.05 0.1; do
    rm -f "$folder"/*
    checks=$((checks + 1))
    timeout --foreground -s INT -k 30 --preserve-status $delay \
        "$TESSERA" run -m "$work/model.gguf" -p "Once upon" --ignore-eos -n 20000 -c 30000 \
        --pack-cache "$folder" >/dev/null 2>&1
    status=$?
    [ $status -eq 130 ] || failed "interrupted after $delay s: exit status $status"
    [ -z "$(find "$folder" -name '*.tmp')" ] || failed "left over after $delay s"
done
finish
