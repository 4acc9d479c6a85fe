#!/usr/bin/env bash
# resources.precision with the real worker and a tiny model: a run in bf16 does not depend on
# threads, goes on bit for bit from a checkpoint that pins it, begins PPO with ratio 1, and
# says everywhere what it was; predict and eval take --precision.
. "$(dirname "$0")/common.sh"
export XDG_CACHE_HOME=$dir/cache
python3 "$here/make_tiny.py" "$dir" --rows 48
bf16="--set resources.precision=bf16"
cuts="--set stages.sft.checkpoint_every=2 --set stages.rm.checkpoint_every=2
    --set stages.ppo.checkpoint_every=2 --set stages.ppo.log_every=1"

says() { grep -qF -- "$1" "$2" || fail "\"$1\" was not said"; }

same() { # RUN: weights and answers are those of `whole`
    for s in sft rm ppo; do
        cmp "whole/$s/final/model.safetensors" "$1/$s/final/model.safetensors" ||
            fail "$1: $s has other weights"
    done
    cmp whole/ppo/predictions-test.jsonl "$1/ppo/predictions-test.jsonl" || fail "$1: answers"
}

echo "the run says that it is bf16, and is not f32"
# shellcheck disable=SC2086
expect 0 "$worker" job.yaml --out whole $bf16 $cuts
says "matrix products in bf16" err
# shellcheck disable=SC2086
expect 0 "$worker" job.yaml --out f32 --set resources.precision=f32 $cuts
says "matrix products in f32" err
for s in sft rm ppo; do
    says '"precision": "bf16"' "whole/$s/stage.json"
    says '"precision": "bf16"' "whole/$s/final/hone.json"
    says '"precision": "f32"' "f32/$s/stage.json"
    cmp -s "whole/$s/final/model.safetensors" "f32/$s/final/model.safetensors" &&
        fail "$s: bf16 changed nothing"
done
says '"precision": "bf16"' whole/summary.json
python3 - <<'PY' || fail "the first ratio"
import json
first = json.loads(open("whole/ppo/metrics.jsonl").readline())
assert first["ratio"] == 1 and first["kl"] == 0, first
PY

echo "threads do not matter"
# shellcheck disable=SC2086
expect 0 "$worker" job.yaml --out one $bf16 $cuts --set resources.threads=1
same one

echo "killed and resumed: the checkpoint keeps bf16 where the job says auto"
for s in sft rm ppo; do
    # shellcheck disable=SC2086
    HONE_FAULT=step:5:KILL expect 137 "$worker" job.yaml --out cut $bf16 $cuts --stage $s
    # shellcheck disable=SC2086
    expect 2 "$worker" job.yaml --out cut --set resources.precision=f32 $cuts --stage $s \
        --resume
    says "has checkpoints in bf16, the job asks for f32" err
    # shellcheck disable=SC2086
    expect 0 "$worker" job.yaml --out cut $cuts --stage $s --resume
    says "matrix products in bf16" err
    says "going on from checkpoint-" err # 4, or 2 where the writer had not got further
done
same cut

echo "predict and eval"
model=whole/sft/final
for p in bf16 f32; do
    expect 0 "$worker" predict --model $model --input test.jsonl --precision $p
    cp out "predict-$p"
    expect 0 "$worker" eval --model $model --data test.jsonl --precision $p --json
done
expect 0 "$worker" predict --model f32/sft/final --input test.jsonl
cp out predict-f32-run
python3 - <<'PY' || fail "answers"
import json
def probabilities(name):
    return [json.loads(line)["probabilities"] for line in open(name)]
bf16, f32 = probabilities("predict-bf16"), probabilities("predict-f32")
assert bf16 == probabilities("whole/sft/predictions-test.jsonl")
assert bf16 != f32
assert max(abs(a - b) for x, y in zip(bf16, f32) for a, b in zip(x, y)) < 0.05
assert probabilities("predict-f32-run") == probabilities("f32/sft/predictions-test.jsonl")
PY
expect 2 "$worker" predict --model $model --input test.jsonl --precision fp8
says "auto, f32, bf16, f16 or tf32" err

echo "check says what a run would take"
expect 0 "$worker" check job.yaml --json --set resources.precision=bf16
says '"precision": "bf16"' out
expect 0 "$worker" check job.yaml
says "matrix products in" out
echo passed
