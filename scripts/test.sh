#!/bin/sh
# Builds tessera with all warnings as errors and runs its tests:
#
#     gcc      the whole suite
#     clang    the quick tests
#     asan     the whole suite under AddressSanitizer and UndefinedBehaviorSanitizer
#     tsan     the engine tests under ThreadSanitizer
#
# The last line sums up. usage: sh scripts/test.sh [--quick]; --quick runs the quick tests of the
# gcc build only.
set -eu
cd "$(dirname "$0")/.."
. scripts/packages.sh

quick=false
case ${1:-} in
'') ;;
--quick) quick=true ;;
*)
    echo "usage: sh scripts/test.sh [--quick]" >&2
    exit 2
    ;;
esac

need_build_packages
need_library cmocka libcmocka-dev
$quick || need_tool clang clang
install_missing

passed=0 failed=0 skipped=0

# results RESULT...: how many tests of the log ended so.
results() {
    total=0
    for result; do
        n=$(grep -c "\"result\": \"$result\"" "$log") || :
        total=$((total + n))
    done
    echo $total
}

# stage NAME COMPILER MESON_OPTIONS TEST_OPTIONS: builds in build-NAME and tests. The options are
# lists of words.
stage() {
    folder=build-$1 log=build-$1/meson-logs/testlog.json
    printf '\n== %s ==\n' "$1"
    output=$(mktemp)
    { [ -e "$folder/build.ninja" ] || CC=$2 meson setup "$folder" -Dwerror=true $3; } >"$output" 2>&1 &&
        ninja -C "$folder" >>"$output" 2>&1 || {
        grep -E 'error|warning|ERROR|FAILED' "$output" || cat "$output"
        rm -f "$output"
        echo "the $1 build failed"
        failed=$((failed + 1))
        return
    }
    rm -f "$output" "$log"
    $run meson test -C "$folder" --no-rebuild --print-errorlogs $4 || :
    [ -e "$log" ] && [ "$(results '[A-Z]*')" -gt 0 ] || {
        echo "nothing was tested in $folder"
        failed=$((failed + 1))
        return
    }
    passed=$((passed + $(results OK EXPECTEDFAIL)))
    failed=$((failed + $(results FAIL ERROR TIMEOUT INTERRUPT UNEXPECTEDPASS)))
    skipped=$((skipped + $(results SKIP)))
}

run=
if $quick; then
    stage gcc gcc '' '--suite quick'
else
    stage gcc gcc '' ''
    stage clang clang '' '--suite quick'

    ASAN_OPTIONS=detect_stack_use_after_return=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
    export ASAN_OPTIONS UBSAN_OPTIONS
    sanitizer='-Dbuildtype=debugoptimized -Db_ndebug=false -Db_lundef=false -Db_sanitize'
    stage asan gcc "$sanitizer=address,undefined" '-t 5'

    # ThreadSanitizer wants its addresses where they were when it was built.
    TSAN_OPTIONS=halt_on_error=1
    export TSAN_OPTIONS
    ! setarch -R true 2>/dev/null || run='setarch -R'
    stage tsan gcc "$sanitizer=thread" '-t 10 --suite engine'
fi

printf '\n%d passed, %d failed, %d skipped\n' $passed $failed $skipped
[ $failed -eq 0 ] && [ $passed -gt 0 ]
