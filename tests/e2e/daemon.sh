#!/usr/bin/env bash
# A long-lived honed with the real programs and a tiny model: jobs side by side, paused and
# resumed in PPO, daemon and workers killed and stopped meanwhile; everything ends in the
# same bits as a run that nobody disturbed, and a watcher misses and repeats nothing.
. "$(dirname "$0")/common.sh"
python3 "$here/make_tiny.py" "$dir"
long=(--set stages.sft.epochs=30 --set stages.rm.epochs=8 --set stages.ppo.epochs=24)

same() {
    local f
    for f in sft rm ppo; do
        cmp "$1/$f/final/model.safetensors" "$2/$f/final/model.safetensors" ||
            fail "$f of $2 differs"
    done
    python3 - "$1" "$2" <<'PY' || fail "metrics of $2 differ"
import json, sys
def lines(run, stage): # without times and rates
    return [{k: v for k, v in json.loads(l).items()
             if not k.startswith("time") and k != "tokens_per_second"}
            for l in open(f"{run}/{stage}/metrics.jsonl")]
for stage in ("sft", "rm", "ppo"):
    a, b = lines(sys.argv[1], stage), lines(sys.argv[2], stage)
    if a != b:
        bad = next((p for p in zip(a, b) if p[0] != p[1]), (len(a), len(b)))
        print(stage, *bad, sep="\n")
        sys.exit(1)
PY
}

echo "an undisturbed run to compare with"
expect 0 "$hone" run job.yaml "${long[@]}" --out whole

echo "nobody there: exit 4 and what to do"
expect 4 "$hone" ps
says "start one with honed"
expect 2 "$hone" ps --to nowhere
says "no address"

echo "one daemon per state folder; its socket is ours alone"
start_honed
expect 2 "$bin/honed"
says "belongs to another honed"
[ "$(stat -c %a state/hone/socket)" = 600 ] || fail "mode of the socket"

