#!/usr/bin/env bash
# Installs what the tests need, builds Hone and runs every test; ctest prints the closing
# line.
#
#   tests/run.sh [-L LABEL] [ctest options]     e.g. tests/run.sh -L quick
#
# Labels: quick (under a minute), slow (whole programs), sanitize (quick ones again under
# ASan and UBSan), long (200 jobs under random kills; only by ctest --preset release
# -C long -L long). HONE_PYTHON: a Python with tensorboard, for the one test that wants its
# reader. Tests that need the development fixtures (../shared, or HONE_SHARED)
# are skipped by name where those are absent.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. deploy/packages.sh

packages_need "${packages_build[@]}" "${packages_test[@]}"
shared=${HONE_SHARED:-$PWD/../shared}
[ -d "$shared" ] || echo "tests: $shared is absent; tests of recorded numbers are skipped"
if [ -z "${HONE_MODEL:-}" ]; then
    deploy/fetch.sh || echo "tests: the real model is absent; its tests are skipped"
    HONE_MODEL=$PWD/deploy/cache/model
fi
[ -e "$HONE_MODEL/config.json" ] && export HONE_MODEL || unset HONE_MODEL

cmake --preset release -DHONE_SHARED="$shared" >build-configure.log 2>&1 ||
    { cat build-configure.log; exit 1; }
rm -f build-configure.log
cmake --build --preset release
exec ctest --preset release -j "$(nproc)" "$@"
