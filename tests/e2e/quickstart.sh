#!/usr/bin/env bash
# deploy/quickstart.sh from end to end on the real model and ratings, shortened to a few
# rows. The full run's figures are in docs/PERFORMANCE.md.
set -eu
cd "$(dirname "$0")/../.."
if [ ! -e deploy/cache/model/config.json ] || [ ! -e deploy/cache/data ]; then
    echo "skipped: deploy/fetch.sh has not fetched the model and the data"
    exit 77
fi
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
head -n 300 deploy/cache/data/tweets_GroundTruth.txt >"$out/ratings.tsv"
deploy/quickstart.sh --model deploy/cache/model --data "$out/ratings.tsv" --out "$out/run" \
    --set data.limit=48 --set stages.sft.epochs=2 --set stages.ppo.epochs=1 \
    >"$out/stdout" 2>"$out/stderr" || { cat "$out/stdout" "$out/stderr"; exit 1; }
for want in "SFT + temperature" "ClaHF" "report.html"; do
    grep -qF "$want" "$out/stdout" || { echo "no \"$want\":"; cat "$out/stdout"; exit 1; }
done
for file in summary.json report.html sft/final/model.safetensors rm/final/hone.json \
    ppo/final/config.json ppo/metrics.jsonl; do
    [ -s "$out/run/$file" ] || { echo "no $file"; exit 1; }
done
python3 - "$out/run" <<'PY'
import json, sys
run = sys.argv[1]
summary = json.load(open(run + "/summary.json"))
assert summary["state"] == "done", summary["state"]
assert [r["name"] for r in summary["comparison"]] == ["SFT", "SFT + temperature", "ClaHF"]
first = json.loads(open(run + "/ppo/metrics.jsonl").readline())
assert first["ratio"] == 1, first
page = open(run + "/report.html").read()
assert page.count("<svg") > 10 and "http" not in page.replace("http://url", ""), "report"
PY
echo "quick start: passed"
