#!/usr/bin/env bash
# Runs that no daemon started report to one elsewhere: mpirun on another host (a network
# namespace), honed here, TLS between them. The daemon is killed and the link cut meanwhile;
# mpirun is killed and started again; the daemon is away for a whole run: what the client
# sees at the end is what stands in metrics.jsonl, once, and the weights are those of a run
# that reports to nobody.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bin=${HONE_BIN:?the folder of hone, honed and hone-worker}
export PATH=$PATH:/usr/sbin:/sbin
for program in hone honed hone-worker; do
    [ -x "$bin/$program" ] || { echo "skipped: $bin/$program is not built"; exit 77; }
done
[ -e "$bin/../lib/hone/hone-mpi.so" ] || { echo "skipped: built without MPI"; exit 77; }
for tool in python3 mpirun ip nsenter unshare; do
    command -v $tool >/dev/null || { echo "skipped: there is no $tool"; exit 77; }
done
[ "$(id -u)" = 0 ] && unshare -n true 2>/dev/null ||
    { echo "skipped: network namespaces take root"; exit 77; }

dir=$(mktemp -d /tmp/hone-e2e-XXXXXX)
link=honr$$
net=10.80.$(($$ % 250))
honed="" host=""
workers() { # process ids of our hone-workers
    local pid
    for pid in $(cd /proc && echo [0-9]*); do
        { tr '\0' ' ' <"/proc/$pid/cmdline"; } 2>/dev/null |
            grep -q "hone-worker $dir/" && echo "$pid"
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
export TMPDIR=$dir HOME=$dir OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
unset XDG_RUNTIME_DIR XDG_STATE_HOME XDG_CONFIG_HOME HONE_TO HONE_TOKEN HONE_AUTHORITY
python3 "$here/make_tiny.py" "$dir"
cd "$dir"
port=4664
long=(--set stages.sft.epochs=16 --set stages.rm.epochs=6 --set stages.ppo.epochs=4
    --set resources.threads=1)

fail() {
    echo "FAILED: $*"
    for f in out err log; do [ ! -s $f ] || { echo "  $f:"; tail -${TAIL:-15} $f | sed 's/^/  | /'; }; done
    exit 1
}
expect() { # STATUS COMMAND...
    local want=$1 got=0
    shift
    "$@" >out 2>err || got=$?
    [ "$got" = "$want" ] || fail "exit status $got, not $want: $*"
}
says() { grep -qF -- "$1" "${2:-err}" || fail "\"$1\" was not said"; }
await() { # PATTERN
    for _ in $(seq 3000); do
        compgen -G "$1" >/dev/null && return
        sleep 0.02
    done
    fail "$1 does not come"
}
there() { nsenter -t "$host" -n -- "$@"; }
hone() { "$bin/hone" "$@"; }
state() { hone show "$1" --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["state"])'; }
await_state() { # JOB STATE SECONDS
    for _ in $(seq $(($3 * 5))); do
        [ "$(state "$1" 2>/dev/null)" = "$2" ] && return
        sleep 0.2
    done
    fail "job $1 is $(state "$1"), not $2"
}
train() { # RUN [arguments]: two ranks, there
    local run=$1
    shift
    there mpirun -n 2 --oversubscribe --bind-to none --quiet "$bin/hone-worker" "$dir/job.yaml" \
        --out "$dir/$run" "${long[@]}" "$@"
}
start_honed() {
    "$bin/honed" --state state --listen "tcp:$net.1:$port" 2>>log &
    honed=$!
    for _ in $(seq 250); do
        hone ps >/dev/null 2>&1 && return
        sleep 0.02
    done
    fail "honed does not start"
}
kill_honed() {
    kill -KILL "$honed"
    wait "$honed" 2>/dev/null || true
    honed=""
}
complete() { # JOB RUN: what the daemon has is what the run wrote
    for stage in sft rm ppo; do
        cmp "whole/$stage/final/model.safetensors" "$2/$stage/final/model.safetensors" ||
            fail "$stage of $2 differs"
        hone metrics "$1" --stage "$stage" --json >told || fail "hone metrics"
        python3 - "$2/$stage/metrics.jsonl" <<'PY' || fail "the points of $stage of $2"
import json, sys
told, want = ([json.loads(l) for l in open(f)] for f in ("told", sys.argv[1]))
for x in told:
    x.pop("stage", None)
for x, y in zip(told, want):
    assert x == y, (x, y)
assert len(told) == len(want), (len(told), len(want))
PY
    done
    [ ! -e "$2/.hone/uplink-sft" ] || fail "a journal is left"
}

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
there ip link set lo up
there ip addr add "$net.2/24" dev eth0
there ip link set eth0 up

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
start_honed
train run-1 "${to[@]}" >out 2>err &
run=$!
await "run-1/sft/checkpoint-*"
hone watch 1 --after 0 --json >watched 2>watch.err &
watcher=$!
for _ in $(seq 500); do
    [ -s watched ] && break
    sleep 0.02
done
kill_honed
sleep 1
start_honed
await "run-1/rm/metrics.jsonl"
ip link set "$link" down
kill_honed # nobody says goodbye through a cut link
start_honed
sleep 3
ip link set "$link" up
wait "$run" || fail "the run ended with status $?"
await_state 1 done 20
wait "$watcher" || { cat watch.err; fail "hone watch: exit status $?"; }
complete 1 run-1
python3 - <<'PY' || fail "what was watched"
import json
events = [json.loads(line) for line in open("watched")]
seqs = [e["seq"] for e in events if "seq" in e]
assert seqs == list(range(1, len(seqs) + 1)), "a hole or a repeat"
for stage in ("sft", "rm", "ppo"):
    want = [json.loads(l) for l in open(f"run-1/{stage}/metrics.jsonl")]
    got = [e["data"] for e in events if e["event"] == "metric" and e["stage"] == stage]
    assert got == want, (stage, len(got), len(want))
PY

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
start_honed
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
HONE_TOKEN_FILE=$dir/log expect 2 train run-6 "${to[@]}" "${short[@]}"
HONE_TOKEN_FILE= HONE_TOKEN=hone_nonsense expect 0 train run-6 "${to[@]}" "${short[@]}"
says "unreported"
HONE_AUTHORITY=$dir/other/tls/ca.crt expect 0 train run-7 "${to[@]}" "${short[@]}"
says "not trusted"
for f in log out err; do
    ! grep -qF "$(cat token)" $f || fail "a token is in $f"
done
kill "$honed"
wait "$honed" || fail "honed ended with status $?"
honed=""
[ -z "$(workers)" ] || fail "a worker is left"
echo "report: all well"
