#!/usr/bin/env bash
# The quick tests again, built with AddressSanitizer and UndefinedBehaviorSanitizer.
set -eu
cd "$(dirname "$0")/../.."
cmake --preset asan -DHONE_SHARED="${HONE_SHARED:-$PWD/../shared}" >/dev/null
cmake --build --preset asan
# Leaks are counted by the tests themselves: mem_live(), with the n-th allocation failing.
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1
ctest --preset asan -L quick -LE 'lint' -j "$(nproc)" --timeout 600
