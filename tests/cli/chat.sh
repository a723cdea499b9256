#!/bin/sh
# tessera chat: through a pipe, and as a person types it.
. "$SOURCE_ROOT/tests/cli/support.sh"

printf 'Tell me a story about a fox.\nTell me a story about a cow.\n' >"$work/turns"
in=$work/turns
run 0 chat -n 12 --temp 0
check 'an answer for each line' [ "$(wc -l <"$out")" -ge 2 ]
check 'nothing on standard error' [ ! -s "$err" ]
run 0 chat -n 12 --temp 0 -sys 'You tell stories.'
run 1 chat -c 8
one_line 'the context'
in=/dev/null
run 0 chat
check 'no turns, no words' [ ! -s "$out" ]
printf '%s' '{% frobnicate %}' >"$work/template"
in=$work/turns
run 1 chat --template "$work/template"
one_line frobnicate
in=/dev/null

"$TERMINAL" "$TESSERA" chat -n 30 --temp 0 <<'END'
prompt >
type Tell me a story about a fox.
expect story about a fox.
prompt >
type a message \
prompt .
type of two lines
prompt >
type /help
expect /clear
prompt >
type /clear
prompt >
type /nonsense
expect unknown command /nonsense
prompt >
key ctrl-c
expect ^C
prompt >
type /exit
status 0
END
check 'a conversation' [ $? -eq 0 ]
check 'history is kept' grep -q fox "$XDG_STATE_HOME/tessera/history"

"$TERMINAL" "$TESSERA" chat -q --ignore-eos --isa scalar -t 1 -c 20000 <<'END'
prompt >
type Tell me a story about a fox.
expect story about a fox.
expect e
key ctrl-c
prompt >
type /clear
prompt >
key ctrl-d
status 0
END
check 'Ctrl-C stops the answer, not the program' [ $? -eq 0 ]
finish
