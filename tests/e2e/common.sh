# What scripts that run whole programs share. Sourced first of all:
#
#     . "$(dirname "$0")/common.sh"
#
# Then the script is in $dir, a new folder that goes at the end with the honed and the
# workers that it started there ($honed, workers); $bin has the programs, $here is this
# folder. `out` and `err` are what the last command under `expect` printed.
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

dir=$(mktemp -d /tmp/hone-e2e-XXXXXX)
honed=
workers() { # process ids of our hone-workers, of a stage $1
    local file words
    for file in /proc/[0-9]*/cmdline; do
        { mapfile -d '' -t words <"$file"; } 2>/dev/null || continue
        [[ ${words[*]} == *"hone-worker $dir/"*"${1:+--stage $1}"* ]] || continue
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
    tidy_more
    rm -rf "$dir"
}
trap tidy EXIT
export TMPDIR=$dir HOME=$dir XDG_STATE_HOME=$dir/state XDG_CONFIG_HOME=$dir/config
unset XDG_RUNTIME_DIR HONE_TO HONE_TOKEN HONE_AUTHORITY HONE_CERTIFICATE HONE_KEY
cd "$dir"

fail() {
    local f
    echo "FAILED: $*"
    for f in out err log honed.log; do
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

start_honed() { # options
    "$bin/honed" "$@" >>honed.log 2>&1 &
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
