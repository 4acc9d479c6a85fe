#!/usr/bin/env bash
# hone run with the real programs and a tiny model: a whole job, then every process killed
# in turn, ctrl-C, two runs in one folder; what is resumed ends in the same bits as a run
# that nobody disturbed.
. "$(dirname "$0")/common.sh"
python3 "$here/make_tiny.py" "$dir"
# More steps for the runs that are disturbed; some milliseconds each.
long=(--set stages.sft.epochs=12 --set stages.rm.epochs=4 --set stages.ppo.epochs=4)

gone() { # PID SECONDS
    for _ in $(seq $(($2 * 50))); do
        [ -d "/proc/$1" ] || return 0
        grep -q '^State:.*Z' "/proc/$1/status" 2>/dev/null && return 0
        sleep 0.02
    done
    return 1
}

child() { # of process $1, whose command is $2
    for _ in $(seq 500); do
        local pid
        for pid in $(cat /proc/"$1"/task/*/children 2>/dev/null); do
            [ "$(basename "$(readlink "/proc/$pid/exe")" 2>/dev/null)" = "$2" ] &&
                tr '\0' ' ' <"/proc/$pid/cmdline" | grep -q -- "${3:-}" &&
                echo "$pid" && return
        done
        sleep 0.02
    done
    fail "no $2 below process $1"
}

# The same bits in all that a run leaves, but for times and rates.
same() {
    local f
    for f in sft/final/model.safetensors rm/final/model.safetensors \
        ppo/final/model.safetensors; do
        cmp "$1/$f" "$2/$f" || fail "$f differs"
    done
    python3 - "$1" "$2" <<'PY' || fail "metrics differ"
import json, sys
TIMES = {"time", "seconds", "tokens_per_second", "elapsed"}
def lines(run, stage):
    out = []
    for line in open(f"{run}/{stage}/metrics.jsonl"):
        o = json.loads(line)
        out.append({k: v for k, v in o.items()
                    if k not in TIMES and not k.startswith("time_")})
    return out
for stage in ("sft", "rm", "ppo"):
    a, b = lines(sys.argv[1], stage), lines(sys.argv[2], stage)
    if a != b:
        bad = next((p for p in zip(a, b) if p[0] != p[1]), (len(a), len(b)))
        print(stage, *bad, sep="\n")
        sys.exit(1)
PY
}

start() { # hone run in the background: its process id in $pid
    "$hone" run job.yaml "${long[@]}" --out "$1" "${@:2}" >out 2>err &
    pid=$!
}

ended() { # STATUS: of the run in the background
    local got=0
    wait "$pid" || got=$?
    [ "$got" = "$1" ] || fail "exit status $got, not $1"
}

tidy() {
    ! ls -d hone-?????? 2>/dev/null || fail "a private folder is left"
}

echo "a whole job"
expect 0 "$hone" run job.yaml --json
[ -f runs/tiny-1/report.html ] || fail "no report"
python3 - <<'PY' || fail "events"
import json
events = [json.loads(l) for l in open("out")]
assert events[-1]["event"] == "end" and events[-1]["state"] == "done", events[-1]
steps = {e["stage"] for e in events if e["event"] == "progress" and e["phase"] == "train"}
assert steps == {"sft", "rm", "ppo"}, steps
s = json.load(open("runs/tiny-1/summary.json"))
assert s["state"] == "done" and set(s["stages"]) == {"sft", "rm", "ppo"}
PY
tidy

echo "an undisturbed run to compare with"
expect 0 "$hone" run job.yaml "${long[@]}" --out whole
grep -q "ClaHF" out || fail "no table"
says "ppo: step"

echo "a folder that holds a run is refused, with --resume it is finished already"
expect 2 "$hone" run job.yaml "${long[@]}" --out whole
says "holds another run"
expect 0 "$hone" run job.yaml "${long[@]}" --out whole --resume
expect 2 "$hone" run job.yaml "${long[@]}" --set seed=2 --out whole --resume
says "job.resolved.yaml"

echo "problems: all of them, and nothing is started"
expect 2 "$hone" run job.yaml --set stages.sft.epoch=1 --set seeed=2 --out bad
says "epochs"
says "seed"
[ ! -e bad ] || fail "a folder was made"
tidy

echo "ctrl-C saves and stops, --resume goes on to the same bits"
start stopped
await stopped/sft/checkpoint-5
kill -INT "$pid"
ended 3
says "--resume"
[ ! -d stopped/sft/final ] || fail "it was over before ctrl-C"
expect 0 "$hone" run job.yaml "${long[@]}" --out stopped --resume
same whole stopped

echo "the worker killed"
start worker
await worker/sft/checkpoint-5
kill -KILL "$(child "$(child "$pid" honed)" hone-worker)"
ended 1
says "stage sft: hone-worker was ended by signal 9"
says "worker/log"
python3 -c '
import json
s = json.load(open("worker/summary.json"))
assert s["state"] == "failed" and "signal 9" in s["message"], s
assert s["stages"]["sft"]["state"] == "failed", s' || fail "the summary does not say so"
expect 0 "$hone" run job.yaml "${long[@]}" --out worker --resume
same whole worker

echo "honed killed: the worker saves and stops within 2 s"
start daemon
await daemon/sft/checkpoint-5
honed=$(child "$pid" honed)
worker=$(child "$honed" hone-worker)
kill -KILL "$honed"
gone "$worker" 2 || fail "the worker lives on"
ended 1
says "honed was ended by signal 9"
[ ! -d daemon/sft/final ] || fail "it was over before"
expect 0 "$hone" run job.yaml "${long[@]}" --out daemon --resume
same whole daemon

echo "hone killed: honed and the worker end within 2 s; --resume waits for them"
start command
await command/sft/checkpoint-5
honed=$(child "$pid" honed)
worker=$(child "$honed" hone-worker)
kill -KILL "$pid"
ended 137
expect 0 "$hone" run job.yaml "${long[@]}" --out command --resume
gone "$worker" 1 || fail "the worker lives on"
gone "$honed" 2 || fail "honed lives on"
same whole command
tidy

echo "two at once in one folder: the second is refused"
start both
await both/sft/checkpoint-5
expect 2 "$hone" run job.yaml "${long[@]}" --out both
says "holds another run"
kill -INT "$pid"
ended 3

echo "killed in the reward model and in PPO"
for stage in rm ppo; do
    start "in-$stage"
    await "in-$stage/$stage/metrics.jsonl"
    kill -KILL "$(child "$(child "$pid" honed)" hone-worker "--stage $stage")" || true
    ended 1
    says "stage $stage: hone-worker was ended by signal 9"
    expect 0 "$hone" run job.yaml "${long[@]}" --out "in-$stage" --resume
    same whole "in-$stage"
done
tidy

echo "a loss that does not fall is said, and ends nothing"
flat=(--stages sft --set stages.sft.lr=0 --set stages.sft.epochs=30)
expect 0 "$hone" run job.yaml "${flat[@]}" --out flat
says "hone: sft: the training loss has not fallen for 100 steps"
grep -q '"stalled": 100' flat/sft/metrics.jsonl || fail "metrics.jsonl does not say it"
expect 0 "$hone" run job.yaml "${flat[@]}" --set stages.sft.stall=off --out calm
! grep -q "not fallen" err || fail "it was said, and was off"
expect 0 "$hone" run job.yaml "${flat[@]}" --set stages.sft.stall=off --out flat --resume

echo "several seeds"
expect 0 "$hone" run job.yaml --set seeds=2 --out seeds
[ -d seeds/seed-1/ppo/final ] && [ -d seeds/seed-2/ppo/final ] || fail "a seed is missing"
expect 2 "$hone" run job.yaml --set seeds=2 --stages sft --out other
says "--stages and seeds do not go together"
echo "hone run: all well"
