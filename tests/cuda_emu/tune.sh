#!/usr/bin/env bash
# Algorithms of matrix products are chosen by timing, before the first step: the fastest of
# the emulated ones wins, a bias is added where that is faster; what was chosen is kept in the
# cache (0600) and is not timed again; a resumed run has the bits of one that was not stopped,
# whatever a timing would say now; a damaged cache and another GPU's checkpoint are named and
# no failure.
tiny_model="--rows 16 --width 16 --layers 1"
. "$(dirname "$0")/common.sh"
export HONE_CUDA_TUNE=8

train() { # NAME CACHE FASTEST [options]: its exit status
    local name=$1 cache=$2 fastest=$3 status=0
    shift 3
    XDG_CACHE_HOME=$dir/$cache EMU_FASTEST=$fastest "$worker" job.yaml --out "$dir/$name" \
        --set resources.device=cuda --set resources.precision=f32 --stage sft \
        --set stages.sft.epochs=2 --set stages.sft.checkpoint_every=1 \
        "$@" >"$name.out" 2>&1 || status=$?
    return $status
}
same() {
    cmp -s "$1/sft/final/model.safetensors" "$2/sft/final/model.safetensors"
}
# chosen FILE ID FUSED: every choice in the cache is this one.
chosen() {
    python3 - "$@" <<'PYTHON'
import json
import struct
import sys

path, want, fused = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
cache = json.load(open(path))
assert cache["of"].startswith("emulated GPU, driver for CUDA "), cache["of"]
lines = cache["products"].splitlines()
assert len(lines) >= 8, lines
with_bias = 0
for line in lines:
    words = line.split()
    algorithm = struct.unpack_from("<I", bytes.fromhex(words[12]), 24)[0]
    assert algorithm == want, line
    assert int(words[10]) == (fused and int(words[9])), line
    assert words[11] == "1", line
    with_bias += int(words[9])
assert with_bias >= 2, lines
PYTHON
}

train a one 1 || fail "a timed run"
file=$(echo one/hone/products-*.json)
[ "$(stat -c %a "$file")" = 600 ] || fail "the cache is open to others"
chosen "$file" 1 1 || fail "the fastest was not chosen"
EMU_UNFUSED=1 train unfused two 1 || fail "a library that adds no bias"
chosen two/hone/products-*.json 1 0 || fail "a bias was added by nobody"
same a unfused || fail "a fused bias has other bits"

# Nothing is timed inside a step: all that the steps needed was chosen before the first.
python3 - "$(find a/sft -name products.json | head -n 1)" <<'PYTHON' || fail "a step met a product first"
import json
import sys

lines = "".join(json.load(open(sys.argv[1]))["ranks"]).splitlines()
assert len(lines) >= 8, lines
assert all(line.split()[11] == "1" for line in lines), lines
PYTHON

train other three 2 || fail "another fastest"
same a other && fail "the algorithm makes no difference: this test shows nothing"
before=$(cat "$file")
train kept one 2 || fail "a run with a cache"
same a kept || fail "what the cache holds was not used"
[ "$before" = "$(cat "$file")" ] || fail "the cache was written again"

# Stopped by SIGKILL behind a checkpoint, its cache lost, another one faster now.
HONE_FAULT=step:3:KILL train cut four 1 && fail "nothing was killed"
rm -rf four
train cut four 2 --resume || fail "a resumed run"
same a cut || fail "a resumed run has other bits"

echo '{"of": "emul' >"$file"
train damaged one 1 || fail "a damaged cache"
grep -q 'products-.* is ignored, products are timed again' damaged.out ||
    fail "a damaged cache is not named"
same a damaged || fail "a damaged cache changed the result"
chosen "$file" 1 1 || fail "a damaged cache was not replaced"
sed -i 's/ \([0-9a-f]\{8\}\)/ 0\1/' "$file"
train damaged2 one 1 || fail "a damaged line in the cache"
grep -q 'is ignored' damaged2.out || fail "a damaged line is not named"

HONE_FAULT=step:3:KILL train moved one 1 && fail "nothing was killed"
EMU_NAME="another GPU" train moved one 1 --resume || fail "a checkpoint of another GPU"
grep -q 'was made on emulated GPU.*this is another GPU.*may differ' moved.out ||
    fail "another GPU is not named"
ls one/hone/products-*.json | grep -c . | grep -qx 2 || fail "two GPUs share a cache"
echo "timed, kept, pinned"
