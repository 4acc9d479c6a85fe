#!/usr/bin/env bash
# Language models trained on answers (task kind generate), real programs and a tiny Llama: the
# losses that PyTorch gives, tied and untied; a resume's bits; micro-batches and ranks; what
# `check`, `data` and the report say; what a user may do wrong.
. "$(dirname "$0")/common.sh"
python3 "$here/make_answers.py" "$dir"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
sft() { # NAME [settings of the stage]
    local name=$1 set=()
    shift
    for word in "$@"; do set+=(--set "stages.sft.$word"); done
    "$worker" job.yaml --out "$name" "${set[@]}" 2>err || fail "$name"
}
numbers() { # RUN SPLIT KEY
    python3 - "$@" <<'PY'
import json, sys
run, split, key = sys.argv[1:]
rows = map(json.loads, open(run + "/sft/metrics.jsonl"))
print(*[r[key] for r in rows if r["split"] == split])
PY
}
near() { # TOLERANCE A... -- B...
    python3 - "$@" <<'PY'
import sys
tolerance, words = float(sys.argv[1]), " ".join(sys.argv[2:]).split(" -- ")
a, b = ([float(x) for x in w.split()] for w in words)
assert len(a) == len(b) and a, (a, b)
assert all(abs(x - y) <= tolerance * max(1, abs(y)) for x, y in zip(a, b)), (a, b)
PY
}

echo "PyTorch's losses: 8 steps of AdamW over all rows"
# transformers 5.24, torch 2.15, f32: LlamaForCausalLM on the same ids, -100 on prompts.
whole=(epochs=8 batch=96 warmup=0 schedule=constant log_every=1 select=last)
sft torch "${whole[@]}"
near 2e-6 "$(numbers torch train loss)" -- 5.92833185 5.06534576 4.35800982 3.82323313 \
    3.36108661 2.99099874 2.47411442 2.10468817 || fail "losses"
near 1e-5 "$(numbers torch train grad_norm)" -- 3.69586062 3.18927622 2.1927011 \
    2.01280785 2.32083988 4.16094923 1.7181673 1.65342295 || fail "gradient norms"
near 2e-6 "$(numbers torch validation nll | awk '{ print $NF }')" -- 1.81039965 ||
    fail "validation"
near 1e-6 "$(numbers torch validation accuracy | awk '{ print $NF }')" -- 0.674603164 ||
    fail "accuracy"

echo "micro-batches and ranks do not matter"
sft micro "${whole[@]}" micro_tokens=200
near 2e-5 "$(numbers micro train loss)" -- "$(numbers torch train loss)" || fail "parts"
if [ -e "$bin/../lib/hone/hone-mpi.so" ] && command -v mpirun >/dev/null; then
    timeout 120 mpirun -n 2 --oversubscribe --bind-to none --quiet "$worker" job.yaml \
        --out ranks $(printf -- '--set stages.sft.%s ' "${whole[@]}") 2>err || fail "ranks"
    near 2e-5 "$(numbers ranks train loss)" -- "$(numbers torch train loss)" || fail "ranks"
fi

echo "a resume has the same bits"
sft run
for step in 3 9; do
    HONE_FAULT=step:$step:KILL "$worker" job.yaml --out cut 2>err && fail "it was not killed"
    "$worker" job.yaml --out cut --resume 2>err || fail "resume"
    cmp run/sft/final/model.safetensors cut/sft/final/model.safetensors || fail "bits"
    rm -rf cut
done

echo "what is left: a folder for transformers, tied or not"
python3 - <<'PY' || fail "final/"
import json
config = json.load(open("run/sft/final/config.json"))
assert config["architectures"] == ["LlamaForCausalLM"] and config["tie_word_embeddings"]
hone = json.load(open("run/sft/final/hone.json"))
assert hone["head"] == "causal", hone
test = json.load(open("run/summary.json"))["stages"]["sft"]["metrics"]["test"]
assert test["n"] == 24 and test["answer_tokens"] == 132, test
assert test["nll"] < 3 and abs(test["perplexity"] - 2.718281828459045 ** test["nll"]) < 1e-6
PY
mkdir untied
python3 "$here/make_answers.py" untied --untied
cd untied
"$worker" job.yaml --out run 2>../err || fail "untied"
python3 - <<'PY' || fail "untied final/"
import json, struct
def header(path):
    f = open(path, "rb")
    return json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
a, b = header("model/model.safetensors"), header("run/sft/final/model.safetensors")
assert a == b and "lm_head.weight" in a
PY
cd ..

echo "a model as it is, and what training made of it: stage eval"
expect 0 "$worker" job.yaml --out base --set 'stages={eval: {}}'
expect 0 "$worker" job.yaml --out both --set stages.eval.needs=[sft]
python3 - <<'PY' || fail "eval"
import json
def test(run, stage):
    return json.load(open(run + "/summary.json"))["stages"][stage]["metrics"]["test"]
base, sft, final = test("base", "eval"), test("both", "sft"), test("both", "eval")
assert base["nll"] > 5.4 and base["n"] == 24 and base["perplexity"] > 200, base
assert abs(final["nll"] - sft["nll"]) < 1e-9 and final["nll"] < 3, (final, sft)
PY

echo "check, data, report"
expect 0 "$hone" check job.yaml
prints "96 training, 24 validation, 24 test rows; answers; 64 tokens at most"
expect 0 "$hone" data show job.yaml
prints "  of responses                   541         126         132"
expect 0 "$hone" data export job.yaml --split test
prints '"prompt": "Tell me the colour of '
expect 2 "$hone" data prefer job.yaml
says "have no labels to prefer"
expect 0 "$hone" run job.yaml --out told
grep -q "perplexity" told/report.html || fail "the report does not say perplexity"

echo "what a user may do wrong"
sed 's/"response"/"answer"/' train.jsonl >keys.jsonl
expect 2 "$hone" check job.yaml --set data.train=keys.jsonl
says 'row 1: "response" is missing'
expect 0 "$hone" check job.yaml --set data.train=keys.jsonl \
    --set data.validation=keys.jsonl --set data.test=keys.jsonl \
    --set 'data.columns={response: answer}'
expect 2 "$hone" check job.yaml --set 'task={kind: generate, template: "no place"}'
says 'must have one {prompt} in it'
expect 2 "$hone" check job.yaml --set 'stages={rm: {}}'
says 'it is for task: {kind: classify}'
sed -i 's/"eos_token_id": [0-9]*/"eos_token_id": null/' untied/model/config.json
expect 2 "$hone" check untied/job.yaml
says 'no eos_token_id that would end an answer'
python3 "$here/make_tiny.py" bert --rows 8
expect 2 "$hone" check job.yaml --set model=bert/model
says 'bert models do not generate text'
printf '{"prompt": "no answer", "response": ""}\n' >>train.jsonl
expect 0 "$hone" check job.yaml
grep -q "1 rows without text are left out" out err || fail "an empty response"
echo "ok"
