#!/usr/bin/env bash
# A training file far larger than what may stay in memory: 60 MB of rows, at most 90 MiB
# resident (holding texts and ids takes 150), for training and for hone data; packed or not.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
worker=${HONE_BIN:?the folder of hone-worker}/hone-worker
[ -x "$worker" ] || { echo "skipped: $worker is not built"; exit 77; }
command -v python3 >/dev/null || { echo "skipped: python3 makes the tiny model"; exit 77; }

dir=$(mktemp -d /tmp/hone-bounded-XXXXXX)
trap 'rm -rf "$dir"' EXIT
python3 "$here/make_tiny.py" "$dir"
cd "$dir"
python3 - <<'PY'
import gzip, json, random
rng = random.Random(1)
words = "awful broken average best great a and film it movie of plot the this was".split()
pool = [" ".join(rng.choices(words, k=rng.randrange(10, 50))) for _ in range(5000)]
size = i = 0
with open("big.jsonl", "w") as f:
    while size < 60_000_000:
        size += f.write('{"text": "%s %d", "label": %d}\n' % (pool[i % 5000], i, i % 3))
        i += 1
with open("big.jsonl", "rb") as f, gzip.open("big.jsonl.gz", "wb", 1) as g:
    g.write(f.read())
PY
sed 's/train: .*/train: big.jsonl/; s/sft: {epochs: 2/sft: {steps: 3, log_every: 1/' job.yaml >big.yaml

# bounded COMMAND...: its standard output to out, its peak at most 90 MiB.
bounded() {
    python3 - "$@" <<'PY'
import os, subprocess, sys
p = subprocess.Popen(sys.argv[1:], stdout=open("out", "w"), stderr=open("err", "w"))
_, status, used = os.wait4(p.pid, 0)
mib = used.ru_maxrss / 1024
print("%6.1f MiB: %s" % (mib, " ".join(sys.argv[2:])))
if status or mib > 90:
    sys.exit("FAILED: status %d, %.1f MiB\n%s" % (status, mib, open("err").read()))
PY
}

bounded "$worker" big.yaml --stage sft --out run
bounded "$worker" big.yaml --stage sft --out packed --set data.train=big.jsonl.gz \
    --set data.duplicates=drop
same() { grep -o '"loss": [^,]*' "$1/sft/metrics.jsonl"; }
[ "$(same run | wc -l)" -ge 3 ] && [ "$(same run)" = "$(same packed)" ] ||
    { echo "FAILED: other losses from the packed file"; exit 1; }
bounded "$worker" data show big.yaml --json
rows=$(wc -l <big.jsonl)
grep -q "\"train\": {\"rows\": $rows," out || { echo "FAILED: show"; exit 1; }
bounded "$worker" data export big.yaml --split train
[ "$(wc -l <out)" = "$rows" ] || { echo "FAILED: export"; exit 1; }
bounded "$worker" data prefer big.yaml
[ "$(wc -l <out)" = "$rows" ] || { echo "FAILED: prefer"; exit 1; }
bounded "$worker" check big.yaml

if TMPDIR=/nonexistent "$worker" check big.yaml >out 2>err; then
    echo "FAILED: no folder for temporary files, and all is well"
    exit 1
fi
grep -q "temporary file in /nonexistent" err && grep -q "TMPDIR" err ||
    { echo "FAILED: the message does not say where"; cat err; exit 1; }
