#!/usr/bin/env bash
# Groups of ranks under mpirun through faults, with a real honed: a restarted daemon adopts
# mpirun; the daemon dies while the group starts; mpirun is killed, or a rank stopped, while
# the daemon is down; a rank is stopped or killed under its eyes. Every job ends in the bits
# of an undisturbed run, each point is told once, and no process is left. What is lost is
# named, with host, rank, process, step and phase; what each loss may cost is bounded.
. "$(dirname "$0")/common.sh"
need_mpi
python3 "$here/make_tiny.py" "$dir"
two=(--set resources.workers=2 --set resources.threads=1 --set stages.sft.epochs=60
    --set stages.rm.epochs=3 --set stages.ppo.epochs=3 --set stages.sft.checkpoint_every=50)

group() { # process ids: mpirun | rank
    local pid name
    for pid in $(workers); do
        { read -r -d '' name <"/proc/$pid/cmdline"; } 2>/dev/null || continue
        case $1:${name##*/} in rank:hone-worker | mpirun:mpirun) echo "$pid" ;; esac
    done
    return 0
}
saved() { compgen -G "$1/sft/checkpoint-*/manifest.json" >/dev/null; }
ranks_run() { [ "$(group rank | wc -l)" = 2 ]; }
nobody() { [ -z "$(workers)" ]; }
same() { # RUN: as the undisturbed one; its events, each once
    within 120 ended "$job"
    [ "$(state "$job")" = done ] || fail "job $job is $(state "$job")"
    nobody || fail "a process is left"
    for stage in sft rm ppo; do
        cmp "whole/$stage/final/model.safetensors" "$1/$stage/final/model.safetensors" ||
            fail "$stage of $1 differs"
    done
    "$hone" watch "$job" --after 0 --json >events 2>err || fail "hone watch"
    python3 - "$1" <<'PY' || fail "the events of $1"
import json, sys
events = [json.loads(l) for l in open("events")]
seqs = [e["seq"] for e in events if "seq" in e]
assert seqs == list(range(1, len(seqs) + 1)), "a hole or a repeat"
for stage in ("sft", "rm", "ppo"):
    got = [json.dumps(e["data"]) for e in events
           if e["event"] == "metric" and e["stage"] == stage]
    want = [json.dumps(json.loads(l)) for l in open(f"{sys.argv[1]}/{stage}/metrics.jsonl")]
    assert len(got) == len(set(got)), (stage, "a point came twice")
    assert set(want) <= set(got), (stage, "a point is missing")
PY
}
noted() { grep -qE -- "$1" honed.log || fail "\"$1\" is no event"; }

"$hone" run job.yaml "${two[@]}" --out whole >out 2>err || fail "the undisturbed run"
start_honed

echo "a restarted daemon adopts mpirun"
submit adopt "${two[@]}"
within 60 saved adopt
before=$(group mpirun)
kill_honed
start_honed
noted "job $job: sft: honed is back, the worker goes on"
after=$(group mpirun)
[ "$after" = "$before" ] || grep -q "job $job: stage sft: done" honed.log || fail "another mpirun"
same adopt
! grep -q "job $job: .*restart" honed.log || fail "a stage began again"

echo "the daemon dies while the group starts"
for wait in 0 0.4; do
    submit "start-$wait" "${two[@]}"
    within 20 test -n "$(group mpirun)" || true
    sleep $wait
    kill_honed
    start_honed
    [ "$(group mpirun | wc -l)" -le 1 ] || fail "two groups"
    same "start-$wait"
done

echo "mpirun is killed while the daemon is down"
submit orphans "${two[@]}"
within 60 saved orphans
victim=$(group mpirun)
kill_honed
kill -KILL "$victim" || fail "mpirun was gone already"
start_honed
same orphans

echo "a rank is stopped while the daemon is down"
submit frozen "${two[@]}"
within 60 saved frozen
victim=$(group rank | tail -1)
kill -STOP "$victim"
kill_honed
sleep 3
start_honed
same frozen
noted "job $job: sft: .*restart 1 of"

echo "a rank is stopped under its eyes: named, ended, started again"
submit stopped "${two[@]}"
within 60 saved stopped
victim=$(group rank | tail -1)
kill -STOP "$victim"
since=$SECONDS
same stopped
[ $((SECONDS - since)) -lt 90 ] || fail "it took $((SECONDS - since)) s"
noted "job $job: sft: rank [01] on [^ ]* .*(pid|process) $victim.*step [0-9]+.*restart 1 of 3"

echo "a rank that lags is named, and goes on"
submit slow "${two[@]}" --set stages.sft.epochs=100000 --set stages.sft.log_every=1000 \
    --set stages.sft.eval_every=100000 --set stages.sft.checkpoint_every=100000
within 20 ranks_run
within 60 eval '[ "$("$hone" show "$job" --json |
    python3 -c "import json,sys; print(json.load(sys.stdin)[\"stages\"][0].get(\"progress\", {}).get(\"phase\"))")" = train ]'
victim=$(group rank | tail -1)
python3 - "$victim" <<'PY' || fail "the rank that lags has ended"
import os, signal, sys, time
until = time.time() + 45 # it stands still most of the time, half a second each
while time.time() < until:
    os.kill(int(sys.argv[1]), signal.SIGSTOP)
    time.sleep(0.5)
    os.kill(int(sys.argv[1]), signal.SIGCONT)
    time.sleep(0.1)
PY
"$hone" watch "$job" --after 0 --json >events 2>/dev/null &
watch=$!
sleep 1
kill $watch
grep -qE "rank [01] on [^ ]* \(pid $victim\) lags: the others waited for it [0-9]+ % of 20 s" events ||
    fail "it is no event"
"$hone" cancel "$job" --now >/dev/null
within 30 ended "$job"

echo "ranks that are killed, or crash, at every start: their budget, and no more"
for loss in "KILL 2" "SEGV 3"; do
    read -r signal budget <<<"$loss"
    kill_honed
    HONE_FAULT=step:3:$signal start_honed # without getting further than before
    submit "budget-$signal" "${two[@]}" --set stages.sft.checkpoint_every=100000
    within 100 ended "$job"
    [ "$(state "$job")" = failed ] || fail "job $job is $(state "$job")"
    noted "job $job: sft: .*restart $budget of $budget"
    [ "$("$hone" show "$job" --json | python3 -c 'import json,sys
print(json.load(sys.stdin)["stages"][0]["attempt"])')" -gt "$budget" ] || fail "too few attempts"
    nobody || fail "a process is left"
done
kill_honed
start_honed

echo "a configuration that is wrong at the start of the stage is not tried again"
cp job.yaml gone.yaml
cp train.jsonl gone.jsonl
sed -i 's/train.jsonl/gone.jsonl/' gone.yaml
expect 0 "$hone" submit gone.yaml "${two[@]}" --out gone --json
job=$(python3 -c 'import json; print(json.load(open("out"))["job"]["id"])')
rm gone.jsonl
if within 60 ended "$job" && [ "$(state "$job")" = failed ]; then
    ! grep -q "job $job: .*restart" honed.log || fail "wrong input was tried again"
fi
end_honed
echo "groups: all well"
