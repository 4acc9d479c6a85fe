#!/usr/bin/env bash
# Ranks with an emulated GPU each, summed by the emulated NCCL: the same bits as through host
# memory; the number of ranks, and the device, may change between stop and resume.
need=mpirun tiny_model="--rows 40"
. "$(dirname "$0")/common.sh"
export EMU_DEVICES=8 HONE_NCCL=$plugin

# ranks N RUN OPTION...: its exit status; what it said is in err.
bucket=8 # MiB; 0: measured
ranks() {
    local n=$1 run=$2
    shift 2
    timeout -k 5 120 mpirun --oversubscribe -np "$n" "$worker" job.yaml --out "$run" \
        --stage sft --set resources.device=cuda --set resources.precision=f32 \
        --set resources.bucket_mb="$bucket" --set stages.sft.log_every=1 "$@" >err 2>&1
}
same() {
    cmp "$1/sft/final/model.safetensors" "$2/sft/final/model.safetensors" ||
        fail "$1 and $2 differ"
}
near() { # A B TOLERANCE: losses of every step
    python3 - "$@" <<'PYTHON' || fail "losses of $1 and $2 differ"
import json, sys
def losses(run):
    lines = map(json.loads, open(f"{run}/sft/metrics.jsonl"))
    return [x["loss"] for x in lines if x["split"] == "train"]
x, y = losses(sys.argv[1]), losses(sys.argv[2])
worst = max(abs(p - q) / abs(p) for p, q in zip(x, y))
print(f"{sys.argv[1]} and {sys.argv[2]}: {len(x)} steps, largest relative difference {worst:.1e}")
sys.exit(len(x) != len(y) or len(x) < 10 or worst > float(sys.argv[3]))
PYTHON
}

# ---- the same bits on either way, whole and sharded ----
for layout in 2-false 2-true 4-true; do
    n=${layout%-*} shard=${layout#*-}
    ranks $n nccl$layout --set resources.shard_optimizer=$shard || fail "$n ranks"
    grep -q "sums over $n devices by NCCL" err || fail "NCCL was not used"
    HONE_NCCL=off ranks $n host$layout --set resources.shard_optimizer=$shard ||
        fail "$n ranks through host memory"
    grep -q "rank 0 on $host (device 0): no NCCL: HONE_NCCL=off" err ||
        fail "nothing was said of host memory"
    same nccl$layout host$layout
done
EMU_PROTECT=1 EMU_SEED=5 ranks 2 again || fail "another order of threads"
same nccl2-true again
near nccl2-true nccl4-true 1e-5

# ---- two bytes a gradient: near, and the same bits again ----
for shard in false true; do
    ranks 2 half-$shard --set resources.gradients=bf16 --set resources.shard_optimizer=$shard ||
        fail "two-byte gradients"
    grep -q "two bytes a gradient" err || fail "gradients did not travel in two bytes"
    near nccl2-true half-$shard 2e-3
done
ranks 2 half-again --set resources.gradients=bf16 || fail "two-byte gradients again"
same half-true half-again

# ---- 8 ranks, then 4, then 8, and CPUs in between ----
stop() { # N RUN STEP [OPTION...]
    local n=$1 run=$2 step=$3 got=0
    shift 3
    HONE_FAULT=step:$step:TERM ranks "$n" "$run" "$@" || got=$?
    [ $got = 3 ] || fail "a stop at step $step ended with $got"
}
stop 8 change 3
stop 4 change 3 --resume
ranks 8 change --resume || fail "8 ranks go on from 4"
near nccl2-true change 1e-5
stop 2 device 4
ranks 2 device --resume --set resources.device=cpu || fail "CPUs go on from GPUs"
near nccl2-true device 2e-3
stop 2 device2 4 --set resources.device=cpu
ranks 4 device2 --resume || fail "GPUs go on from CPUs"
near nccl2-true device2 2e-3

# ---- the size of buckets: measured, kept for the next run, and in a checkpoint ----
sized() { # WORDS
    grep -q "info sft: gradients go between devices in buckets of $1\$" err ||
        fail "buckets are not of \"$1\""
}
bucket=0
stop 2 sized 4
grep -q 'sums of 8, 16, 25 MiB: [0-9.]*, [0-9.]*, [0-9.]* GB/s' err || fail "nothing measured"
size=$(sed -n 's/.*buckets of \([0-9]*\) MiB$/\1/p' err)
case $size in 8 | 16 | 25) ;; *) fail "buckets of \"$size\" MiB" ;; esac
ranks 2 sized2 || fail "the same size again"
sized "$size MiB"
grep -q 'sums of 8' err && fail "measured again"
sed -i 's/"bucket_mb": *[0-9]*/"bucket_mb": 7/' cache/hone/bucket-*.json
ranks 2 sized --resume || fail "a size that is kept in a checkpoint"
sized "$size MiB, as in the checkpoint"
same sized sized2
bucket=1
ranks 2 small || fail "a size that was asked for"
sized "1 MiB"
same small sized2

# ---- hone doctor ----
EMU_DEVICES=2 EMU_NO_PEERS=1 "$worker" doctor >out 2>err || fail "hone doctor"
for words in 'GPU 1  to the device, from it (GB/s) .* reaches no other' \
    'all-reduce of 25 MB,  2 GPUs (GB/s)' 'all-reduce of one number (us)' \
    'warning: 1 of 1 pairs of GPUs do not reach each other'; do
    grep -q "$words" out || { cat out; fail "the doctor does not say \"$words\""; }
done
EMU_DEVICES=2 "$worker" doctor --json >out 2>err || fail "hone doctor --json"
python3 - <<'PYTHON' || fail "what the doctor measured of GPUs"
import json
g = json.load(open("out"))["gpu_speed"]
assert [d["peers"] for d in g["devices"]] == [[1], [0]], g
assert all(d["to_device_bytes"] > 0 and d["from_device_bytes"] > 0 for d in g["devices"])
assert g["all_reduce_bytes"]["25 MB"] > 0 and g["all_reduce_seconds"] > 0, g
PYTHON
EMU_DEVICES=2 HONE_NCCL=off "$worker" doctor >out 2>err || fail "hone doctor without NCCL"
grep -q 'all-reduce over the GPUs  *no NCCL: HONE_NCCL=off' out || fail "why there is no sum"
