#!/bin/sh
# NUMA for real: boots a small virtual machine with two emulated nodes (qemu, in software, no KVM
# needed) and runs the shipped model in it with every --numa mode. The text must be the same in all
# modes, and the kernel of the machine must find the weights where the mode puts them. The unit tests
# of threads and nodes run there too.
#
#     sh tests/numa-vm.sh [BUILD_DIR]        takes a minute and a half; not part of `meson test`
#
# Needs qemu-system-x86, busybox-static and cpio (Debian's names), and a kernel: Debian's package
# linux-image-*-cloud-amd64 is downloaded with apt-get unless KERNEL names a bzImage. Exits 77 where
# something is missing.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
build=${1:-$root/build}
model=$root/models/tinystories-moe-q4_0.gguf
work=$(mktemp -d "${TMPDIR:-/tmp}/tessera-vm-XXXXXX")
trap 'rm -rf "$work"' EXIT

skip() {
    echo "numa-vm: skipped: $1" >&2
    exit 77
}

for tool in qemu-system-x86_64 busybox cpio ldd gzip; do
    command -v $tool >/dev/null || skip "$tool is missing"
done
[ -x "$build/tessera" ] || skip "$build/tessera is not built"
libnuma=$(ldconfig -p | sed -n 's/.*libnuma\.so\.1 .*x86-64.* => //p' | head -n 1)
[ -n "$libnuma" ] || skip "libnuma1 is missing"

