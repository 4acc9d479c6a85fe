#!/usr/bin/env bash
# clang-format 14 agrees with every source file.
set -eu
cd "$(dirname "$0")/../.."
tool=$(command -v clang-format-14 || true)
if [ -z "$tool" ]; then
    echo "skipped: clang-format-14 is not installed"
    exit 77
fi
find base kernels proto worker daemon launcher tests '(' -name '*.[ch]' -o -name '*.cu' -o -name '*.cc' ')' -print0 |
    xargs -0 "$tool" --dry-run --Werror
