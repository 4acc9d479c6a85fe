#!/usr/bin/env bash
# A batch script whose run reports to a honed that did not start it: mpirun over two nodes of
# a real Slurm, each with a network of its own. The job is requeued in the middle: what
# reports is the same job, and the daemon has each point of metrics.jsonl once.
. "$(dirname "$0")/common.sh"
cluster=${HONE_SHARED:-}/tools/slurm-test-cluster.sh
[ -x "$cluster" ] || skip "no $cluster, which starts a Slurm on one machine"
PATH=$PATH:/usr/sbin need sbatch slurmctld slurmd munged
need_mpi
[ "$(id -u)" = 0 ] || skip "the test's Slurm is started by root"
chmod 755 "$dir"
export STC_MODE=netns STC_DIR=$dir/slurm STC_NODES=2 STC_CPUS=2 STC_PORT=$((20000 + $$ % 20000)) \
    STC_NET=10.76.$(($$ % 250)) STC_BR=hrb$(($$ % 10000))
tidy_more() { "$cluster" stop >/dev/null 2>&1 || true; }
"$cluster" start >cluster.log 2>&1 || { cat cluster.log; skip "Slurm does not start here"; }
export SLURM_CONF=$dir/slurm/slurm.conf
python3 "$here/make_tiny.py" "$dir"
to=$STC_NET.254
"$bin/honed" token add alice --role operator --state state >token 2>err
"$bin/honed" cert init --state state --host "$to" >out 2>err
export HONE_TO=unix:$dir/state/socket
start_honed --state state --listen "tcp:$to:4665"

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
within 60 eval 'compgen -G "run/sft/checkpoint-*" >/dev/null'
[ "$(state 1)" = running ] || fail "the daemon does not see it run"
scontrol requeue "$batch"
await_state 1 done 150
"$hone" show 1 --json >shown
python3 - <<'PY' || fail "what was shown"
import json
job = json.load(open("shown"))
assert job["attached"] and job["owner"] == "alice", job
assert [s["attempt"] for s in job["stages"]] == [2, 2, 2], job["stages"]
PY
for stage in sft rm ppo; do
    same_points 1 $stage run
done
! grep -qF "$(cat token)" honed.log batch.out || fail "a token is in a log"
end_honed
echo "report_slurm: all well"