# ---- The kernel ----
if [ -z "${KERNEL:-}" ]; then
    (
        cd "$work"
        package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/ *Depends: //p' | head -n 1)
        [ -n "$package" ] && apt-get download -q "$package" && dpkg-deb -x ./*.deb kernel
    ) >"$work/kernel.log" 2>&1 || skip "no kernel (set KERNEL=bzImage): $(tail -n 1 "$work/kernel.log")"
    KERNEL=$(echo "$work"/kernel/boot/vmlinuz-*)
fi

# ---- The file system: busybox, tessera, its libraries, the model ----
fs=$work/fs
mkdir -p "$fs/bin" "$fs/proc" "$fs/sys" "$fs/dev" "$fs/tmp"
cp "$(command -v busybox)" "$fs/bin/busybox"
for applet in sh mkdir rm; do # test_cpu calls them
    ln -s busybox "$fs/bin/$applet"
done
cp "$build/tessera" "$fs/bin/tessera"
cp "$model" "$fs/model.gguf"
tests=
for test in cpu team topology two_engines; do
    [ ! -x "$build/tests/unit/test_$test" ] || tests="$tests $build/tests/unit/test_$test"
done
[ -z "$tests" ] || cp $tests "$fs/bin/" # a list of paths
mkdir -p "$fs$(dirname "$model")"
ln -s /model.gguf "$fs$model" # where test_two_engines looks for it
for file in $(ldd "$build/tessera" "$libnuma" $tests | sed -n 's/^[^/]*\(\/[^ ]*\) (0x.*/\1/p' | sort -u) \
            "$libnuma"; do
    mkdir -p "$fs$(dirname "$file")"
    cp -L "$file" "$fs$file"
done
cat >"$fs/init" <<'INIT'
#!/bin/busybox sh
PATH=/bin
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs dev /dev
echo # the kernel may have left a line unfinished
try() { # MODE THREADS THREADS_BATCH LIBNUMA
    echo "RUN $1 $2 $3 $4"
    tessera run -v -m /model.gguf -p "Once upon a time" -n 24 --temp 0 --numa $1 -t $2 -tb $3 \
        >/tmp/text 2>/tmp/report
    echo "STATUS $?"
    echo "TEXT $(busybox tr '\n' ' ' </tmp/text)"
    busybox sed 's/^/REPORT /' /tmp/report
}
for threads in "1 1" "1 2" "2 2" "4 4"; do
    for mode in none isolate interleave shard; do
        [ "$mode $threads" = "isolate 4 4" ] || try $mode $threads libnuma
    done
done
try isolate 3 3 libnuma
for test in /bin/test_*; do
    $test >/tmp/report 2>&1
    echo "TEST $? $(busybox basename $test)"
    busybox sed 's/^/OUTPUT /' /tmp/report
done
busybox rm $(busybox find / -xdev -name 'libnuma*')
for mode in none isolate interleave shard; do
    try $mode 2 2 none
done
echo "ALL DONE"
busybox poweroff -f
INIT
chmod +x "$fs/init"
(cd "$fs" && find . | cpio -o -H newc 2>/dev/null | gzip -1) >"$work/initrd"

# ---- The machine: two nodes of two CPUs and 512 MiB each ----
timeout 900 qemu-system-x86_64 -cpu max -accel tcg,thread=multi -smp 4 -m 1024 -nographic -no-reboot \
    -object memory-backend-ram,id=m0,size=512M -object memory-backend-ram,id=m1,size=512M \
    -numa node,nodeid=0,cpus=0-1,memdev=m0 -numa node,nodeid=1,cpus=2-3,memdev=m1 \
    -numa dist,src=0,dst=1,val=21 -kernel "$KERNEL" -initrd "$work/initrd" \
    -append "console=ttyS0 quiet panic=-1 rdinit=/init" </dev/null | tr -d '\r' >"$work/console"

# ---- The checks ----
# "pool cpu, part 0: 7.5 of 15.4 MiB lie on node 1" is share 0.49 of part 0 on node 1.
awk '
function check(ok, what) {
    checks++
    if (!ok) {
        failures++
        printf "FAILED: %s: %s\n", run, what
    }
}
function near(share, wanted) { return share > wanted - 0.05 && share < wanted + 0.05 }
function finish(   part, node) {
    if (run == "")
        return
    if (mode == "isolate" && threads == 3) {
        check(status == 1 && refusal, "three threads on a node of two CPUs are refused")
        return
    }
    check(status == 0, "status " status)
    if (expected == "")
        expected = text
    check(text == expected, "text differs: " text)
    printf "%-22s", run
    for (part = 0; part < 2; part++)
        for (node = 0; node < 2 && (part " " node) in share; node++)
            printf "  part %d on node %d: %3.0f%%", part, node, 100 * share[part " " node]
    printf "\n"
    if (library == "none") {
        check(n_shares == 0, "residency without libnuma")
        return
    }
    if (mode == "isolate")
        check(near(share["0 0"], 1) || near(share["0 1"], 1), "weights on both nodes")
    if (mode == "interleave")
        check(share["0 0"] > 0.4 && share["0 1"] > 0.4, "weights not spread evenly")
    if (mode == "shard" && threads_batch > 1)
        check(near(share["0 0"], 1) && near(share["1 1"], 1), "parts not on their nodes")
}
$1 == "RUN" {
    finish()
    run = substr($0, 5); mode = $2; threads = $3; threads_batch = $4; library = $5
    n_shares = refusal = 0
    split("", share)
}
$1 == "STATUS" { status = $2 }
$1 == "TEXT" { text = $0 }
/3 threads on 2 CPUs/ { refusal = 1 }
$1 == "REPORT" && /lie on node/ { share[($5 + 0) " " $NF] = $6 / $8; n_shares++ }
$1 == "TEST" {
    finish()
    run = $3
    check($2 == 0, "failed")
    print run ": status " $2
    run = ""
}
/^ALL DONE/ { finish(); done = 1 }
END {
    if (!done) {
        print "FAILED: the machine did not come to the end"
        failures++
    } else
        print substr(expected, 6)
    printf "numa-vm: %d checks, %d failed\n", checks, failures
    exit failures > 0
}' "$work/console" || {
    grep '^OUTPUT.*FAILED\|^OUTPUT.*\.c:' "$work/console" >&2 || tail -n 20 "$work/console" >&2
    exit 1
}
