#!/usr/bin/env bash
# What people see: hone watch, run, top and ps on terminals of several widths, without
# colours, on a dumb one and in a file; over a restart of the daemon.
. "$(dirname "$0")/common.sh"
export LC_ALL=C.UTF-8 TERM=xterm
unset NO_COLOR

on() { # COLUMNS LINES SECONDS COMMAND...: the screen in out; nothing wraps, all is known
    local got=0
    python3 "$here/terminal.py" "$@" >out 2>err || got=$?
    [ "$got" = 0 ] || [ "$got" = 130 ] || fail "exit status $got: ${*:4}"
    grep -q 'unknown \[\]$' out || fail "strange bytes: ${*:4}"
}
fits() { grep -q 'wrapped 0,' out || fail "lines wrap"; }
shows() { grep -qE -- "$1" out || fail "\"$1\" is not on the screen"; }
hides() { ! grep -qE -- "$1" out || fail "\"$1\" is on the screen"; }

python3 "$here/make_tiny.py" "$dir"
start_honed
expect 0 "$hone" submit job.yaml --out one
expect 0 "$hone" watch 1

echo "hone watch: bars, figures as far as they fit, curves"
for columns in 40 80 200; do
    on $columns 24 20 "$hone" watch 1
    fits
    shows '^sft +█+ step 24/24'
    shows '^ +loss [▁▂▃▄▅▆▇█]+$'
    shows '^ppo .*done in '
    shows '^ +loss [▁▂▃▄▅▆▇█]+  reward ?[▁▂▃▄▅▆▇█]*'
done
shows '^rm .*top1_accuracy 0\.[0-9]+  done'
hides 'colours 0,'
on 80 4 20 "$hone" watch 1 # less room than stages: those that run, and a sum
fits
shows '^3 stages:  3 done'
NO_COLOR=1 on 80 24 20 "$hone" watch 1
shows '^sft '
shows 'colours 0,'
LC_ALL=C on 80 24 20 "$hone" watch 1
shows '^sft +#+ step'
hides '[▁▂▃▄▅▆▇█]'
TERM=dumb on 200 24 20 "$hone" watch 1 --after 0
shows '^escapes 0,'
shows '^sft: step 24/24 .*done in'
expect 0 "$hone" watch 1 --after 0
! grep -q $'\033' err out || fail "escape sequences in a file"

echo "hone top: clipped, drawn in place; once where nothing can be redrawn"
for columns in 40 80 200; do
    on $columns 10 1.5 "$hone" top
    fits
    shows '^0 running, 0 queued'
    shows '^ +1  tiny  done'
done
TERM=dumb on 200 24 20 "$hone" top
shows '^escapes 0,'
expect 0 "$hone" top
! grep -q $'\033' out || fail "escape sequences in a file"

echo "both go on over a restart of the daemon"
expect 0 "$hone" submit job.yaml --set stages.sft.epochs=40 --out two
await "two/sft/checkpoint-*"
python3 "$here/terminal.py" 100 12 60 "$hone" watch 2 >watched 2>&1 &
watcher=$!
python3 "$here/terminal.py" 100 12 8 "$hone" top >topped 2>&1 &
topper=$!
for _ in $(seq 300); do # until both are there, and the worker
    "$hone" top --json | python3 -c 'import json, sys
s = json.load(sys.stdin)
sys.exit(not (s["watchers"] == 1 and s["connections"] >= 4))' && break
    sleep 0.05
done
kill_honed
sleep 1
start_honed
wait $watcher || fail "hone watch: $(cat watched)"
grep -q '^ppo .*done in' watched || fail "hone watch: $(cat watched)"
grep -q 'trying again$' watched || fail "hone watch is silent about it: $(cat watched)"
wait $topper || true
grep -q '^ *2  tiny' topped || fail "hone top: $(cat topped)"

echo "hone run draws the same"
on 160 24 60 "$hone" run job.yaml --out three
fits
shows '^ppo +█+ step .*done in '
shows 'report.html'
echo "terminal: all well"
