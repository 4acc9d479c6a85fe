#!/usr/bin/env bash
# seeds: N, with the real programs. `hone run` has them side by side and leaves what one
# worker leaves that does them in turn: every figure of summary.json as mean, standard error
# and values, which belong together; the report shows them, one curve a seed, and no blanks.
# A long-lived honed: of a killed worker its own seed alone is begun again; a seed that
# fails is named, the others finish, and a retry completes the whole.
. "$(dirname "$0")/common.sh"
python3 "$here/make_tiny.py" "$dir" >/dev/null

same() { # RUN RUN SEEDS
    for k in $(seq "$3"); do
        for stage in sft rm ppo; do
            cmp "$1/seed-$k/$stage/final/model.safetensors" \
                "$2/seed-$k/$stage/final/model.safetensors" || fail "other bits"
        done
    done
}

echo "hone run, and one worker by itself"
"$hone" run job.yaml --set seeds=3 --out run >out 2>&1 || fail "hone run"
grep -q '±' out || fail "no standard errors in the table"
"$bin/hone-worker" job.yaml --set seeds=3 --out serial >out 2>&1 || fail "hone-worker"
same run serial 3
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
serial = json.load(open(run + "/../serial/summary.json"))
for name, stage in summary["stages"].items():
    assert stage["metrics"] == serial["stages"][name]["metrics"], name
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

echo "side by side; a killed worker is begun again, and it alone"
"$bin/honed" >honed.log 2>&1 &
honed=$!
await state/hone/socket
long=(--set seeds=2 --set stages.sft.epochs=120)
"$bin/hone-worker" job.yaml "${long[@]}" --out whole >out 2>&1 || fail "hone-worker"
"$hone" submit job.yaml "${long[@]}" --out two >out 2>&1 || fail "submit"
if [ "$(nproc)" -gt 1 ]; then
    await two/seed-1/sft/metrics.jsonl
    await two/seed-2/sft/metrics.jsonl
    [ -n "$(workers "--stage seed-1/sft")" ] && [ -n "$(workers "--stage seed-2/sft")" ] || fail "not side by side"
fi
await two/seed-2/sft/metrics.jsonl
kill -KILL "$(workers "--stage seed-2/sft")"
"$hone" ps >out
grep -q '4 waiting, seed-1/sft \|5 waiting' out || fail "ps"
await_state 1 done 180
same two whole 2
"$hone" show 1 --json | python3 -c '
import json, sys
job = json.load(sys.stdin)
tries = {s["name"]: s["attempt"] for s in job["stages"]}
assert tries.pop("seed-2/sft") == 2 and set(tries.values()) == {1}, tries
assert len(tries) == 5, tries'

echo "a seed that fails is named, the others finish, a retry completes it"
"$hone" submit job.yaml "${long[@]}" --out three >out 2>&1 || fail "submit"
await three/seed-2/sft
touch three/seed-2/rm # where its folder has to be
await_state 2 failed 180
"$hone" show 2 >out
grep -q '1 of 2 seeds failed: stage seed-2/rm: ' out || fail "it is not named"
[ -d three/seed-1/ppo/final ] || fail "seed 1 did not finish"
python3 -c '
import json
s = json.load(open("three/summary.json"))
assert s["state"] == "failed" and s["seeds"] == 2 and s["seeds_done"] == [1], s
assert len(s["stages"]["ppo"]["metrics"]["test"]["nll"]["values"]) == 1
s = json.load(open("three/seed-2/summary.json"))
assert s["state"] == s["stages"]["rm"]["state"] == "failed" and "rm" in s["message"], s
assert s["stages"]["sft"]["state"] == "done", s
s = json.load(open("three/seed-1/summary.json"))
assert s["state"] == "done", s'
"$hone" report three >out 2>&1 || fail "report"
grep -q '1 of 2 seeds' three/report.html || fail "the report says nothing of it"
rm three/seed-2/rm
"$hone" retry 2 >out 2>&1 || fail "retry"
await_state 2 done 180
same three whole 2
python3 -c '
import json
s = json.load(open("three/summary.json"))
assert s["state"] == "done" and "seeds_done" not in s, s'
kill -TERM "$honed"
wait "$honed" || fail "honed: exit status $?"
honed=
echo "seeds: all well"
