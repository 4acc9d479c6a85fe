#!/usr/bin/env bash
# A stage's event file through TensorBoard's own reader: every record's checksums, and every
# finite figure of metrics.jsonl at its step, over a stop and a resume. Needs a Python with
# tensorboard: $HONE_PYTHON, or python3.
set -u
bin=${HONE_BIN:?}
here=$(dirname "$0")
python=${HONE_PYTHON:-python3}
"$python" -c 'import tensorboard' 2>/dev/null ||
    { echo "skipped: $python has no tensorboard (set HONE_PYTHON)"; exit 77; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 "$here/make_tiny.py" "$dir" >/dev/null
worker() {
    "$bin/hone-worker" "$dir/job.yaml" --stage sft --out "$dir/run" \
        --set stages.sft.log_every=2 \
        --set stages.sft.eval_every=8 --set stages.sft.checkpoint_every=8 "$@" \
        >"$dir/log" 2>&1
}
# Stopped at a step boundary, then resumed: what was written after the checkpoint goes.
worker --set stages.sft.lr=0.001 &
pid=$!
for _ in $(seq 200); do
    grep -q '"step": 4' "$dir/run/sft/metrics.jsonl" 2>/dev/null && break
    sleep 0.02
done
kill -INT "$pid" 2>/dev/null
wait "$pid"
worker --set stages.sft.lr=0.001 --resume || { cat "$dir/log"; exit 1; }
"$python" - "$dir/run/sft" 2>"$dir/err" <<'PY' || { tail -5 "$dir/err"; exit 1; }
import glob, json, math, struct, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader

run = sys.argv[1]
files = glob.glob(run + "/events.out.tfevents.*")
assert len(files) == 1, files
records = list(RawEventFileLoader(files[0]).Load())  # raises on a wrong checksum
acc = EventAccumulator(files[0], size_guidance={"scalars": 0})
acc.Reload()
have = {(t, e.step): e.value for t in acc.Tags()["scalars"] for e in acc.Scalars(t)}
want, lines = {}, 0
for line in open(run + "/metrics.jsonl"):
    m = json.loads(line)
    lines += 1
    for key, value in m.items():
        if key in ("step", "epoch", "time", "split") or not isinstance(value, (int, float)):
            continue
        if math.isfinite(value):
            want[m["split"] + "/" + key, m["step"]] = value
assert want and len(records) == lines + 1, (len(records), lines)
assert set(have) == set(want), set(have) ^ set(want)
for key, value in want.items():
    got = have[key]
    assert abs(got - value) <= 1e-6 * max(1, abs(value)), (key, got, value)
splits = {k[0].split("/")[0] for k in have}
assert splits == {"train", "validation", "test"}, splits
print(f"{len(have)} figures of {len(acc.Tags()['scalars'])} tags agree with metrics.jsonl")
PY
