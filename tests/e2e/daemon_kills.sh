#!/usr/bin/env bash
# SIGKILL of the daemon, a worker and the watching client at random times, over RUNS jobs
# (40) of WORKERS ranks (1, and each eighth job 2; with more than one mpirun is among the
# victims): every job ends in the same bits as an undisturbed one, its watcher has each
# event once, and no process is left.
. "$(dirname "$0")/common.sh"
runs=${RUNS:-40}
mpi=$bin/../lib/hone/hone-mpi.so
[ "${WORKERS:-1}" = 1 ] || [ -e "$mpi" ] || skip "built without MPI"
python3 "$here/make_tiny.py" "$dir"
set=(--set stages.sft.epochs=8 --set stages.rm.epochs=3 --set stages.ppo.epochs=4)
one=("${set[@]}")
RANDOM=${SEED:-1}

start_watch() { # goes on where the last one was
    local after
    after=$(python3 -c '
import json, sys
seen = 0
for line in open(sys.argv[1]):
    if line.endswith("\n"):
        seen = json.loads(line).get("seq", seen)
print(seen)' "$1")
    # What a killed one wrote last may be cut.
    python3 - "$1" <<'PY'
import sys
text = open(sys.argv[1]).read()
open(sys.argv[1], "w").write(text[: text.rfind("\n") + 1])
PY
    "$hone" watch "$job" --after "$after" --json >>"$1" 2>/dev/null &
    watch=$!
}

ranks_of() { # RUN: how many, in $ranks, and the job's settings in $set
    ranks=${WORKERS:-1}
    [ -z "${WORKERS:-}" ] && [ $(($1 % 8)) = 0 ] && [ -e "$mpi" ] && ranks=2
    set=("${one[@]}")
    [ "$ranks" = 1 ] || set+=(--set "resources.workers=$ranks" --set resources.threads=1)
}
for run in 1 8; do
    ranks_of $run
    [ -d "whole-$ranks" ] || "$hone" run job.yaml "${set[@]}" --out "whole-$ranks" >/dev/null 2>&1
done
start_honed
kills=0
for run in $(seq "$runs"); do
    ranks_of "$run"
    job=$("$hone" submit job.yaml "${set[@]}" --out "run-$run" --json |
        python3 -c 'import json,sys; print(json.load(sys.stdin)["job"]["id"])')
    losses=0
    : >events
    start_watch events
    for _ in $(seq $((1 + RANDOM % 3))); do
        sleep "0.$((RANDOM % 10))$((RANDOM % 10))"
        what=$((RANDOM % 3))
        # A third loss without any step between would be one too many for its budget.
        [ $what = 1 ] && [ $((losses += 1)) -gt 2 ] && what=0
        case $what in
        0)
            kill -KILL "$honed"
            wait "$honed" 2>/dev/null || true
            start_honed
            ;;
        1)
            mapfile -t victims < <(workers) # mpirun, if there is one, and ranks
            [ ${#victims[@]} = 0 ] ||
                kill -KILL "${victims[RANDOM % ${#victims[@]}]}" 2>/dev/null || true
            ;;
        2)
            kill -KILL "$watch" 2>/dev/null || true
            wait "$watch" 2>/dev/null || true
            start_watch events
            ;;
        esac
        kills=$((kills + 1))
    done
    wait "$watch" || fail "run $run: hone watch: exit status $?"
    [ -z "$(workers)" ] || fail "run $run: a worker is left"
    for stage in sft rm ppo; do
        cmp "whole-$ranks/$stage/final/model.safetensors" \
            "run-$run/$stage/final/model.safetensors" || fail "run $run: $stage differs"
    done
    python3 - "run-$run" <<'PY' || fail "run $run: events"
import json, sys
events = [json.loads(l) for l in open("events")]
events = [e for e in events if "seq" in e]
seqs = [e["seq"] for e in events]
assert seqs == list(range(1, len(seqs) + 1)), "a hole or a repeat"
points = {}
for e in events:
    if e["event"] == "metric":
        points.setdefault(e["stage"], []).append(json.dumps(e["data"]))
for stage in ("sft", "rm", "ppo"):
    want = [json.dumps(json.loads(l)) for l in open(f"{sys.argv[1]}/{stage}/metrics.jsonl")]
    got = points[stage]
    assert len(got) == len(set(got)), (stage, "a point came twice")
    assert set(want) <= set(got), (stage, "a point is missing")
PY
    "$hone" rm "$job" --yes --files >/dev/null
done
kill -TERM "$honed"
wait "$honed" || fail "honed: exit status $?"
honed=
echo "daemon kills: $runs runs, $kills kills: all well"
