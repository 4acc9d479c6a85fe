#!/usr/bin/env bash
# Jobs whose workers Slurm runs (resources.launcher: slurm): two ranks in an allocation of
# two nodes; paused while srun waits in the queue and while it trains, srun and the daemon
# killed, cancelled; the model is that of a run without Slurm, and no rank and no
# allocation stays behind.
. "$(dirname "$0")/common.sh"
cluster=${HONE_SHARED:-}/tools/slurm-test-cluster.sh
[ -x "$cluster" ] || skip "no $cluster, which starts a Slurm on one machine"
PATH=$PATH:/usr/sbin need srun slurmctld slurmd munged
[ "$(id -u)" = 0 ] || skip "the test's Slurm is started by root"
chmod 755 "$dir"
export STC_MODE=netns STC_DIR=$dir/slurm STC_NODES=2 STC_CPUS=2 STC_PORT=$((20000 + $$ % 20000))
tidy_more() { "$cluster" stop >/dev/null 2>&1 || true; }
"$cluster" start >cluster.log 2>&1 || { cat cluster.log; skip "Slurm does not start here"; }
export SLURM_CONF=$dir/slurm/slurm.conf
python3 "$here/make_tiny.py" "$dir"
job=(job.yaml --set resources.precision=f32 --set resources.threads=1
    --set resources.workers=2 --set stages.sft.epochs=40 --set stages.rm.epochs=4
    --set stages.ppo.epochs=4)
slurm=(--launcher slurm --set 'resources.slurm=[--nodes=2, --time=10]')

within() { # SECONDS COMMAND...
    local until=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $until ] || { squeue; tail -5 one/log; fail "not in time: $*"; }
        sleep 0.1
    done
}
is() { [ "$(state "$1")" = "$2" ]; }
allocations() { squeue -h -o '%T %j' | { grep " hone-$1-" || true; }; }
holds() { [[ $(allocations "$1") == *"$2"* ]]; } # JOB STATE
gone() { [ -z "$(allocations "$1")" ]; }
again() { # does the first stage of job 1 run, a second time?
    "$hone" show 1 --json | python3 -c 'import json, sys
s = json.load(sys.stdin)["stages"][0]
sys.exit(s["state"] != "running" or s["attempt"] < 2)'
}
past() { grep -q "sft: step $2[0-9][0-9]/" "$1/log" 2>/dev/null; } # RUN HUNDREDS

start_honed
"$hone" run "${job[@]}" --out reference >reference.out 2>&1 || fail "the run without Slurm"

echo "slurm: two ranks on two nodes, srun and the daemon killed"
"$hone" submit "${job[@]}" "${slurm[@]}" --out one >/dev/null
within 60 past one 1
holds 1 RUNNING || fail "no allocation"
kill -KILL "$(pgrep -P "$honed" -f 'srun .*--job-name=hone-1-sft')"
within 60 grep -q "restart 1 of" honed.log
within 60 again
kill_honed
sleep 1
start_honed
grep -q "honed is back, the worker goes on" honed.log || fail "the worker was not adopted"

echo "slurm: paused while it trains, and resumed"
within 60 eval 'holds 1 RUNNING && past one 3'
"$hone" pause 1 >/dev/null
within 30 is 1 paused
within 20 gone 1
"$hone" resume 1 >/dev/null
within 120 is 1 done
cmp one/ppo/final/model.safetensors reference/ppo/final/model.safetensors ||
    fail "the model differs from that of the run without Slurm"

echo "slurm: cancelled and paused while it waits in Slurm's queue"
sbatch --quiet --exclusive --nodes=2 --output=/dev/null --wrap 'sleep 100' >/dev/null
"$hone" submit "${job[@]}" "${slurm[@]}" --out two >/dev/null
within 20 holds 2 PENDING
"$hone" pause 2 >/dev/null
within 30 is 2 paused
within 20 gone 2
"$hone" resume 2 >/dev/null
within 20 holds 2 PENDING
"$hone" cancel 2 >/dev/null
within 30 is 2 stopped
within 20 gone 2
scancel --quiet --me 2>/dev/null || scancel --user=root

echo "slurm: what a job may not set is refused where it is written"
expect 2 "$hone" submit job.yaml --launcher slurm --set 'resources.slurm=[--prolog=/x]' --out bad
says 'is no option of srun that a job may set'
expect 2 "$hone" run job.yaml --set resources.launcher=slurm --out bad
says 'hone submit'
expect 2 "$hone" submit job.yaml --launcher slrum --out bad
says 'did you mean "slurm"'
[ -z "$(workers)" ] || fail "a worker stayed behind"
echo "slurm: passed"
