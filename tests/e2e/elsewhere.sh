#!/usr/bin/env bash
# The whole way of a team: honed on one host, its users on another (a network namespace
# with an address of its own), TLS between them. Three jobs are submitted and one watched;
# PPO is paused and resumed, the daemon and a worker are killed with -9 meanwhile; all end
# in the same bits as runs that nobody disturbed.
. "$(dirname "$0")/common.sh"
need_networks
python3 "$here/make_tiny.py" "$dir"
net=10.79.$(($$ % 250))
long=(--set stages.sft.epochs=20 --set stages.rm.epochs=6 --set stages.ppo.epochs=24
    --set resources.threads=1)
hone() { there "$bin/hone" "$@"; } # on the other host
hone=hone
serve=(--state state --listen "tcp:$net.1:4663" --root "$dir")
new_host "$net"

echo "runs that nobody disturbs"
for seed in 1 2 3; do
    expect 0 "$bin/hone" run job.yaml "${long[@]}" --set seed=$seed --out whole-$seed
done

echo "a certificate, a token, a context"
expect 2 "$bin/honed" --state state --listen "tcp:$net.1:4663"
says "try: honed token add"
mkdir -p config/hone
(umask 077 && "$bin/honed" token add alice --role operator --state state >config/hone/alice.token 2>err)
expect 2 "$bin/honed" --state state --listen "tcp:$net.1:4663"
says "try: honed cert init"
expect 0 "$bin/honed" cert init --state state --host "$net.1"
cp state/tls/ca.crt config/hone/lab.crt
cat >config/hone/config.yaml <<YAML
default: lab
daemons:
  lab: {address: "$net.1:4663", authority: lab.crt, token_file: alice.token}
YAML
start_honed "${serve[@]}"

echo "three jobs from there; one is watched"
for seed in 1 2 3; do
    expect 0 hone submit "$dir/job.yaml" "${long[@]}" --set seed=$seed --out "$dir/run-$seed"
done
hone watch 1 --after 0 --json >watched 2>watch.err &
watcher=$!

echo "PPO paused and resumed; the daemon and a worker killed"
await "run-1/ppo/checkpoint-*"
expect 0 hone pause 1
await_state 1 paused 30
[ ! -d run-1/ppo/final ] || fail "it was over before the pause"
[ -z "$(workers "--out $dir/run-1")" ] || fail "a worker of a paused job runs"
kill_honed
start_honed "${serve[@]}"
[ "$(state 1)" = paused ] || fail "job 1 is $(state 1) after the restart"
expect 0 hone resume 1
for _ in $(seq 200); do
    victim=$(workers "--out $dir/run-")
    victim=${victim%%$'\n'*}
    [ -n "$victim" ] && break
    sleep 0.05
done
[ -n "$victim" ] || fail "no worker runs"
kill -KILL "$victim"
kill_honed
start_honed "${serve[@]}"

echo "all end in the same bits"
for job in 1 2 3; do
    await_state $job done 120
    for stage in sft rm ppo; do
        cmp "whole-$job/$stage/final/model.safetensors" "run-$job/$stage/final/model.safetensors" ||
            fail "$stage of job $job differs"
    done
done
wait "$watcher" || { cat watch.err; fail "hone watch: exit status $?"; }
told_once watched
! grep -qF "$(cat config/hone/alice.token)" honed.log || fail "a token is in the log"
end_honed
echo "elsewhere: all well"
