#!/usr/bin/env bash
# CUDA graphs of training steps on the emulated back end: the same bits as kernels launched
# one by one, with dropout, after a resume, on two ranks whose sums divide backward; a step
# whose shapes were met before is a few launches; whatever of a capture fails leaves the
# bits alone and is said once; a launch that fails ends with a reason.
tiny_model="--rows 8" # one batch: the same shapes at every step
. "$(dirname "$0")/common.sh"

train() { # STATUS NAME [options]
    local want=$1 name=$2 got=0
    shift 2
    $worker job.yaml --stage sft --out "$dir/$name" --set resources.device=cuda \
        --set resources.precision=bf16 --set stages.sft.epochs=5 "$@" >out 2>&1 || got=$?
    [ "$got" = "$want" ] || fail "$name: exit $got, not $want"
}
same() {
    cmp "$1/sft/final/model.safetensors" "$2/sft/final/model.safetensors" ||
        fail "$1 and $2 differ"
}
last() { # FILE COLUMN: of the last step
    awk -v name="$2" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == name) at = i }
        END { print $at }' "$1"
}

HONE_CUDA_GRAPHS=off EMU_COUNT=off.count train 0 off
EMU_PROTECT=1 EMU_COUNT=on.count train 0 on
same off on
[ "$(last off.count graphs)" = 0 ] && [ "$(last off.count kernels)" -gt 60 ] ||
    fail "graphs that were not wanted"
[ "$(last on.count graphs)" -ge 2 ] && [ "$(last on.count graphs)" -le 4 ] &&
    [ "$(last on.count kernels)" -le 4 ] && [ "$(last on.count products)" = 0 ] ||
    fail "a step that is no graph: $(tail -1 on.count)"
grep -q 'no more CUDA graphs' out && fail "a warning for nothing"
echo "the last step: $(last off.count kernels) kernels, $(last off.count products) products and" \
    "$(last off.count copies) copies without, $(last on.count graphs) graphs," \
    "$(last on.count kernels) kernels and $(last on.count copies) copies with"

(export HONE_FAULT=step:3:TERM; train 3 resumed --set stages.sft.checkpoint_every=2)
train 0 resumed --resume --set stages.sft.checkpoint_every=2
grep -q 'going on from checkpoint-' out || fail "the run began anew"
same off resumed

for call in cudaStreamBeginCapture:0 cudaStreamEndCapture:1 cudaGraphInstantiate:0; do
    EMU_FAIL=$call train 0 "$call"
    [ "$(grep -c 'no more CUDA graphs, kernels are launched one by one: ' out)" = 1 ] ||
        fail "$call: not one warning"
    same off "$call"
done
EMU_FAIL=cudaGraphLaunch:1 train 1 launch
grep -q '^hone: .*emulated GPU.*launch of a graph' out || fail "a launch fails without a reason"

command -v mpirun >/dev/null || { echo "skipped: two ranks: there is no mpirun"; exit 0; }
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 EMU_DEVICES=2 HONE_NCCL=$plugin
one=$worker
worker=run
run() { timeout -k 5 60 mpirun --oversubscribe -np 2 "$one" "$@"; }
train 0 two
grep -q 'sums over 2 devices by NCCL' out || fail "NCCL was not used"
HONE_CUDA_GRAPHS=off train 0 two-off
same two two-off
