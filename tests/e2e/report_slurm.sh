#!/usr/bin/env bash
# A batch script whose run reports to a honed that did not start it: mpirun over two nodes of
# a real Slurm, each with a network of its own. The job is requeued in the middle: what
# reports is the same job, and the daemon has each point of metrics.jsonl once.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bin=${HONE_BIN:?the folder of hone, honed and hone-worker}
cluster=${HONE_SHARED:-}/tools/slurm-test-cluster.sh
[ -x "$cluster" ] || { echo "skipped: no $cluster, which starts a Slurm on one machine"; exit 77; }
for program in sbatch slurmctld slurmd munged mpirun python3; do
    PATH=$PATH:/usr/sbin command -v "$program" >/dev/null ||
        { echo "skipped: $program is not installed (slurm-wlm, munge, openmpi-bin)"; exit 77; }
done
[ "$(id -u)" = 0 ] || { echo "skipped: the test's Slurm is started by root"; exit 77; }
[ -e "$bin/../lib/hone/hone-mpi.so" ] || { echo "skipped: built without MPI"; exit 77; }

dir=$(mktemp -d /tmp/hone-e2e-XXXXXX)
chmod 755 "$dir"
export STC_MODE=netns STC_DIR=$dir/slurm STC_NODES=2 STC_CPUS=2 STC_PORT=$((20000 + $$ % 20000)) \
    STC_NET=10.76.$(($$ % 250)) STC_BR=hrb$(($$ % 10000))
honed=
tidy() {
    [ -z "$honed" ] || { kill -KILL "$honed" && wait "$honed"; } 2>/dev/null || true
    "$cluster" stop >/dev/null 2>&1 || true
    rm -rf "$dir"
}
trap tidy EXIT
"$cluster" start >"$dir/cluster.log" 2>&1 ||
    { cat "$dir/cluster.log"; echo "skipped: Slurm does not start here"; exit 77; }
export SLURM_CONF=$dir/slurm/slurm.conf TMPDIR=$dir HOME=$dir
unset XDG_RUNTIME_DIR XDG_STATE_HOME XDG_CONFIG_HOME HONE_TO
python3 "$here/make_tiny.py" "$dir"
cd "$dir"
hone=$bin/hone
to=$STC_NET.254
fail() {
    echo "FAILED: $*"
    squeue || true
    for f in log batch.out err; do [ ! -s $f ] || { echo "  $f:"; tail -15 $f | sed 's/^/  | /'; }; done
    exit 1
}
await() { # SECONDS COMMAND...
    local until=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $until ] || fail "not in time: $*"
        sleep 0.1
    done
}
"$bin/honed" token add alice --role operator --state state >token 2>err
"$bin/honed" cert init --state state --host "$to" >out 2>err
"$bin/honed" --state state --listen "tcp:$to:4665" 2>log &
honed=$!
export HONE_TO=unix:$dir/state/socket
await 10 eval '"$hone" ps >/dev/null 2>&1'
is() { [ "$("$hone" show 1 --json 2>/dev/null | python3 -c 'import json,sys
try: print(json.load(sys.stdin)["state"])
except ValueError: print("none")')" = "$1" ]; }

cat >batch.sh <<SH
#!/bin/bash
#SBATCH --nodes=2 --ntasks-per-node=1 --requeue --open-mode=append --output=$dir/batch.out
export HONE_TOKEN_FILE=$dir/token HONE_AUTHORITY=$dir/state/tls/ca.crt
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
exec mpirun --bind-to none --quiet $bin/hone-worker $dir/job.yaml --out $dir/run --resume \\
    --report $to:4665 --set stages.sft.epochs=60 --set stages.sft.checkpoint_every=50 \\
    --set resources.threads=1
SH
chmod 600 token
batch=$(sbatch --parsable batch.sh)
await 60 eval 'compgen -G "run/sft/checkpoint-*" >/dev/null'
is running || fail "the daemon does not see it run"
scontrol requeue "$batch"
await 150 is done
"$hone" show 1 --json >shown
python3 - <<'PY' || fail "what was shown"
import json
job = json.load(open("shown"))
assert job["attached"] and job["owner"] == "alice", job
assert [s["attempt"] for s in job["stages"]] == [2, 2, 2], job["stages"]
PY
for stage in sft rm ppo; do
    "$hone" metrics 1 --stage $stage --json >told
    python3 - "run/$stage/metrics.jsonl" <<'PY' || fail "the points of $stage"
import json, sys
told, want = ([json.loads(l) for l in open(f)] for f in ("told", sys.argv[1]))
for x in told:
    x.pop("stage", None)
assert told == want, (len(told), len(want))
PY
done
! grep -qF "$(cat token)" log batch.out || fail "a token is in a log"
kill "$honed"
wait "$honed" || fail "honed ended with status $?"
honed=
echo "report_slurm: all well"
