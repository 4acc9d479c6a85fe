#!/usr/bin/env bash
# Instructions of three training steps of a tiny BERT, counted by valgrind's callgrind:
# a figure that neighbours and clock rates do not move, so that a loss of speed shows on
# any machine. The record, step.txt, holds one number for each instruction set valgrind
# can run (it knows no AVX-512); more than TOLERANCE percent away from it fails, above
# because something became slower, below because the record is out of date.
#
#   tests/count/step.sh            compare (HONE_BIN: folder of hone-worker)
#   tests/count/step.sh --record   write step.txt anew
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bin=${HONE_BIN:-$here/../../build/release/bin}
tolerance=2
[ -x "$bin/hone-worker" ] || { echo "skipped: $bin/hone-worker is not built"; exit 77; }
for tool in valgrind python3; do
    command -v $tool >/dev/null || { echo "skipped: $tool is not installed"; exit 77; }
done
cache=$bin/../CMakeCache.txt
if ! grep -q '^CMAKE_BUILD_TYPE:[A-Z]*=Release$' "$cache" 2>/dev/null ||
    grep -q '^HONE_SANITIZE:BOOL=ON$' "$cache"; then
    echo "skipped: the record is of a release build"
    exit 77
fi

dir=$(mktemp -d /tmp/hone-count-XXXXXX)
trap 'rm -rf "$dir"' EXIT
python3 "$here/../e2e/make_tiny.py" "$dir" --rows 60 --width 96 --layers 2
cat >"$dir/count.yaml" <<JOB
name: count
seed: 1
model: model
task: {labels: [negative, neutral, positive]}
data: {train: train.jsonl, max_tokens: 32}
resources: {threads: 1, precision: f32}
stages:
  sft: {steps: 3, batch: 16, lr: 1e-4, dropout: 0.1, select: last}
JOB

# count ISA: instructions within trainer_step().
count() {
    rm -rf "$dir/out"
    HONE_ISA=$1 valgrind --tool=callgrind --toggle-collect=trainer_step \
        --callgrind-out-file=/dev/null "$bin/hone-worker" "$dir/count.yaml" \
        --out "$dir/out" >"$dir/log" 2>&1 || { cat "$dir/log"; exit 1; }
    sed -n 's/.*Collected : \([0-9]*\).*/\1/p' "$dir/log"
}

sets=plain
grep -qw avx2 /proc/cpuinfo && sets="avx2 plain"
if [ "${1:-}" = --record ]; then
    for isa in $sets; do echo "$isa $(count "$isa")"; done | tee "$here/step.txt"
    exit 0
fi
status=0
for isa in $sets; do
    want=$(sed -n "s/^$isa //p" "$here/step.txt")
    got=$(count "$isa")
    [ -n "$want" ] && [ -n "$got" ] || { echo "FAILED: $isa: no count"; exit 1; }
    echo "$isa: $got instructions, recorded $want"
    if [ $((got * 100)) -gt $((want * (100 + tolerance))) ]; then
        echo "FAILED: $isa: more than $tolerance % above the record: something is slower"
        status=1
    elif [ $((got * 100)) -lt $((want * (100 - tolerance))) ]; then
        echo "FAILED: $isa: more than $tolerance % below the record: renew it with" \
            "tests/count/step.sh --record"
        status=1
    fi
done
exit $status
