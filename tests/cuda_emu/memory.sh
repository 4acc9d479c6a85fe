#!/usr/bin/env bash
# Device memory on the emulated back end: reserved before the first step (an allocation
# inside a step ends the program, tests/cuda_emu/emu_runtime.cc), micro-batches cut so that
# a stage fits, and an explanation with its mends where it does not. Every allocation that
# fails, the first, the second, ... until a run meets none, ends with a line that names the
# host and the device. `hone check` plans for a device that is not on its machine.
tiny_model="--rows 200"
. "$(dirname "$0")/common.sh"
device=(--set resources.device=cuda --set resources.precision=f32)
tiny=(--stage sft --set stages.sft.epochs=0.01 --set stages.sft.batch=4)

# ---- the n-th allocation ----
for call in cudaMalloc cudaMallocHost cublasLtCreate; do
    n=0
    while EMU_FAIL=$call:$n "$worker" job.yaml --out "$dir/$call-$n" "${device[@]}" \
        "${tiny[@]}" >out 2>&1 && status=0 || status=$?; [ $status != 0 ]; do
        [ $status = 1 ] || fail "$call:$n: exit $status" out
        grep -q "^hone: .*device 0 of $host" out || fail "$call:$n: no host, no device" out
        grep -q "^  try: \|: lower micro_tokens, or free the device" out ||
            fail "$call:$n: no mend" out
        n=$((n + 1))
        [ $n -lt 40 ] || fail "$call: never clean" out
    done
    [ $n -gt 0 ] || fail "$call: nothing failed" out
    echo "$call: $n failures end with a reason"
done

# ---- what fits ----
plan() { # MIB [options]: the plan as JSON
    local memory=$1
    shift
    EMU_MEMORY=$memory "$worker" check job.yaml --json "${device[@]}" "$@" >plan.json \
        2>plan.err || fail "check with $memory MiB" plan.err
}
field() {
    python3 -c 'import json, sys
s = json.load(open("plan.json"))["plan"]["stages"][0]
print(eval(sys.argv[1], s))' "$1"
}
plan 16384 --set stages.sft.batch=200
[ "$(field micro_tokens)" = 16384 ] || fail "all tokens at once" plan.json
large=$(field peak_bytes)
[ "$(field 'sum(v for k, v in memory.items() if k not in ("when", "program", "data", "exchange")) == peak_bytes')" = True ] ||
    fail "the parts add up" plan.json
plan 52 --set stages.sft.batch=200 --set resources.recompute=off
[ "$(field micro_tokens)" -lt 2048 ] || fail "smaller parts for a small device" plan.json
[ "$(field peak_bytes)" -lt $((52 << 20)) ] && [ "$large" -gt $((52 << 20)) ] ||
    fail "the plan fits" plan.json

# Layers are recomputed where parts would be too small without; no bit depends on it.
parts=$(field micro_tokens)
plan 52 --set stages.sft.batch=200
[ "$(field recompute)" = True ] && [ "$(field micro_tokens)" -gt "$parts" ] ||
    fail "recomputation for a small device" plan.json
[ "$(field peak_bytes)" -lt $((52 << 20)) ] || fail "the plan with recomputation fits" plan.json
parts=$(field micro_tokens)
plan 16384 --set stages.sft.batch=200
[ "$(field recompute)" = False ] || fail "recomputation for a large device" plan.json
small() { # NAME MIB [options]
    EMU_MEMORY=$2 "$worker" job.yaml --out "$dir/$1" "${device[@]}" --stage sft \
        --set stages.sft.batch=200 --set stages.sft.epochs=0.01 "${@:3}" >out 2>&1 || fail "$1" out
}
small small 52
grep -q "of device memory reserved, at most $parts tokens at once, layers recomputed" out ||
    fail "reserved" out
small large 16384 --set stages.sft.micro_tokens="$parts"
grep -q "of device memory reserved, at most $parts tokens at once$" out || fail "reserved" out
cmp small/sft/final/model.safetensors large/sft/final/model.safetensors ||
    fail "recomputed layers have other bits" out

# Many small tensors, whose blocks take more than their bytes.
python3 "$here/e2e/make_tiny.py" "$dir/deep" --rows 8 --layers 12
"$worker" deep/job.yaml --out "$dir/deep/run" --set resources.device=cuda \
    --set resources.precision=bf16 --stage sft >out 2>&1 || fail "a deep, narrow model" out

# ---- what does not ----
if EMU_MEMORY=52 "$worker" job.yaml --out "$dir/none" "${device[@]}" --stage sft \
    --set stages.sft.batch=200 --set stages.sft.micro_tokens=16384 \
    --set resources.recompute=off >out 2>&1; then
    fail "too large a micro-batch goes unnoticed" out
fi
grep -q "stage sft needs .* for 16384 tokens at once (weights .*, activations .*); .* of 55 MB are free" out ||
    fail "no explanation" out
grep -q "^  try: micro_tokens: [0-9]* (.*B); or recompute: on (.*B)" out || fail "no mend" out
[ ! -e "$dir/none/sft/metrics.jsonl" ] || fail "a step was taken" out
if EMU_MEMORY=20 "$worker" job.yaml --out "$dir/none3" "${device[@]}" "${tiny[@]}" >out 2>&1; then
    fail "20 MiB go unnoticed" out
fi
grep -q "^  try: take a device with more memory" out || fail "no last mend" out

# ---- a login node ----
HONE_CUDA_PLUGIN=$dir/absent.so "$worker" check job.yaml --set resources.device=cuda \
    >out 2>&1 || fail "check on a login node" out
grep -q 'warning: device "cuda" cannot be used on this machine' out || fail "a warning" out
grep -q '^device *program .* evaluation' out || fail "the table" out
grep -q 'of device memory$' out || fail "the peak" out
if HONE_CUDA_PLUGIN=$dir/absent.so "$worker" job.yaml --out "$dir/none2" \
    --set resources.device=cuda >out 2>&1; then
    fail "a run without the device" out
fi
grep -q 'device "cuda" cannot be used here: the plug-in .* is absent' out || fail "why" out
echo "plans, choices and explanations are right"
