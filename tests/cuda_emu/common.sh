# Sourced by the scripts beside it: the real worker on the emulated back end, in a folder of
# its own with a tiny model (tests/e2e/make_tiny.py, with the arguments in $tiny_model).
# Nothing of the user's cache is read or written. Sets here, worker, plugin, dir, host.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
worker=${HONE_BIN:?the folder of hone-worker}/hone-worker
plugin=$HONE_TESTS/hone-cuda-emu.so
host=$(uname -n)
[ -e "$plugin" ] || { echo "skipped: the emulated back end is not built"; exit 77; }
for tool in python3 ${need:-}; do
    command -v "$tool" >/dev/null || { echo "skipped: there is no $tool"; exit 77; }
done

dir=$(mktemp -d /tmp/hone-cuda-XXXXXX)
trap 'rm -rf "$dir"' EXIT
python3 "$here/e2e/make_tiny.py" "$dir" ${tiny_model:-}
cd "$dir"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 EMU_SEED=2
export HONE_CUDA_PLUGIN=$plugin HONE_CUDA_TUNE=0 XDG_CACHE_HOME=$dir/cache

fail() { # TEXT [FILE]: with the ends of the file, or of all that was said
    local files=("${@:2}")
    [ ${#files[@]} -gt 0 ] || files=(err out ./*.out)
    echo "FAILED: $1"
    for f in "${files[@]}"; do [ ! -s "$f" ] || tail -n 12 "$f" | sed "s,^,  $f: ,"; done
    exit 1
}
