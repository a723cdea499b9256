#!/bin/sh
# tokenize, detokenize, template: round trips, special tokens, standard input, bad input.
. "$SOURCE_ROOT/tests/cli/support.sh"

round_trip() {
    printf %s "$1" >"$work/text"
    run 0 tokenize -f "$work/text"
    cp "$out" "$work/ids"
    in=$work/ids
    run 0 detokenize
    in=/dev/null
    check "round trip of $1" cmp -s "$out" "$work/text"
}
round_trip 'Once upon a time, there was a little fox.'
round_trip '  two spaces,	a tab and
a newline
'
round_trip 'ünïcödé 漢字 🦊'
round_trip '<|im_start|>user'
round_trip ''

run 0 tokenize -p 'Once upon a time'
check 'ids on one line' grep -qE '^[0-9]+( [0-9]+)*$' "$out"
cp "$out" "$work/ids"
printf 'Once upon a time' >"$work/text"
in=$work/text
run 0 tokenize
check 'standard input gives the same ids' cmp -s "$out" "$work/ids"
run 0 tokenize -p -
check '-p - reads standard input' cmp -s "$out" "$work/ids"
run 0 tokenize -f -
check '-f - reads standard input' cmp -s "$out" "$work/ids"
in=/dev/null
run 0 detokenize $(cat "$work/ids")
prints 'Once upon a time'
run 0 detokenize -f "$work/ids" --json
prints '{"text":"Once upon a time"}'
run 0 tokenize -p 'Once upon a time' --json
check 'ids as JSON' grep -qE '^\{"ids":\[[0-9]+(,[0-9]+)*\]\}$' "$out"
cp "$out" "$work/json"

# A special token is one id, unless it is asked to be plain text.
run 0 tokenize -p '<|im_end|>'
check 'a special token is one id' grep -qE '^[0-9]+$' "$out"
cp "$out" "$work/special"
run 0 tokenize -p '<|im_end|>' --no-special
check 'or its letters' grep -qE '^[0-9]+( [0-9]+)+$' "$out"
run 0 detokenize "$(cat "$work/special")"
prints '<|im_end|>'
run 0 detokenize --no-special "$(cat "$work/special")"
prints ''

run 1 detokenize 99999999
one_line 'not in the vocabulary'
run 1 detokenize -- -1
one_line 'not in the vocabulary'
run 1 detokenize 12x
one_line "'12x' is not a token id"
run 1 tokenize -f "$work/missing"
one_line "$work/missing: No such file"
run 1 tokenize -f "$work"
one_line "$work: Is a directory"

# Templates.
cat >"$work/messages" <<'END'
[{"role": "user", "content": "Tell me a story about a fox. {{ 1 + 1 }}"}]
END
run 0 template --messages "$work/messages"
check 'ChatML' grep -qF '<|im_start|>user' "$out"
check 'content is not evaluated' grep -qF 'a fox. {{ 1 + 1 }}' "$out"
check 'no answer begun' [ "$(grep -c assistant "$out")" -eq 0 ]
run 0 template --messages "$work/messages" --add-generation-prompt
check 'answer begun' grep -qF '<|im_start|>assistant' "$out"
in=$work/messages
run 0 template --messages -
check 'messages from standard input' grep -qF '<|im_start|>user' "$out"
in=/dev/null
printf '%s' '{{ greeting }}, {{ messages[0].role }}{% if not quiet %}!{% endif %}' >"$work/template"
run 0 template --messages "$work/messages" --template "$work/template" --var 'greeting="Hi"' \
    --var quiet=false
prints 'Hi, user!'
printf '%s' '{% frobnicate %}' >"$work/template"
run 1 template --messages "$work/messages" --template "$work/template"
one_line 'frobnicate'
run 2 template --messages "$work/messages" --var 'x={'
one_line '--var x: not JSON'
echo 'no json' >"$work/broken"
run 1 template --messages "$work/broken"
one_line 'messages'
: >"$work/empty"
run 1 template --messages "$work/empty"
one_line 'messages'
run 1 template --messages "$work/missing"
one_line 'No such file'
finish
