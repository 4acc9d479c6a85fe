#!/usr/bin/env bash
# The whole way of a team: honed on one host, its users on another (a network namespace
# with an address of its own), TLS between them. Three jobs are submitted and one watched;
# PPO is paused and resumed, the daemon and a worker are killed with -9 meanwhile; all end
# in the same bits as runs that nobody disturbed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bin=${HONE_BIN:?the folder of hone, honed and hone-worker}
for program in hone honed hone-worker; do
    [ -x "$bin/$program" ] || { echo "skipped: $bin/$program is not built"; exit 77; }
done
for tool in python3 ip nsenter unshare; do
    PATH=$PATH:/usr/sbin:/sbin command -v $tool >/dev/null || { echo "skipped: there is no $tool"; exit 77; }
done
export PATH=$PATH:/usr/sbin:/sbin
[ "$(id -u)" = 0 ] && unshare -n true 2>/dev/null ||
    { echo "skipped: network namespaces take root"; exit 77; }

dir=$(mktemp -d /tmp/hone-e2e-XXXXXX)
link=hone$$
net=10.79.$(($$ % 250))
honed="" host=""
workers() { # process ids of our hone-workers, of run $1
    local pid
    for pid in $(cd /proc && echo [0-9]*); do
        { tr '\0' ' ' <"/proc/$pid/cmdline"; } 2>/dev/null |
            grep -q "hone-worker $dir/.*--out $dir/${1:-}" && echo "$pid"
    done
    return 0
}
tidy() {
    [ -z "$honed" ] || kill -KILL "$honed" 2>/dev/null || true
    for pid in $(workers); do kill -KILL "$pid" 2>/dev/null || true; done
    [ -z "$host" ] || kill "$host" 2>/dev/null || true
    ip link del "$link" 2>/dev/null || true
    rm -rf "$dir"
}
trap tidy EXIT
export TMPDIR=$dir HOME=$dir
unset XDG_RUNTIME_DIR XDG_STATE_HOME XDG_CONFIG_HOME HONE_TO
python3 "$here/make_tiny.py" "$dir"
cd "$dir"
long=(--set stages.sft.epochs=20 --set stages.rm.epochs=6 --set stages.ppo.epochs=24
    --set resources.threads=1)

fail() {
    echo "FAILED: $*"
    for f in out err log; do [ ! -s $f ] || { echo "  $f:"; tail -15 $f | sed 's/^/  | /'; }; done
    exit 1
}
expect() { # STATUS COMMAND...
    local want=$1 got=0
    shift
    "$@" >out 2>err || got=$?
    [ "$got" = "$want" ] || fail "exit status $got, not $want: $*"
}
await() {
    for _ in $(seq 3000); do
        compgen -G "$1" >/dev/null && return
        sleep 0.02
    done
    fail "$1 does not come"
}
there() { nsenter -t "$host" -n -- "$@"; } # on the other host
hone() { there "$bin/hone" "$@"; }
state() { hone show "$1" --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["state"])'; }
await_state() { # JOB STATE SECONDS
    for _ in $(seq $(($3 * 5))); do
        [ "$(state "$1")" = "$2" ] && return
        sleep 0.2
    done
    fail "job $1 is $(state "$1"), not $2"
}
start_honed() {
    "$bin/honed" --state state --listen "tcp:$net.1:4663" --root "$dir" 2>>log &
    honed=$!
    for _ in $(seq 250); do
        hone ps >/dev/null 2>&1 && return
        sleep 0.02
    done
    fail "honed does not start, or cannot be reached"
}

echo "another host"
unshare -n sleep 1000 &
host=$!
for _ in $(seq 100); do
    [ "$(readlink /proc/$host/ns/net)" != "$(readlink /proc/self/ns/net)" ] && break
    sleep 0.02
done
ip link add "$link" type veth peer name eth0 netns "$host" 2>err ||
    { echo "skipped: $(cat err)"; exit 77; }
ip addr add "$net.1/24" dev "$link"
ip link set "$link" up
there ip addr add "$net.2/24" dev eth0
there ip link set eth0 up

echo "runs that nobody disturbs"
for seed in 1 2 3; do
    expect 0 "$bin/hone" run job.yaml "${long[@]}" --set seed=$seed --out whole-$seed
done

echo "a certificate, a token, a context"
expect 2 "$bin/honed" --state state --listen "tcp:$net.1:4663"
grep -q 'try: honed token add' err || fail "no mend"
mkdir -p .config/hone
(umask 077 && "$bin/honed" token add alice --role operator --state state >.config/hone/alice.token 2>err)
expect 2 "$bin/honed" --state state --listen "tcp:$net.1:4663"
grep -q 'try: honed cert init' err || fail "no mend"
expect 0 "$bin/honed" cert init --state state --host "$net.1"
cp state/tls/ca.crt .config/hone/lab.crt
cat >.config/hone/config.yaml <<YAML
default: lab
daemons:
  lab: {address: "$net.1:4663", authority: lab.crt, token_file: alice.token}
YAML
start_honed

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
[ -z "$(workers run-1)" ] || fail "a worker of a paused job runs"
kill -KILL "$honed"
wait "$honed" 2>/dev/null || true
start_honed
[ "$(state 1)" = paused ] || fail "job 1 is $(state 1) after the restart"
expect 0 hone resume 1
for _ in $(seq 200); do
    victim=$(workers run-)
    victim=${victim%%$'\n'*}
    [ -n "$victim" ] && break
    sleep 0.05
done
[ -n "$victim" ] || fail "no worker runs"
kill -KILL "$victim"
kill -KILL "$honed"
wait "$honed" 2>/dev/null || true
start_honed

echo "all end in the same bits"
for job in 1 2 3; do
    await_state $job done 120
    for stage in sft rm ppo; do
        cmp "whole-$job/$stage/final/model.safetensors" "run-$job/$stage/final/model.safetensors" ||
            fail "$stage of job $job differs"
    done
done
wait "$watcher" || { cat watch.err; fail "hone watch: exit status $?"; }
python3 - <<'PY' || fail "what was watched"
import json
events = [json.loads(line) for line in open("watched")]
seqs = [e["seq"] for e in events if "seq" in e]
assert seqs == list(range(1, len(seqs) + 1)), "a hole or a repeat"
PY
! grep -qF "$(cat .config/hone/alice.token)" log || fail "a token is in the log"
kill "$honed"
wait "$honed" || fail "honed ended with status $?"
honed=""
echo "elsewhere: all well"
