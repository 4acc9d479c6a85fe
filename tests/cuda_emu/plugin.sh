#!/usr/bin/env bash
# The built plug-in: exports one function, is not linked to the driver, and on a machine
# without a GPU is loaded all the same and says why it has no device.
set -eu
cd "$(dirname "$0")/../.."
plugin=$HONE_BIN/../lib/hone/hone-cuda.so
[ -e "$plugin" ] || { echo "skipped: hone-cuda.so is not built here"; exit 77; }
exported=$(nm -D --defined-only "$plugin" | awk '{ print $3 }')
[ "$exported" = hone_backend ] || { echo "exports: $exported"; exit 1; }
if readelf -d "$plugin" | grep -E 'NEEDED.*lib(cuda|nccl|nvidia)'; then
    echo "is linked to what a machine without a GPU lacks"
    exit 1
fi
said=$(HONE_CUDA_PLUGIN=$plugin "$HONE_BIN/hone-worker" --describe | grep '"name": "cuda"')
echo "$said"
if [ ! -e /dev/nvidiactl ]; then
    echo "$said" | grep -q '"devices": 0.*no device: no NVIDIA driver is loaded'
fi

# The real NCCL, where the toolkit has it, is loaded and has all that is called.
library=$(find -L "$HONE_CUDA_INCLUDE/../lib" "$HONE_CUDA_INCLUDE/../lib64" -name libnccl.so.2 \
    2>/dev/null | head -1)
if [ -n "$library" ]; then
    called=$(grep -o 'X(nccl[A-Za-z]*)' kernels/cuda/nccl.c | tr -d 'X()')
    [ "$(echo "$called" | wc -l)" -gt 10 ]
    has=$(nm -D --defined-only "$library" | awk '{ print $3 }')
    for f in $called; do
        echo "$has" | grep -qx "$f" || { echo "NCCL has no $f"; exit 1; }
    done
fi
