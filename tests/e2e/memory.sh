#!/usr/bin/env bash
# hone check's memory plan against the measured peak of each stage, on a model of real size
# ($HONE_MODEL) and real texts: SFT, reward model (K = 5), PPO; short and long, whole
# batches and micro-batches, with recomputed layers too, which take less. Within 10 %.
set -u
bin=${HONE_BIN:?}
model=${HONE_MODEL:-}
data=${HONE_SHARED:-../shared}/data/sst5
[ -d "$model" ] || { echo "skipped: HONE_MODEL is not a model's folder"; exit 77; }
[ -d "$data" ] || { echo "skipped: $data is not here"; exit 77; }
model=$(realpath "$model")
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
head -n 400 "$data/train.jsonl" >"$dir/train.jsonl"
head -n 100 "$data/validation.jsonl" >"$dir/validation.jsonl"
head -n 100 "$data/test.jsonl" >"$dir/test.jsonl"
cat >"$dir/job.yaml" <<YAML
name: memory
model: $model
task:
  labels: [very negative, negative, neutral, positive, very positive]
  order: ordinal
  prefix: sentence
  candidate: "Prediction: the sentence is {label}"
data: {train: train.jsonl, validation: validation.jsonl, test: test.jsonl}
resources: {precision: f32}
stages:
  sft: {steps: 3, batch: 16}
  rm: {steps: 2, batch: 8, needs: [sft]}
  ppo: {steps: 3, batch: 16, needs: [sft, rm]}
YAML
status=0

# compare RUN STAGES ARGS...: plan, run the stages, hold both against one another.
compare() {
    local run=$dir/$1 stages=$2 stage
    shift 2
    "$bin/hone" check "$dir/job.yaml" --json "$@" >"$run.json" || { status=1; return; }
    for stage in $stages; do
        "$bin/hone-worker" "$dir/job.yaml" --stage "$stage" --out "$run" "$@" \
            >"$run.log" 2>&1 || { cat "$run.log"; status=1; return; }
    done
    python3 - "$run" "$stages" <<'PY' || status=1
import json, sys
run, stages = sys.argv[1], sys.argv[2].split()
plan = {s["name"]: s for s in json.load(open(run + ".json"))["plan"]["stages"]}
bad = 0
for name in stages:
    p = plan[name]
    measured = json.load(open(f"{run}/{name}/stage.json"))["peak_bytes"]
    parts = sum(v for k, v in p["memory"].items() if k != "when")
    off = p["peak_bytes"] / measured - 1
    print(f"{name}: planned {p['peak_bytes'] / 1e6:.1f} MB, measured {measured / 1e6:.1f} MB, {off:+.1%}")
    bad += abs(off) > 0.1 or parts != p["peak_bytes"]
sys.exit(bad > 0)
PY
}

compare whole "sft rm ppo"
compare long sft --set stages.sft.batch=64 --set stages.sft.steps=2
compare again sft --set stages.sft.batch=64 --set stages.sft.steps=2 --set resources.recompute=on
python3 - "$dir" <<'PY' || status=1
import json, sys
long, again = (json.load(open(f"{sys.argv[1]}/{name}/sft/stage.json"))["peak_bytes"]
               for name in ("long", "again"))
print(f"recomputed layers: {again / 1e6:.1f} MB in place of {long / 1e6:.1f} MB")
sys.exit(again > 0.8 * long)
PY
compare parts sft --set stages.sft.batch=32 --set stages.sft.micro_tokens=256
compare short sft --set stages.sft.batch=4 --set data.max_tokens=24
exit $status
