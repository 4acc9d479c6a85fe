#!/usr/bin/env bash
# Hone against its PyTorch peer, every row of docs/PERFORMANCE.md's speed table, in one run.
#
#   tests/bench/speed.sh [--python PYTHON] [--model DIR] [--quick] [--rows sft,rm] [...]
#
# PYTHON (or HONE_TORCH_PYTHON) has torch, transformers, tokenizers, safetensors, numpy;
# HONE_SHARED holds bench/torch_clahf.py and data/sst5; DIR (or HONE_MODEL) is
# all-MiniLM-L6-v2. Builds what it needs first. About 25 minutes on two quiet cores; the
# table goes to standard output, progress to standard error. All options: --help.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
build=${HONE_BUILD:-$root/build/release}
[ -f "$build/build.ninja" ] || (cd "$root" && cmake --preset release >&2)
ninja -C "$build" hone honed hone-worker op_bench tok_bench >&2
exec python3 "$root/tests/bench/speed.py" --hone-bin "$build/bin" "$@"
