#!/usr/bin/env bash
# What a long-lived honed keeps and allows: jobs of one owner, jobs that have ended. A limit
# is said before it bites, a refusal names the mend, and run folders stay.
set -euo pipefail
bin=${HONE_BIN:?}
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d /tmp/hone-e2e-XXXXXX)
honed=
tidy() {
    [ -z "$honed" ] || kill -KILL "$honed" 2>/dev/null || true
    rm -rf "$dir"
}
trap tidy EXIT
export TMPDIR=$dir XDG_STATE_HOME=$dir/state XDG_CONFIG_HOME=$dir/config
unset XDG_RUNTIME_DIR HONE_TO
python3 "$here/make_tiny.py" "$dir" >/dev/null
cd "$dir"
hone=$bin/hone

fail() {
    echo "FAILED: $*"
    [ -f err ] && sed 's/^/  | /' err
    exit 1
}
expect() { # STATUS COMMAND...
    local want=$1 got=0
    shift
    "$@" >out 2>err || got=$?
    [ "$got" = "$want" ] || fail "exit status $got, not $want: $*"
}
says() { grep -qF -- "$1" err || fail "\"$1\" was not said"; }
start_honed() {
    rm -f state/hone/socket
    "$bin/honed" "$@" >>honed.log 2>&1 &
    honed=$!
    for _ in $(seq 500); do
        "$hone" ps >/dev/null 2>&1 && return
        sleep 0.02
    done
    fail "honed does not start"
}
stop_honed() {
    kill -TERM "$honed"
    wait "$honed" || fail "honed: exit status $?"
    honed=
}

expect 2 "$bin/honed" --keep-jobs many
says "--keep-jobs"

echo "jobs of one owner that have not ended"
start_honed --max-open 3
expect 0 "$hone" submit job.yaml --out one
expect 0 "$hone" watch 1
expect 0 "$hone" submit job.yaml --set stages.sft.epochs=10000 --out two
expect 0 "$hone" pause 2
expect 0 "$hone" submit job.yaml --set stages.sft.epochs=10000 --out three
! grep -q "refused then" err || fail "a warning too early"
expect 0 "$hone" pause 3
expect 0 "$hone" submit job.yaml --out four
says "has 2 of 3 jobs that have not ended: submits are refused then"
expect 0 "$hone" pause 4
expect 0 "$hone" ps
says "hone: warning: "
expect 5 "$hone" submit job.yaml --out five
says "has 3 jobs that have not ended, and 3 are allowed"
says "try: wait for one to end, or hone cancel one"
[ ! -e five ] || fail "something is left of it"
expect 5 "$hone" retry 1 sft
for job in 2 3 4; do
    expect 0 "$hone" cancel "$job" --now
    expect 3 "$hone" watch "$job"
done
expect 0 "$hone" retry 1 sft
expect 0 "$hone" watch 1
stop_honed

echo "jobs that have ended"
start_honed --keep-jobs 3 --max-state 1000
"$hone" top --json >out
python3 -c '
import json
s = json.load(open("out"))
assert int(s["ended_limit"]) == 3 and int(s["ended"]) in (3, 4), s
assert 0 < int(s["state_bytes"]) < 2 ** 20, s'
for _ in $(seq 100); do
    "$hone" show 1 >/dev/null 2>&1 || break
    sleep 0.1
done
expect 2 "$hone" show 1
expect 0 "$hone" show 2
[ ! -e state/hone/events/1 ] && [ -e state/hone/events/2 ] || fail "events"
[ -d one/sft/final ] && [ -d two ] || fail "a run folder is gone"
stop_honed
start_honed --keep-days 0.000001
expect 2 "$hone" show 4
[ -d four ] || fail "a run folder is gone"
stop_honed

echo "the events of one job"
start_honed --max-events 0.02
expect 0 "$hone" submit job.yaml --set stages.sft.epochs=20 --set stages.sft.log_every=1 --out many
job=$(sed -n 's/^job \([0-9]*\) .*/\1/p' out)
"$hone" watch "$job" --after 0 --json >followed # keeps up: misses nothing
"$hone" watch "$job" --after 0 --json >late
python3 - "$job" <<'PY' || fail "events"
import json, os, sys
size = os.path.getsize(f"state/hone/events/{sys.argv[1]}")
assert 5000 < size <= 0.02 * 2**20, size
late = [json.loads(l) for l in open("late")]
assert late[0]["event"] == "gap" and late[0]["dropped"] == late[0]["seq"] > 100, late[0]
seqs = [e["seq"] for e in late]
assert seqs == list(range(seqs[0], seqs[-1] + 1)), seqs
assert late[-1]["state"] == "done"
followed = [json.loads(l) for l in open("followed")]
seqs = [e["seq"] for e in followed if "seq" in e]
assert seqs == list(range(1, seqs[-1] + 1)) and late[-1]["seq"] == seqs[-1]
assert any("three quarters" in e.get("text", "") for e in followed)
points = sum(e["event"] == "metric" and e["stage"] == "sft" for e in followed)
assert points == sum(1 for l in open("many/sft/metrics.jsonl")), points
PY
expect 0 "$hone" metrics "$job" --stage sft
[ "$(wc -l <out)" = "$(wc -l <many/sft/metrics.jsonl)" ] || fail "metrics"
stop_honed

echo "the state folder"
start_honed --max-state 0.01
expect 5 "$hone" submit job.yaml --out six
says "try: hone rm jobs that have ended, or start honed with more --max-state"
stop_honed
echo "limits: all well"
