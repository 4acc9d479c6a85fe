# What scripts that run whole programs share. Sourced first of all:
#
#     . "$(dirname "$0")/common.sh"
#
# Then the script is in $dir, a new folder that goes at the end with the honed and the
# workers that it started there ($honed, workers); $bin has the programs, $here is this
# folder. `out` and `err` are what the last command under `expect` printed, honed.log in $dir
# what every honed said.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
bin=${HONE_BIN:?the folder of hone, honed and hone-worker}
hone=$bin/hone
worker=${HONE_WORKER:-$bin/hone-worker}

skip() {
    echo "skipped: $*"
    exit 77
}
need() { # PROGRAM...
    local program
    for program in "$@"; do
        command -v "$program" >/dev/null || skip "there is no $program"
    done
}
need "$bin/hone" "$bin/honed" "$bin/hone-worker" python3
need_mpi() {
    [ -e "$bin/../lib/hone/hone-mpi.so" ] || skip "built without MPI"
    need mpirun
}
need_networks() {
    export PATH=$PATH:/usr/sbin:/sbin
    need ip nsenter unshare
    [ "$(id -u)" = 0 ] && unshare -n true 2>/dev/null || skip "network namespaces take root"
}

dir=$(mktemp -d /tmp/hone-e2e-XXXXXX)
honed= host= link=
workers() { # process ids of our hone-workers and their mpirun; whose words have $1
    local file words
    for file in /proc/[0-9]*/cmdline; do
        { mapfile -d '' -t words <"$file"; } 2>/dev/null || continue
        [[ ${words[*]} == *"hone-worker $dir/"*"${1:-}"* ]] || continue
        file=${file#/proc/}
        echo "${file%/cmdline}"
    done
    return 0
}
tidy_more() { :; } # what a script has to undo besides
tidy() {
    local pid
    [ -z "$honed" ] || kill_honed
    for pid in $(workers); do kill -KILL "$pid" 2>/dev/null || true; done
    [ -z "$host" ] || kill "$host" 2>/dev/null || true
    [ -z "$link" ] || ip link del "$link" 2>/dev/null || true
    tidy_more
    rm -rf "$dir"
}
trap tidy EXIT
export TMPDIR=$dir HOME=$dir XDG_STATE_HOME=$dir/state XDG_CONFIG_HOME=$dir/config
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
unset XDG_RUNTIME_DIR HONE_TO HONE_TOKEN HONE_AUTHORITY HONE_CERTIFICATE HONE_KEY
cd "$dir"

fail() {
    local f
    echo "FAILED: $*"
    for f in out err log "$dir/honed.log"; do
        [ ! -s "$f" ] || { echo "  $f:"; tail -20 "$f" | cut -c1-400 | sed 's/^/  | /'; }
    done
    exit 1
}
expect() { # STATUS COMMAND...
    local want=$1 got=0
    shift
    "$@" >out 2>err || got=$?
    [ "$got" = "$want" ] || fail "exit status $got, not $want: $*"
}
says() { grep -qF -- "$1" err || fail "\"$1\" was not said"; }
prints() { grep -qF -- "$1" out || fail "\"$1\" was not printed"; }
await() { # a file, or a pattern of files
    for _ in $(seq 1500); do
        compgen -G "$1" >/dev/null && return
        sleep 0.02
    done
    fail "$1 does not come"
}

within() { # SECONDS COMMAND...: until it is true
    local until=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $until ] || fail "not in time: $*"
        sleep 0.05
    done
}

honed_through=() # a command that starts honed, on another host say
start_honed() { # options
    "${honed_through[@]}" "$bin/honed" "$@" >>"$dir/honed.log" 2>&1 &
    honed=$!
    for _ in $(seq 500); do
        "$hone" ps >/dev/null 2>&1 && return
        kill -0 "$honed" 2>/dev/null || break
        sleep 0.02
    done
    fail "honed does not start"
}
kill_honed() {
    kill -KILL "$honed" 2>/dev/null || true
    wait "$honed" 2>/dev/null || true
    honed=
}
end_honed() { # as it should be
    kill -TERM "$honed"
    wait "$honed" || fail "honed: exit status $?"
    honed=
}
submit() { # RUN [arguments]: job.yaml; its number in $job
    expect 0 "$hone" submit job.yaml "${@:2}" --out "$1" --json
    job=$(python3 -c 'import json; print(json.load(open("out"))["job"]["id"])')
}
state() { # JOB
    "$hone" show "$1" --json |
        python3 -c 'import json,sys; print(json.load(sys.stdin)["state"])'
}
await_state() { # JOB STATE SECONDS
    for _ in $(seq $(($3 * 10))); do
        [ "$(state "$1")" = "$2" ] && return
        sleep 0.1
    done
    "$hone" show "$1"
    fail "job $1 is $(state "$1"), not $2"
}
ended() { case $(state "$1") in done | failed | stopped) return 0 ;; esac; return 1; }

told_once() { # FILE [RUN]: numbers without a hole or a repeat; the points that RUN wrote
    python3 - "$@" <<'PY' || fail "what $1 has of ${2:-the job}"
import json, sys
events = [json.loads(line) for line in open(sys.argv[1])]
seqs = [e["seq"] for e in events if "seq" in e]
assert seqs == list(range(1, len(seqs) + 1)), "a hole or a repeat"
for stage in ("sft", "rm", "ppo") if len(sys.argv) > 2 else ():
    want = [json.loads(l) for l in open(f"{sys.argv[2]}/{stage}/metrics.jsonl")]
    got = [e["data"] for e in events if e["event"] == "metric" and e["stage"] == stage]
    assert got == want, (stage, len(got), len(want))
PY
}
same_points() { # JOB STAGE RUN: what the daemon has is what the run wrote
    expect 0 "$hone" metrics "$1" --stage "$2" --json
    python3 - "$3/$2/metrics.jsonl" <<'PY' || fail "the points of $2 of $3"
import json, sys
told, want = ([json.loads(l) for l in open(f)] for f in ("out", sys.argv[1]))
for x in told:
    x.pop("stage", None)
for x, y in zip(told, want):
    assert x == y, (x, y)
assert len(told) == len(want), (len(told), len(want))
PY
}

# Another host: a network of its own, NET.2 there and NET.1 here. there COMMAND... runs on it.
new_host() { # NET
    link=hone$$
    unshare -n sleep 1000 &
    host=$!
    within 5 eval '[ "$(readlink /proc/$host/ns/net)" != "$(readlink /proc/self/ns/net)" ]'
    ip link add "$link" type veth peer name eth0 netns "$host" 2>err || skip "$(cat err)"
    ip addr add "$1.1/24" dev "$link"
    ip link set "$link" up
    there ip link set lo up
    there ip addr add "$1.2/24" dev eth0
    there ip link set eth0 up
}
there() { nsenter -t "$host" -n -- "$@"; }
