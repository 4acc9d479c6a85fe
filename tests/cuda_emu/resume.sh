#!/usr/bin/env bash
# What one device began another continues, in each precision: a checkpoint written on the
# CPU goes on on the emulated GPU, and back; each agrees with the run that nothing stopped.
# On one device the resumed run has the same bits.
tiny_model="--rows 24"
. "$(dirname "$0")/common.sh"

train() { # STATUS NAME DEVICE PRECISION [options]
    local want=$1 name=$2 device=$3 precision=$4 got=0
    shift 4
    "$worker" job.yaml --stage sft --out "$dir/$name" --set resources.device="$device" \
        --set resources.precision="$precision" --set stages.sft.checkpoint_every=2 "$@" \
        >out 2>&1 || got=$?
    [ "$got" = "$want" ] || fail "$name: exit $got, not $want"
}

for precision in f32 bf16 f16 tf32; do
    for device in cpu cuda; do
        train 0 $device-$precision $device $precision
        other=$([ $device = cpu ] && echo cuda || echo cpu)
        for next in $device $other; do
            run=$device-$next-$precision
            (export HONE_FAULT=step:4:TERM; train 3 "$run" $device $precision)
            train 0 "$run" "$next" $precision --resume
            grep -q 'going on from checkpoint-' out || fail "$run began anew"
        done
        cmp $device-$precision/sft/final/model.safetensors \
            $device-$device-$precision/sft/final/model.safetensors
    done
done
python3 - <<'PYTHON'
import json
import struct

def rows(run):
    return [json.loads(line) for line in open(f"{run}/sft/metrics.jsonl")]

compared = 0
for precision, near in (("f32", 1e-3), ("tf32", 5e-3), ("f16", 5e-3), ("bf16", 3e-2)):
    for run in ("cuda", "cpu-cuda", "cuda-cpu"):
        a, b = rows(f"cpu-{precision}"), rows(f"{run}-{precision}")
        assert [x["step"] for x in a] == [x["step"] for x in b], (run, precision)
        for x, y in zip(a, b):
            for key in ("loss", "nll", "grad_norm"):
                if key in x:
                    off = abs(x[key] - y[key]) / max(1, abs(x[key]))
                    assert off <= near, (run, precision, x["step"], key, x[key], y[key])
                    compared += 1
            assert x.get("loss_scale") == y.get("loss_scale")
assert compared > 100, compared
print(compared, "numbers agree")
PYTHON
