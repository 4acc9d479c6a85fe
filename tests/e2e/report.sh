#!/usr/bin/env bash
# Runs that no daemon started report to one elsewhere: mpirun on another host (a network
# namespace), honed here, TLS between them. The daemon is killed and the link cut meanwhile;
# mpirun is killed and started again; the daemon is away for a whole run: what the client
# sees at the end is what stands in metrics.jsonl, once, and the weights are those of a run
# that reports to nobody.
. "$(dirname "$0")/common.sh"
need_mpi
need_networks
python3 "$here/make_tiny.py" "$dir"
net=10.80.$(($$ % 250))
port=4664
long=(--set stages.sft.epochs=16 --set stages.rm.epochs=6 --set stages.ppo.epochs=4
    --set resources.threads=1)
serve=(--state state --listen "tcp:$net.1:$port")
hone() { "$hone" "$@"; }
train() { # RUN [arguments]: two ranks, there
    local run=$1
    shift
    there mpirun -n 2 --oversubscribe --bind-to none --quiet "$bin/hone-worker" "$dir/job.yaml" \
        --out "$dir/$run" "${long[@]}" "$@"
}
complete() { # JOB RUN: what the daemon has is what the run wrote
    for stage in sft rm ppo; do
        cmp "whole/$stage/final/model.safetensors" "$2/$stage/final/model.safetensors" ||
            fail "$stage of $2 differs"
        same_points "$1" "$stage" "$2"
    done
    [ ! -e "$2/.hone/uplink-sft" ] || fail "a journal is left"
}

new_host "$net"

(umask 077 && "$bin/honed" token add alice --role operator --state state >token 2>err &&
    "$bin/honed" token add vera --role viewer --state state >viewer 2>err)
"$bin/honed" cert init --state state --host "$net.1" >out 2>err
"$bin/honed" cert init --state other --host "$net.1" >out 2>err
cp token open && chmod 644 open
export HONE_AUTHORITY=$dir/state/tls/ca.crt HONE_TOKEN_FILE=$dir/token
export HONE_TO=unix:$dir/state/socket
to=(--report "$net.1:$port")

echo "what cannot be right is said before anything starts"
expect 2 train none --report "http://$net.1:80"
expect 2 train none --report "http:$net.1:80"
says "do not speak HTTP"
HONE_TOKEN_FILE=$dir/open expect 2 train none "${to[@]}"
says "chmod 600"
HONE_AUTHORITY=$dir/none expect 2 train none "${to[@]}"
[ ! -e none ] || fail "a folder was made"

echo "a run that reports to nobody"
expect 0 train whole

echo "the daemon is killed, and the link cut for seconds"
start_honed "${serve[@]}"
train run-1 "${to[@]}" >out 2>err &
run=$!
await "run-1/sft/checkpoint-*"
hone watch 1 --after 0 --json >watched 2>watch.err &
watcher=$!
within 10 test -s watched
kill_honed
sleep 1
start_honed "${serve[@]}"
await "run-1/rm/metrics.jsonl"
ip link set "$link" down
kill_honed # nobody says goodbye through a cut link
start_honed "${serve[@]}"
sleep 3
ip link set "$link" up
wait "$run" || fail "the run ended with status $?"
await_state 1 done 20
wait "$watcher" || { cat watch.err; fail "hone watch: exit status $?"; }
complete 1 run-1
told_once watched run-1

echo "mpirun is killed and the run started again: the same job goes on"
train run-2 "${to[@]}" >out 2>err &
run=$!
await "run-2/rm/checkpoint-*"
[ "$(state 2)" = running ] || fail "job 2 is $(state 2)"
expect 2 hone logs 2
says "only reports"
says "its log is "
hone checkpoint 2 >/dev/null
for pid in $(workers); do kill -KILL "$pid" 2>/dev/null || true; done
wait "$run" && fail "the run ended well"
expect 0 train run-2 "${to[@]}" --resume
await_state 2 done 20
complete 2 run-2
hone show 2 --json | python3 -c 'import json, sys
stages = json.load(sys.stdin)["stages"]
assert [s["attempt"] for s in stages] == [2, 2, 2], stages' || fail "attempts"

echo "paused from here: it saves and stops, and is the same job when it is started again"
train run-paused "${to[@]}" >out 2>err &
run=$!
await "run-paused/sft/checkpoint-*"
job=$(hone ps --json | python3 -c 'import json, sys
print(max(j["id"] for j in json.load(sys.stdin)["jobs"]))')
expect 0 hone pause "$job"
got=0
wait "$run" || got=$?
[ $got = 3 ] || fail "exit status $got"
await_state "$job" paused 20
expect 0 hone resume "$job"
[ "$(state "$job")" = queued ] || fail "job $job is $(state "$job")"
expect 0 train run-paused "${to[@]}" --resume
await_state "$job" done 20
complete "$job" run-paused

echo "nobody there for a whole run: the next start tells everything"
kill_honed
expect 0 train run-3 "${to[@]}"
says "training goes on, and is reported when the daemon is there"
says "the next start of the run tells them"
start_honed "${serve[@]}"
expect 0 train run-3 "${to[@]}" --resume
await_state 4 done 20
complete 4 run-3

echo "cancelled from here: it saves and stops there"
train run-4 "${to[@]}" >out 2>err &
run=$!
await "run-4/sft/checkpoint-*"
expect 0 hone cancel 5
got=0
wait "$run" || got=$?
[ $got = 3 ] || fail "exit status $got"
await_state 5 stopped 10
expect 2 hone rm 5 --files --yes
says "are elsewhere"
expect 0 hone rm 5 --yes
[ -d run-4 ] || fail "a folder of another host was removed"

echo "refused: said once, and trained to the end"
short=(--stage sft --set stages.sft.epochs=2)
HONE_TOKEN_FILE=$dir/viewer expect 0 train run-5 "${to[@]}" "${short[@]}"
says "vera may look"
says "training goes on, unreported"
HONE_TOKEN_FILE=$dir/honed.log expect 2 train run-6 "${to[@]}" "${short[@]}"
HONE_TOKEN_FILE= HONE_TOKEN=hone_nonsense expect 0 train run-6 "${to[@]}" "${short[@]}"
says "unreported"
HONE_AUTHORITY=$dir/other/tls/ca.crt expect 0 train run-7 "${to[@]}" "${short[@]}"
says "not trusted"
for f in honed.log out err; do
    ! grep -qF "$(cat token)" $f || fail "a token is in $f"
done
end_honed
[ -z "$(workers)" ] || fail "a worker is left"
echo "report: all well"
