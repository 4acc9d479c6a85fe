#!/usr/bin/env bash
# Who may include whom (docs/ARCHITECTURE.md), and which folder may speak to which library.
set -eu
cd "$(dirname "$0")/../.."
status=0

# room FOLDER ALLOWED: every quoted include lies in FOLDER itself or matches ALLOWED.
room() {
    [ -d "$1" ] || return 0
    bad=$(grep -rnE '^#include "' "$1" --include='*.[ch]' --include='*.cu' |
        grep -vE "\"($1/|$2)" || true)
    if [ -n "$bad" ]; then
        echo "$bad"
        echo "  ^ $1/ may include itself and: $2"
        status=1
    fi
}
room base 'base/'
room kernels 'base/'
room proto 'base/|[a-z_]+\.pb-c\.h'
room launcher 'base/|proto/|[a-z_]+\.pb-c\.h'
room worker 'base/|kernels/(op|backend)\.h|proto/|[a-z_]+\.pb-c\.h'
room daemon 'base/|proto/|launcher/backend/|[a-z_]+\.pb-c\.h'

# library HEADER FOLDER: <HEADER> is included below FOLDER alone.
library() {
    bad=$(grep -rnE "^#include <$1" --include='*.[ch]' base kernels proto worker daemon \
        launcher | grep -vE "^$2" || true)
    if [ -n "$bad" ]; then
        echo "$bad"
        echo "  ^ <$1> belongs to $2 alone"
        status=1
    fi
}
library 'mpi\.h' worker/dist/
library 'sqlite3\.h' daemon/store
library 'uv\.h' daemon/
library 'openssl/' proto/tls/
library 'microhttpd' daemon/http/
library 'cuda' kernels/cuda/
library 'nvtx3/' kernels/cuda/
library 'nccl' kernels/cuda/
library '(oneapi|dnnl)' kernels/cpu/
library 'yaml\.h' base/
library 'jansson\.h' base/json.h
library 'xxhash\.h' base/
library 'sha2\.h' base/
library 'utf8proc\.h' worker/tok/
exit $status
