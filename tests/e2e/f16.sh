#!/usr/bin/env bash
# resources.precision: f16 with the real worker and a tiny model: SFT to PPO stay near f32; a
# resume has the same bits, loss scale and overflows included; an overflow that does not
# recover ends with a message and a checkpoint; weights that f16 has no numbers for are
# refused by name. tf32 without a GPU is f32.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
worker=${HONE_BIN:?the folder of hone-worker}/hone-worker
[ -x "$worker" ] || { echo "skipped: $worker is not built"; exit 77; }
command -v python3 >/dev/null || { echo "skipped: python3 makes the tiny model"; exit 77; }

dir=$(mktemp -d /tmp/hone-f16-XXXXXX)
trap 'rm -rf "$dir"' EXIT
python3 "$here/make_tiny.py" "$dir" --rows 40
cd "$dir"

fail() {
    echo "FAILED: $*"
    [ -f err ] && sed 's/^/  | /' err | tail -8
    exit 1
}
run() { # STATUS NAME PRECISION [options]
    local want=$1 name=$2 precision=$3 got=0
    shift 3
    "$worker" job.yaml --out "$name" --set resources.device=cpu \
        --set resources.precision="$precision" "$@" >out 2>err || got=$?
    [ "$got" = "$want" ] || fail "exit status $got, not $want: $name"
}
says() { grep -qE -- "$1" "$2" || fail "\"$1\" was not said"; }

# put MODEL TENSOR VALUE: a model whose tensor begins with that number
put() {
    rm -rf "$1"
    cp -r model "$1"
    python3 - "$@" <<'PY'
import json, struct, sys
path, name, value = sys.argv[1] + "/model.safetensors", sys.argv[2], float(sys.argv[3])
raw = bytearray(open(path, "rb").read())
n = struct.unpack("<Q", raw[:8])[0]
at = 8 + n + json.loads(raw[8:8 + n])[name]["data_offsets"][0]
raw[at:at + 4] = struct.pack("<f", value)
open(path, "wb").write(raw)
PY
}

echo "near f32 in every stage, whichever of its two names it is called by"
run 0 f32 f32
run 0 whole fp16
says "matrix products in f16 by rounding" err
python3 - <<'PY' || fail "the numbers"
import json
compared = 0
for stage in ("sft", "rm", "ppo"):
    a, b = ([json.loads(x) for x in open(f"{run}/{stage}/metrics.jsonl")]
            for run in ("f32", "whole"))
    assert len(a) == len(b), stage
    for x, y in zip(a, b):
        assert "loss_scale" not in x and ("lr" not in y or y["loss_scale"] == 65536), y
        for key in ("loss", "nll", "grad_norm"):
            if key in x:
                assert abs(x[key] - y[key]) <= 5e-3 * max(1, abs(x[key])), (stage, key, x, y)
                compared += 1
assert compared > 40, compared
PY
says '"precision": "f16"' whole/sft/final/hone.json

echo "a resume has the same bits, and the loss scale of its checkpoint"
(export HONE_FAULT=step:8:TERM; run 3 cut f16 --stage sft)
at=$(find cut/sft -maxdepth 1 -name 'checkpoint-*' | sort -V | tail -1)
[ -d "$at" ] || fail "no checkpoint"
says '"loss_scale": "0x1p\+16"' "$at/state/trainer.json"
says "\"loss_scale_steps\": ${at##*-}\b" "$at/state/trainer.json"
run 0 cut f16 --stage sft --resume
cmp whole/sft/final/model.safetensors cut/sft/final/model.safetensors || fail "other bits"

echo "an overflow that does not recover ends with a message and a checkpoint"
put hot embeddings.LayerNorm.weight 1e6 # vectors stay f32; what they scale overflows
run 1 hot-run f16 --stage sft --set model=hot --set stages.sft.epochs=12 \
    --set stages.sft.warmup=0 --set stages.sft.checkpoint_every=50
says 'step 1 skipped: .* is not finite; the loss scale is 32768 now' err
says 'not finite for 24 steps in a row; it began at step 1 in ' err
says 'try: train in bf16 or f32 .*f16 ends at 65504.*hot-run/sft/checkpoint-24' err
says '"loss_scale": "0x1p-8"' hot-run/sft/checkpoint-24/state/trainer.json

echo "weights beyond f16 are refused by name; bf16 takes them"
put wide encoder.layer.1.attention.self.key.weight -70000
run 2 wide-run f16 --stage sft --set model=wide
says 'tensor .*encoder.layer.1.attention.self.key.weight holds -70000, and f16 ends at 65504' err
says 'try: set resources.precision to bf16 or f32' err
run 0 wide-bf16 bf16 --stage sft --set model=wide --set stages.sft.epochs=0.1

echo "tf32 is f32 here, and says so"
run 0 tf32 tf32 --stage sft
says 'only GPUs have tf32: matrix products are done in f32 here' err
cmp f32/sft/final/model.safetensors tf32/sft/final/model.safetensors || fail "tf32"
