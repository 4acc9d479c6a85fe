#!/usr/bin/env bash
# Jobs whose workers Slurm runs (resources.launcher: slurm): two ranks in an allocation of
# two nodes; paused while srun waits in the queue and while it trains, srun and the daemon
# killed, cancelled; the model is that of a run without Slurm, and no rank and no
# allocation stays behind.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bin=${HONE_BIN:?the folder of hone, honed and hone-worker}
cluster=${HONE_SHARED:-}/tools/slurm-test-cluster.sh
[ -x "$cluster" ] || { echo "skipped: no $cluster, which starts a Slurm on one machine"; exit 77; }
for program in srun slurmctld slurmd munged; do
    PATH=$PATH:/usr/sbin command -v "$program" >/dev/null ||
        { echo "skipped: $program is not installed (slurm-wlm, munge)"; exit 77; }
done
[ "$(id -u)" = 0 ] || { echo "skipped: the test's Slurm is started by root"; exit 77; }

dir=$(mktemp -d /tmp/hone-e2e-XXXXXX)
chmod 755 "$dir"
export STC_MODE=netns STC_DIR=$dir/slurm STC_NODES=2 STC_CPUS=2 STC_PORT=$((20000 + $$ % 20000))
honed=
tidy() {
    [ -z "$honed" ] || { kill -KILL "$honed" && wait "$honed"; } 2>/dev/null || true
    "$cluster" stop >/dev/null 2>&1 || true
    rm -rf "$dir"
}
trap tidy EXIT
"$cluster" start >"$dir/cluster.log" 2>&1 ||
    { cat "$dir/cluster.log"; echo "skipped: Slurm does not start here"; exit 77; }
export SLURM_CONF=$dir/slurm/slurm.conf
export TMPDIR=$dir XDG_STATE_HOME=$dir/state XDG_CONFIG_HOME=$dir/config
unset XDG_RUNTIME_DIR HONE_TO
python3 "$here/make_tiny.py" "$dir"
cd "$dir"
hone=$bin/hone
job=(job.yaml --set resources.precision=f32 --set resources.threads=1
    --set resources.workers=2 --set stages.sft.epochs=40 --set stages.rm.epochs=4
    --set stages.ppo.epochs=4)
slurm=(--launcher slurm --set 'resources.slurm=[--nodes=2, --time=10]')

fail() {
    echo "FAILED: $*"
    "$hone" ps || true
    squeue || true
    tail -20 honed.log | sed 's/^/  honed: /'
    exit 1
}
state() { "$hone" show "$1" --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["state"])'; }
await() { # SECONDS COMMAND...
    local until=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $until ] || fail "not in time: $*"
        sleep 0.1
    done
}
is() { [ "$(state "$1")" = "$2" ]; }
allocations() { squeue -h -o '%T %j' | { grep " hone-$1-" || true; }; }
holds() { [[ $(allocations "$1") == *"$2"* ]]; } # JOB STATE
gone() { [ -z "$(allocations "$1")" ]; }
past() { grep -q "sft: step $2[0-9][0-9]/" "$1/log" 2>/dev/null; } # RUN HUNDREDS
start_honed() {
    "$bin/honed" >>honed.log 2>&1 &
    honed=$!
    await 10 eval '"$hone" ps >/dev/null 2>&1'
}

start_honed
"$hone" run "${job[@]}" --out reference >reference.out 2>&1 || fail "the run without Slurm"

echo "slurm: two ranks on two nodes, srun and the daemon killed"
"$hone" submit "${job[@]}" "${slurm[@]}" --out one >/dev/null
await 20 past one 1
holds 1 RUNNING || fail "no allocation"
kill -KILL "$(pgrep -f 'srun .*--job-name=hone-1-sft' | sort -n | head -1)"
await 20 grep -q "restart 1 of" honed.log
await 60 holds 1 RUNNING
kill -KILL "$honed"
wait "$honed" 2>/dev/null || true
sleep 1
start_honed
grep -q "honed is back, the worker goes on" honed.log || fail "the worker was not adopted"

echo "slurm: paused while it trains, and resumed"
await 60 eval 'holds 1 RUNNING && past one 3'
"$hone" pause 1 >/dev/null
await 30 is 1 paused
await 20 gone 1
"$hone" resume 1 >/dev/null
await 120 is 1 done
cmp one/ppo/final/model.safetensors reference/ppo/final/model.safetensors ||
    fail "the model differs from that of the run without Slurm"

echo "slurm: cancelled and paused while it waits in Slurm's queue"
sbatch --quiet --exclusive --nodes=2 --output=/dev/null --wrap 'sleep 100' >/dev/null
"$hone" submit "${job[@]}" "${slurm[@]}" --out two >/dev/null
await 20 holds 2 PENDING
"$hone" pause 2 >/dev/null
await 30 is 2 paused
await 20 gone 2
"$hone" resume 2 >/dev/null
await 20 holds 2 PENDING
"$hone" cancel 2 >/dev/null
await 30 is 2 stopped
await 20 gone 2
scancel --quiet --me 2>/dev/null || scancel --user=root

echo "slurm: what a job may not set is refused where it is written"
rc=0
"$hone" submit job.yaml --set resources.launcher=slurm \
    --set 'resources.slurm=[--prolog=/bin/true]' --out bad >out 2>err || rc=$?
[ $rc = 2 ] && grep -q 'is no option of srun that a job may set' err || { cat err; fail "status $rc"; }
"$hone" run job.yaml --set resources.launcher=slurm --out bad >out 2>err && fail "hone run took it"
grep -q 'hone submit' err || { cat err; fail "no mend"; }
"$hone" submit job.yaml --launcher slrum --out bad >out 2>err && fail "an unknown launcher"
grep -q 'did you mean "slurm"' err || { cat err; fail "no mend"; }
! pgrep -f "hone-worker $dir" >/dev/null || fail "a worker stayed behind"
echo "slurm: passed"