echo "submit: problems all at once, the same request is one job"
expect 2 "$hone" submit job.yaml --set stages.sft.epoch=1 --set seeed=2
says "epochs"
says "seed"
checker() { # the process that forks checks
    local pid
    for pid in $(cat /proc/"$honed"/task/*/children); do
        tr '\0' ' ' <"/proc/$pid/cmdline" | grep -q -- "--checks" && echo "$pid"
    done
}
kill -KILL "$(checker)"
expect 2 "$hone" submit job.yaml --set stages.sft.epoch=1
says "epochs"
expect 0 "$hone" submit job.yaml "${long[@]}" --set resources.threads=1 --out one --request-id a
prints "job 1 tiny"
expect 0 "$hone" submit job.yaml "${long[@]}" --set resources.threads=1 --out one --request-id a
prints "job 1 tiny"
expect 2 "$hone" submit job.yaml --out one
says "holds another run"
expect 0 "$hone" submit job.yaml "${long[@]}" --set resources.threads=1 --out two
prints "job 2"
expect 0 "$hone" --complete watch ""
prints "$(printf '1\ttiny, ')"
expect 0 "$hone" --complete retry 2 ""
prints rm
expect 0 "$hone" submit job.yaml --set resources.threads=1 --out three --json
python3 -c 'import json; j=json.load(open("out"))["job"]; assert j["id"] == 3 and j["state"]=="queued", j'

echo "side by side as far as there are cores, each on its own"
"$hone" watch 1 --after 0 --json >events.1 2>/dev/null &
watcher=$!
await "one/sft/checkpoint-*"
python3 - "$("$hone" ps --json)" <<'PY' || fail "cores"
import json, os, sys
jobs = json.loads(sys.argv[1])["jobs"]
used = [c for j in jobs for s in j["stages"] if s["state"] == "running" for c in s["cores"]]
assert used and len(used) == len(set(used)) and set(used) <= os.sched_getaffinity(0), used
PY

expect 0 "$hone" nodes --json
python3 - <<'PY' || fail "nodes"
import json, socket
own, = json.load(open("out"))["nodes"]
assert own["host"] == socket.gethostname() and own["own"] and own["memory_free"] > 0, own
assert own["cores_used"] >= len({c for r in own["ranks"] for c in r["cores"]}) > 0, own
assert any(r["job"] == 1 and r["stage"] == "sft" and r["rank"] == 0 for r in own["ranks"])
PY
expect 0 "$hone" nodes
prints "job 1, sft, rank 0: process "

echo "the order of the queue follows priorities"
expect 0 "$hone" priority 3 5
expect 2 "$hone" priority 3 500
"$hone" ps | grep -q "  5  " || fail "no priority"

echo "honed killed: its workers go on, the next one takes them up, in under a second"
before=$(workers)
[ -n "$before" ] || fail "no worker runs"
kill_honed
sleep 0.5
[ -n "$(workers)" ] || fail "the workers died with it"
began=$(date +%s%N)
start_honed
took=$((($(date +%s%N) - began) / 1000000))
[ "$took" -lt 1000 ] || fail "it took $took ms"
grep -q "the worker goes on" honed.log || fail "no worker was taken up"

echo "a worker killed: started again from its checkpoint"
killed=
for _ in $(seq 500); do # between two stages there is none
    victims=$(workers)
    [ -n "$victims" ] && kill -KILL "${victims%%$'\n'*}" 2>/dev/null && killed=1 && break
    sleep 0.01
done
[ -n "$killed" ] || fail "no worker to kill"
await_state 1 done 120
wait "$watcher" || fail "hone watch: exit status $?"
await_state 3 done 120
await_state 2 done 120
await one/report.html # nobody asked for it
same whole one
same whole two
"$hone" watch 1 --after 0 --json >again.1

echo "the watcher over the restart has every event once"
python3 - <<'PY' || fail "events"
import json
def events(name):
    return [e for e in map(json.loads, open(name)) if "seq" in e]
live, again = events("events.1"), events("again.1")
seqs = [e["seq"] for e in live]
assert seqs == list(range(1, len(seqs) + 1)), "a hole or a repeat"
assert live == again, "what is kept differs from what was told"
points = {}
for e in live:
    if e["event"] == "metric":
        points.setdefault(e["stage"], []).append((e["attempt"], e["data"]))
for stage in ("sft", "rm", "ppo"):
    want = [json.loads(l) for l in open(f"one/{stage}/metrics.jsonl")]
    got = [d for _, d in points[stage]]
    for w in want:
        assert w in got, (stage, w)
    for attempt in {a for a, _ in points[stage]}:
        mine = [json.dumps(d) for a, d in points[stage] if a == attempt]
        assert len(mine) == len(set(mine)), (stage, "a point came twice")
PY

echo "paused and resumed in PPO, and the daemon killed while it is paused: the same bits"
expect 0 "$hone" submit job.yaml "${long[@]}" --out four
await "four/ppo/checkpoint-*"
expect 0 "$hone" pause 4
await_state 4 paused 20
[ ! -d four/ppo/final ] || fail "it was over before the pause"
[ -z "$(workers)" ] || fail "a worker runs on"
kill_honed
start_honed
[ "$(state 4)" = paused ] || fail "it is $(state 4)"
expect 0 "$hone" resume 4
await_state 4 done 60
same whole four

echo "a stage that ends while no daemon is there: nothing of it is lost"
expect 0 "$hone" submit job.yaml "${long[@]}" --stages sft --out away
job=$(sed -n 's/^job \([0-9]*\) .*/\1/p' out)
await "away/sft/checkpoint-*"
kill_honed
for _ in $(seq 600); do
    [ -z "$(workers)" ] && break
    sleep 0.1
done
[ -d away/sft/final ] || fail "the stage did not end"
start_honed
await_state "$job" done 20
"$hone" watch "$job" --after 0 --json >events.away
python3 - <<'PY' || fail "points are missing"
import json
want = [json.loads(l) for l in open("away/sft/metrics.jsonl")]
got = [e["data"] for e in map(json.loads, open("events.away")) if e["event"] == "metric"]
assert len(got) == len(want) and all(w in got for w in want), (len(got), len(want))
PY
expect 0 "$bin/honed" backup copy.db
expect 0 "$bin/honed" verify
expect 2 "$bin/honed" backup copy.db

echo "a worker that hangs is named, ended and started again"
expect 0 "$hone" submit job.yaml "${long[@]}" --out five
await "five/sft/checkpoint-*"
kill -STOP "$(workers "--stage sft")"
await_state 6 done 90
same whole five
"$hone" watch 6 --after 0 --json >events.5
grep -q 'rank 0 on .*(process [0-9]*) was not heard for' events.5 || fail "nobody is named"

echo "cancel, retry, skip, retry from a stage"
expect 0 "$hone" submit job.yaml "${long[@]}" --out six
await "six/sft/checkpoint-*"
expect 0 "$hone" cancel 7
await_state 7 stopped 20
expect 3 "$hone" watch 7
expect 2 "$hone" pause 7
expect 0 "$hone" retry 7
await_state 7 done 60
same whole six
expect 0 "$hone" retry 7 rm
await_state 7 done 60
same whole six
expect 0 "$hone" submit job.yaml "${long[@]}" --out seven
expect 2 "$hone" skip 8 rm # it has not begun
says "hone skip 8 ppo first"
expect 0 "$hone" skip 8 ppo
await_state 8 done 60
[ -d seven/rm/final ] && [ ! -d seven/ppo ] || fail "ppo was not skipped"

echo "a stage that runs is skipped: the others go on from what it has learned"
endless=(--set stages.sft.epochs=100000 --set stages.sft.checkpoint_every=20)
expect 0 "$hone" submit job.yaml "${endless[@]}" --out short
await "short/sft/checkpoint-*"
expect 0 "$hone" submit job.yaml --out models # it waits: there is no core left
for stage in ppo rm sft; do expect 0 "$hone" skip 10 "$stage"; done
await_state 10 done 20
expect 2 "$hone" retry 10 ppo # nobody has a model for it
says "stage ppo needs sft, which was skipped and has no model to give"
says "hone retry 10 sft begins with it"
[ "$(state 10)" = done ] || fail "something of it began"
expect 0 "$hone" skip 9 sft
await_state 9 done 60
python3 -c '
import json
s = json.load(open("short/summary.json"))
assert s["state"] == "done" and 20 <= s["stages"]["sft"]["steps"] < 1000000, s["stages"]
assert s["stages"]["sft"]["metrics"]["test"]["n"] == 24
h = json.load(open("short/ppo/final/hone.json"))' || fail "it was not handed on"
expect 0 "$hone" show 9
grep -q '^sft  *skipped' out || fail "it is not called skipped"
expect 0 "$hone" submit job.yaml "${endless[@]}" --out paused
await "paused/sft/checkpoint-*"
expect 0 "$hone" pause 11
await_state 11 paused 30
expect 0 "$hone" skip 11 sft # it ends when it goes on
expect 0 "$hone" resume 11
await_state 11 done 60
[ -d paused/ppo/final ] || fail "nothing came of it"

echo "a bad job is not tried again; logs, metrics, rm"
mkdir -p state/hone/notify
printf '#!/bin/sh\necho "$1 $2" >>%s/told\n' "$dir" >state/hone/notify/tell
chmod 755 state/hone/notify/tell
expect 2 "$hone" submit job.yaml --out eight --notify ../../told
{ echo "notify: tel"; cat job.yaml; } >notify.yaml
expect 2 "$hone" submit notify.yaml --out eight
says "notify.yaml:1:9: notify: $dir/state/hone/notify/tel is no program"
expect 0 "$hone" submit notify.yaml --out nine --notify tell # the flag stands for the key
sed -i 's/^notify: tel$/notify: tell/' notify.yaml
expect 0 "$hone" submit notify.yaml --out eight
job=$(sed -n 's/^job \([0-9]*\) .*/\1/p' out)
expect 0 "$hone" logs "$job" --follow
prints "sft: "
await told
grep -q "done $job" told || fail "notify"
expect 0 "$hone" metrics "$job" --stage ppo
prints '{"stage": "ppo", "step": '
expect 2 "$hone" rm "$job" </dev/null
expect 0 "$hone" rm "$job" --yes --files
[ ! -e eight ] || fail "the run folder is still there"
expect 2 "$hone" show "$job"

echo "ended and started again as it should be, nothing is left behind"
kill -TERM "$honed"
wait "$honed" || fail "honed: exit status $?"
start_honed --check-limit 0.001
for _ in $(seq 1600); do cat train.jsonl; done >much.jsonl # some tenths of a second
sed 's/train.jsonl/much.jsonl/' job.yaml >much.yaml
expect 1 "$hone" submit much.yaml --out late
says "the check took longer than 0.001 s"
[ ! -e late ] || fail "something half-done remains"
kill -TERM "$honed"
wait "$honed" || fail "honed: exit status $?"
honed=
[ -z "$(workers)" ] || fail "a worker is left"
echo "daemon: all well"
