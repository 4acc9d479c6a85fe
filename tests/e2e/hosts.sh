#!/usr/bin/env bash
# Ranks on several hosts: network namespaces on this machine, each with its own network and
# host name (needs root and the development tool netns-mpi.sh). Losses do not depend on how
# ranks lie on hosts; a link that is cut ends the job on all of them with a message.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bin=${HONE_BIN:?the folder of hone, honed and hone-worker}
net=${HONE_SHARED:-$here/../../../shared}/tools/netns-mpi.sh
[ -e "$net" ] || { echo "skipped: $net is absent"; exit 77; }
[ -e "$bin/../lib/hone/hone-mpi.so" ] || { echo "skipped: built without MPI"; exit 77; }
for program in mpirun ip nsenter unshare python3; do
    command -v $program >/dev/null || { echo "skipped: there is no $program"; exit 77; }
done
[ "$(id -u)" = 0 ] || { echo "skipped: network namespaces want root"; exit 77; }

dir=$(mktemp -d /tmp/hone-hosts-XXXXXX)
export NM_DIR=$dir/nm TMPDIR=$dir
mkdir "$dir/work"
if ! bash "$net" up 2 >"$dir/up" 2>&1; then
    cat "$dir/up"
    rm -rf "$dir"
    echo "skipped: no network namespaces"
    exit 77
fi
trap 'bash "$net" down >/dev/null 2>&1; rm -rf "$dir"' EXIT
python3 "$here/make_tiny.py" "$dir/work"
cd "$dir/work"
every=(--set resources.precision=f32 --stage sft
    --set stages.sft.log_every=1 --set stages.sft.dropout=0.1)

fail() {
    echo "FAILED: $*"
    [ -f err ] && sed 's/^/  | /' err
    exit 1
}

# hosts N SLOTS ARGUMENT...: N ranks, SLOTS to a host.
hosts() {
    local n=$1 slots=$2
    shift 2
    NM_SLOTS=$slots timeout 120 bash "$net" mpirun -n "$n" --oversubscribe --bind-to none \
        --quiet "$bin/hone-worker" "$@" >out 2>err
}

"$bin/hone-worker" job.yaml --out alone "${every[@]}" >out 2>err || fail "one rank"
for layout in "4 2" "2 1" "3 2"; do
    read -r n slots <<<"$layout"
    for shard in true false; do
        run=r$n-$shard
        hosts "$n" "$slots" job.yaml --out "$run" "${every[@]}" \
            --set resources.shard_optimizer=$shard || fail "$n ranks, $slots to a host"
        python3 - alone "$run" <<'PY' || fail "losses differ"
import json, sys
def losses(run):
    lines = map(json.loads, open(f"{run}/sft/metrics.jsonl"))
    return [x["loss"] for x in lines if x["split"] == "train"]
x, y = map(losses, sys.argv[1:])
worst = max(abs(p - q) / abs(p) for p, q in zip(x, y))
print(f"{sys.argv[2]}: largest relative difference {worst:.1e}")
sys.exit(len(x) != len(y) or worst > 1e-6)
PY
    done
done
hosts 4 2 job.yaml --out again "${every[@]}" || fail "four ranks again"
cmp -s r4-true/sft/final/model.safetensors again/sft/final/model.safetensors ||
    fail "four ranks on two hosts did not repeat their bits"

# A rank of another host that does not join a sum over the devices (emulated) is named, by
# one rank: the first of the hosts that wait.
emulated=$bin/../tests/hone-cuda-emu.so
# missing N SLOTS RANK HOST
missing() {
    local run=missing$1 since=$SECONDS
    if (export HONE_CUDA_PLUGIN=$emulated HONE_NCCL=$emulated HONE_CUDA_TUNE=0 EMU_SEED=2
        export EMU_DEVICES=2 EMU_RANK=$3 EMU_STALL=launch:250 HONE_NCCL_SECONDS=3
        export HONE_CUDA_GRAPHS=off # the n-th launch of a kernel
        export XDG_CACHE_HOME=$dir/cache
        hosts "$1" "$2" job.yaml --out "$run" "${every[@]}" --set resources.device=cuda \
            --set stages.sft.checkpoint_every=1); then
        fail "rank $3 of $1 was missing, and the job ended well"
    fi
    [ "$(grep -c '^hone: ' err)" = 1 ] || fail "more than one rank spoke"
    grep -qE "^hone: rank $3 on $4 \(pid [0-9]+, device [01]\) is missing from sum [0-9]+ \(.*, step [0-9]+\) since 3 s: it is at step [0-9]+, [a-z]+" err ||
        fail "rank $3 on $4 is not named"
    grep -qE -- "--resume goes on from .*$run/sft/checkpoint-[0-9]+" err || fail "no mend"
    echo "rank $3 on $4 is missing: said after $((SECONDS - since)) s"
}
if [ -e "$emulated" ]; then
    missing 4 2 3 h2
    missing 2 1 0 h1
fi

# Cut the link in the middle of training.
hosts 4 2 job.yaml --out cut --stage sft --set stages.sft.epochs=100000 \
    --set stages.sft.log_every=100000 --set stages.sft.eval_every=1000000 \
    --set stages.sft.checkpoint_every=20 &
for _ in $(seq 600); do
    compgen -G "cut/sft/checkpoint-*0/manifest.json" >/dev/null && break
    sleep 0.05
done
since=$SECONDS
ip link set nmv2 down
got=0
wait $! || got=$?
[ $got != 0 ] || fail "the link was cut, and the job ended well"
echo "cut link: noticed after $((SECONDS - since)) s"
[ $((SECONDS - since)) -le 60 ] || fail "it took $((SECONDS - since)) s to notice a cut link"
grep -qF "has not been heard for 10 s at step" err || fail "no word of the cut link"
grep -qE "^hone: h[12] \(ranks [0-9]+ to [0-9]+; rank [0-9]+, pid [0-9]+, was at step [0-9]+, [a-z]+\)" err ||
    fail "who was lost is not named"
grep -qE -- "--resume goes on from .*cut/sft/checkpoint-[0-9]+" err || fail "no mend"
for _ in $(seq 75); do
    pgrep -f -- "$bin/hone-worker job.yaml --out cut " >/dev/null || break
    sleep 0.2
done
if pgrep -f -- "$bin/hone-worker job.yaml --out cut " >/dev/null; then fail "orphans"; fi
ls cut/sft/checkpoint-* >/dev/null || fail "no checkpoint to go on from"
echo "all is well"
