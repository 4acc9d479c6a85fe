#!/usr/bin/env bash
# A whole tiny job (SFT, reward model, PPO) with the real worker on the emulated CUDA back
# end: its numbers agree with the CPU's, on one rank and two, a second run has the same bits,
# and what one device began the other continues. Every call of CUDA and cuBLASLt that fails ends the worker with
# one line that names the device.
tiny_model="--rows 40"
. "$(dirname "$0")/common.sh"
export HONE_NCCL=$plugin

train() { # NAME DEVICE [options]
    local name=$1 device=$2
    shift 2
    "$worker" job.yaml --out "$dir/$name" --set resources.device="$device" \
        --set resources.precision=f32 "$@" >"$name.out" 2>&1
}
must() {
    "$@" || fail "$*" "$2.out"
}
must train cpu cpu
EMU_PROTECT=1 must train cuda cuda # the worker never touches device memory
must train again cuda
for stage in sft rm ppo; do
    cmp cuda/$stage/final/model.safetensors again/$stage/final/model.safetensors
done
must train mixed cpu --stage sft
must train mixed cuda --stage rm
must train mixed cuda --stage ppo
must train bf16 cuda --set resources.precision=bf16 --stage sft
must train f16 cuda --set resources.precision=f16 # all stages, scaled

# A language model: its numbers are the CPU's, in f32; bf16 is near.
python3 "$here/e2e/make_answers.py" "$dir/words" --rows 24
answers() { # NAME DEVICE PRECISION
    EMU_PROTECT=1 "$worker" words/job.yaml --out "$dir/words-$1" --set resources.device="$2" \
        --set resources.precision="$3" --set stages.sft.log_every=1 >"$1.out" 2>&1
}
must answers host cpu f32
must answers device cuda f32
must answers rounded cuda bf16
python3 - <<'PYTHON'
import json
host, device, rounded = ([json.loads(x) for x in open(f"words-{n}/sft/metrics.jsonl")]
                         for n in ("host", "device", "rounded"))
assert len(host) == len(device) == len(rounded) > 6
for x, y, z in zip(host, device, rounded):
    for key in ("loss", "grad_norm", "nll", "entropy"):
        if key in x:
            assert abs(x[key] - y[key]) <= 1e-4 * max(1, abs(x[key])), (key, x[key], y[key])
            assert abs(x[key] - z[key]) <= 0.05 * max(1, abs(x[key])), (key, x[key], z[key])
PYTHON

# Two ranks, a device each; the optimizer whole and sharded.
runs="cuda mixed f16"
if command -v mpirun >/dev/null; then
    for shard in false true; do
        [ $shard = true ] && export EMU_PROTECT=1
        EMU_DEVICES=2 timeout -k 5 300 mpirun --oversubscribe -np 2 "$worker" \
            job.yaml --out "$dir/ranks-$shard" --set resources.device=cuda \
            --set resources.precision=f32 --set resources.shard_optimizer=$shard \
            >"ranks-$shard.out" 2>&1 ||
            fail "two ranks, sharded: $shard" "ranks-$shard.out"
        runs="$runs ranks-$shard"
    done
    unset EMU_PROTECT
fi

RUNS=$runs python3 - <<'PYTHON'
import json
import os

def rows(run, stage):
    return [json.loads(line) for line in open(f"{run}/{stage}/metrics.jsonl")]

compared = 0
for run in os.environ["RUNS"].split():
    tolerance = 5e-3 if run == "f16" else 2e-3
    for stage in ("sft", "rm", "ppo"):
        a, b = rows("cpu", stage), rows(run, stage)
        assert len(a) == len(b), (run, stage, len(a), len(b))
        for x, y in zip(a, b):
            for key in ("loss", "nll", "grad_norm"):
                if key in x:
                    near = abs(x[key] - y[key]) <= tolerance * max(1, abs(x[key]))
                    assert near, (run, stage, x["step"], key, x[key], y[key])
                    compared += 1
assert compared > 40, compared
a, b = rows("cpu", "sft"), rows("bf16", "sft")
assert all(abs(x["loss"] - y["loss"]) < 0.05 for x, y in zip(a, b) if "loss" in x)
print(compared, "numbers agree")
PYTHON

failing=0
for call in cudaMalloc:0 cudaMalloc:1 cudaMalloc:2 cudaMallocHost:0 cudaMemcpyAsync:0 \
    cudaMemcpyAsync:90 cudaMemsetAsync:3 cudaStreamSynchronize:2 cudaEventCreateWithFlags:0 \
    cudaStreamCreateWithFlags:0 cudaSetDevice:0 launch:0 launch:200 cublasLtCreate:0 \
    cublasLtMatmulAlgoGetHeuristic:1 cublasLtMatmul:40 cublasLtMatrixLayoutCreate:7; do
    rm -rf fails
    if EMU_FAIL=$call train fails cuda --stage sft; then
        fail "$call goes unnoticed" fails.out
    fi
    if ! grep -q '^hone: .*\(emulated GPU\|matmul\|memory\|cuda\)' fails.out; then
        fail "$call does not say what failed" fails.out
    fi
    failing=$((failing + 1))
done
must env EMU_FAIL=unfit:5 "$worker" job.yaml --out "$dir/unfit" --stage sft \
    --set resources.device=cuda >unfit.out 2>&1
echo "$failing failures end with a reason"

says() { # TEXT ENVIRONMENT...
    local text=$1
    shift
    if env "$@" "$worker" job.yaml --out "$dir/none" --set resources.device=cuda \
        >none.out 2>&1 || ! grep -q -e "$text" none.out; then
        fail "$*: does not say \"$text\"" none.out
    fi
}
says 'no device: no NVIDIA driver\|no CUDA-capable device' EMU_DEVICES=0
says 'the driver serves CUDA 11.4, this build needs' EMU_DRIVER=old
says 'compute capability 6.1, older than 7.0' EMU_CAPABILITY=61
says 'local rank 2 has no device of its own, this host shows 2' EMU_DEVICES=2 HONE_LOCAL_RANK=2
must env EMU_DEVICES=0 "$worker" job.yaml --out "$dir/auto" --stage sft >auto.out 2>&1
