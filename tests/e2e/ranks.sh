#!/usr/bin/env bash
# Several ranks under the real mpirun with a tiny model: losses that do not depend on their
# number, checkpoints that any number goes on from, ranks that are killed or stopped, and
# what a user may do wrong.
. "$(dirname "$0")/common.sh"
need_mpi
python3 "$here/make_tiny.py" "$dir"
every=(--set resources.precision=f32
    --set stages.sft.log_every=1 --set stages.rm.log_every=1 --set stages.ppo.log_every=1
    --set stages.sft.dropout=0.1 --set stages.rm.dropout=0.1 --set stages.ppo.dropout=0.1)

# ranks N ARGUMENT...: hone-worker on N ranks; what it said is in err.
ranks() {
    local n=$1
    shift
    timeout 120 mpirun -n "$n" --oversubscribe --bind-to none --quiet \
        "$bin/hone-worker" "$@" >out 2>err
}

says_once() { [ "$(grep -cF -- "$1" err)" = 1 ] || fail "\"$1\" was not said once"; }

# same_losses A B STAGE: every step's loss agrees within 1e-6.
same_losses() {
    python3 - "$1" "$2" "$3" <<'PY' || fail "losses of $3 in $1 and $2 differ"
import json, sys
a, b, stage = sys.argv[1:]
def losses(run):
    lines = map(json.loads, open(f"{run}/{stage}/metrics.jsonl"))
    return [x["loss"] for x in lines if x["split"] == "train"]
x, y = losses(a), losses(b)
worst = max(abs(p - q) / abs(p) for p, q in zip(x, y))
print(f"{stage}: {a} and {b}: {len(x)} steps, largest relative difference {worst:.1e}")
sys.exit(len(x) != len(y) or len(x) < 10 or worst > 1e-6)
PY
}

# PPO starts from the same SFT and reward model everywhere.
one() {
    expect 0 ranks 1 job.yaml --out w1 "${every[@]}"
    for n in 2 4; do
        expect 0 ranks $n job.yaml --out w$n "${every[@]}"
        same_losses w1 w$n sft
        mkdir p$n
        cp -r w1/job.yaml w1/job.resolved.yaml w1/sft w1/rm p$n
        expect 0 ranks $n job.yaml --out p$n --stage ppo "${every[@]}"
        same_losses w1 p$n ppo
        rm -rf p$n
        mkdir p$n
        cp -r w1/job.yaml w1/job.resolved.yaml w1/sft p$n
        expect 0 ranks $n job.yaml --out p$n --stage rm "${every[@]}"
        same_losses w1 p$n rm
    done
    grep -q ', 2 ranks' w2/log || fail "the log does not say that there were two"
    expect 0 ranks 3 job.yaml --out whole3 "${every[@]}" --stage sft \
        --set resources.shard_optimizer=false
    same_losses w1 whole3 sft
}
one

# The same number of ranks gives the same bits, also when it was stopped on the way.
expect 0 ranks 2 job.yaml --out again "${every[@]}" --stage sft
cmp -s w2/sft/final/model.safetensors again/sft/final/model.safetensors ||
    fail "two ranks did not repeat their bits"
HONE_FAULT=step:8:TERM expect 3 ranks 2 job.yaml --out stopped "${every[@]}" --stage sft
says_once "stopped on request"
cp -r stopped other
expect 0 ranks 2 job.yaml --out stopped "${every[@]}" --stage sft --resume
cmp -s w2/sft/final/model.safetensors stopped/sft/final/model.safetensors ||
    fail "a resume with as many ranks changed the bits"
cmp -s w2/sft/checkpoint-24/state/optimizer.safetensors \
    stopped/sft/checkpoint-24/state/optimizer.safetensors ||
    fail "a resume with as many ranks changed the optimizer's state"
cp -r other other1
expect 0 ranks 3 job.yaml --out other "${every[@]}" --stage sft --resume
same_losses w1 other sft
expect 0 ranks 1 job.yaml --out other1 "${every[@]}" --stage sft --resume
same_losses w1 other1 sft

# hone run starts mpirun itself.
"$bin/hone" run job.yaml --out run2 --set resources.workers=2 "${every[@]}" >out 2>err ||
    fail "hone run with two workers"
cmp -s w2/ppo/final/model.safetensors run2/ppo/final/model.safetensors ||
    fail "hone run and mpirun gave different bits"
(
    mkdir -p bare
    for p in python3 bash; do ln -sf "$(command -v $p)" bare/; done
    PATH=$dir/bare expect 2 "$bin/hone" run job.yaml --out none \
        --set resources.workers=2 >out 2>err
    says "mpirun, which is not in PATH"
    says "install openmpi-bin, or set resources.workers to 1"
)

# Wrong from the start: nothing is trained, one message.
expect 2 ranks 3 job.yaml --out few --set stages.sft.batch=2 --stage sft
says_once "3 ranks, but a batch has 2 examples"
sed 's/lr: 1e-3/lr: 2e-3/' job.yaml >else.yaml
got=0
timeout 60 mpirun --oversubscribe --quiet -n 1 "$bin/hone-worker" job.yaml --out two : \
    -n 1 "$bin/hone-worker" else.yaml --out two >out 2>err || got=$?
[ $got = 2 ] || fail "different job files: exit status $got"
says_once "rank 1 on $(hostname) has a job file that differs"
expect 2 ranks 2 job.yaml --out w2 "${every[@]}" --stage sft
says_once "try: go on with it with --resume"

# A rank that dies, or stands still, ends the job with one message.
long=(--stage sft --set stages.sft.epochs=100000 --set stages.sft.log_every=100000
    --set stages.sft.eval_every=1000000 --set stages.sft.checkpoint_every=20)

pid_of_rank() { # RUN RANK
    for p in $(pgrep -f -- "$bin/hone-worker job.yaml --out $1 "); do
        tr '\0' '\n' <"/proc/$p/environ" 2>/dev/null |
            grep -qx "OMPI_COMM_WORLD_RANK=$2" && echo "$p" && return
    done
    fail "rank $2 of $1 is not there"
}

# lose RUN SIGNAL RANK SECONDS WORDS
lose() {
    local got=0 pid since
    ranks 3 job.yaml --out "$1" "${long[@]}" &
    for _ in $(seq 600); do
        compgen -G "$1/sft/checkpoint-*0/manifest.json" >/dev/null && break
        sleep 0.05
    done
    pid=$(pid_of_rank "$1" "$3")
    since=$SECONDS
    kill "-$2" "$pid"
    wait $! || got=$?
    [ $got != 0 ] || fail "rank $3 was lost, and the job ended well"
    [ $((SECONDS - since)) -le "$4" ] || fail "it took $((SECONDS - since)) s to notice"
    says_once "rank $3 on $(hostname) (pid $pid) $5"
    says "resume goes on from $1/sft/checkpoint-"
    sleep 0.3
    if pgrep -f -- "$bin/hone-worker job.yaml --out $1 " >/dev/null; then fail "orphans"; fi
}
lose killed KILL 1 15 "was killed or crashed at step"
lose first KILL 0 15 "was killed or crashed at step"
lose still STOP 2 30 "has not moved for 10 s (is it stopped?) at step"
echo "all is well"
