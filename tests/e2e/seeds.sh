#!/usr/bin/env bash
# seeds: 3 through hone run: every figure of summary.json as mean, standard error and
# values, which belong together; the report shows them, one curve a seed, and no blanks.
set -u
bin=${HONE_BIN:?}
here=$(dirname "$0")
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 "$here/make_tiny.py" "$dir" >/dev/null
"$bin/hone" run "$dir/job.yaml" --set seeds=3 --out "$dir/run" >"$dir/out" 2>&1 ||
    { cat "$dir/out"; exit 1; }
grep -q '±' "$dir/out" || { echo "no standard errors in the table"; exit 1; }
python3 - "$dir/run" <<'PY'
import json, math, os, re, sys
run = sys.argv[1]
summary = json.load(open(run + "/summary.json"))
seeds = [json.load(open(f"{run}/seed-{k}/summary.json")) for k in (1, 2, 3)]
assert summary["seeds"] == 3

def check(path, merged, parts):
    """Numbers of the seeds against the merged tree."""
    n = 0
    for key, value in merged.items():
        each = [p.get(key) for p in parts]
        if isinstance(value, dict) and set(value) == {"mean", "se", "values"}:
            assert value["values"] == each, (path, key)
            mean = sum(each) / 3
            se = math.sqrt(sum((x - mean) ** 2 for x in each) / 2 / 3)
            assert abs(value["mean"] - mean) <= 1e-9 * max(1, abs(mean)), (path, key)
            assert abs(value["se"] - se) <= 1e-9 * max(1, abs(se)), (path, key)
            n += 1
        elif isinstance(value, dict):
            n += check(path + "/" + key, value, each)
    return n

n = check("stages", summary["stages"], [s["stages"] for s in seeds])
assert n > 60, n
for row, *each in zip(summary["comparison"], *[s["comparison"] for s in seeds]):
    x = [r["metrics"]["nll"] for r in each]
    assert abs(row["metrics"]["nll"] - sum(x) / 3) < 1e-9
    assert row["se"]["nll"] >= 0
page = open(run + "/report.html").read()
body = page[page.index("<body") :]
assert "nan" not in re.sub(r"<[^>]*>", " ", body).lower()
assert "over 3 seeds" in body and "seed by seed" in body and "seed-1/sft/final" in body
for name in summary["stages"]:
    loss = re.search(rf'aria-label="{name}: loss".*?</svg>', body, re.S).group(0)
    assert all(f">seed {k}<" in loss for k in (1, 2, 3)), name
acc = summary["stages"]["sft"]["metrics"]["test"]["nll"]
assert f"{acc['mean']:.4g} ± {acc['se']:.2g}" in body
print(f"{n} figures over 3 seeds; report of {len(page)} bytes")
PY
