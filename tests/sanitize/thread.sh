#!/usr/bin/env bash
# The uplink and the daemon under ThreadSanitizer: the worker's link has a thread of its
# own; honed has one thread, and this keeps it so.
set -eu
cd "$(dirname "$0")/../.."
cmake --preset tsan -DHONE_SHARED="${HONE_SHARED:-$PWD/../shared}" >/dev/null
cmake --build --preset tsan --target unit_daemon_link unit_daemon_honed unit_daemon_daemon \
    unit_daemon_checkers hone honed
export TSAN_OPTIONS=halt_on_error=1
if build/tsan/tests/unit_daemon_daemon 2>&1 | grep -q 'unexpected memory mapping'; then
    echo "skipped: this kernel's address layout is not one that ThreadSanitizer knows"
    exit 77
fi
ctest --preset tsan -R '^unit_daemon_(link|honed|daemon|checkers)$' --timeout 300
