#!/bin/sh
# Checks who includes whom. A stage includes base/, kernels/kernel.h and the stages to its left in
#
#     gguf -> model -> plan -> load -> forward -> sample -> text
#
# text/ stands apart (base/ and gguf/ only), kernels/ includes nothing of src/, and the command
# line includes the public header and bench/ only. usage: check-layers.sh SOURCE_ROOT
set -eu
cd "${1:-.}"

# What each folder may include, as an extended regular expression for the quoted part.
allowed() {
    kernel='kernels/kernel\.h'
    case $1 in
    base) echo "^base/|^$kernel" ;;
    gguf) echo "^(base|gguf)/|^$kernel" ;;
    model) echo "^(base|gguf|model)/|^$kernel" ;;
    plan) echo "^(base|gguf|model|plan)/|^$kernel" ;;
    load) echo "^(base|gguf|model|plan|load)/|^$kernel" ;;
    forward) echo "^(base|gguf|model|plan|load|forward)/|^$kernel" ;;
    sample) echo "^(base|gguf|model|plan|load|forward|sample)/|^$kernel" ;;
    text) echo "^(base|gguf|text)/" ;;
    cli) echo "^(cli|bench)/|^config\.h$" ;;
    esac
}

failures=0
# report FILES PATTERN: quoted includes of FILES that do not match PATTERN.
report() {
    wrong=$(grep -HnE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' $1 /dev/null |
        sed -E 's/^([^:]*:[0-9]+):.*"([^"]*)".*/\1 \2/' | awk -v ok="$2" '$2 !~ ok')
    [ -z "$wrong" ] || {
        echo "$wrong" | sed 's/$/ must not be included here/'
        failures=1
    }
}

checked=0
for stage in base gguf model plan load forward sample text cli; do
    files=$(find "src/$stage" -name '*.[ch]')
    [ -z "$files" ] || {
        report "$files" "$(allowed $stage)"
        checked=$((checked + 1))
    }
done
# Files of kernels/ name each other from the top or by a bare name.
report "$(find kernels -name '*.[ch]')" '^kernels/|^[^/]*$'
echo "$checked stages checked"
[ "$checked" -gt 0 ] && [ $failures -eq 0 ]
