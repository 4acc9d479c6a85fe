#!/usr/bin/env bash
# What ranks under mpirun may use: folders (honed --root: a link that is bent outside after
# the check leads nowhere), memory (honed --memory: a rank that wants more fails and says
# so, and nobody else does), processes (none).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bin=${HONE_BIN:?the folder of hone, honed and hone-worker}
for program in hone honed hone-worker; do
    [ -x "$bin/$program" ] || { echo "skipped: $bin/$program is not built"; exit 77; }
done
[ -e "$bin/../lib/hone/hone-mpi.so" ] || { echo "skipped: built without MPI"; exit 77; }
for tool in python3 mpirun; do
    command -v $tool >/dev/null || { echo "skipped: there is no $tool"; exit 77; }
done
HONE_CONFINE=/tmp "$bin/hone-worker" --version >/dev/null 2>&1 ||
    { echo "skipped: this kernel has no Landlock"; exit 77; }

dir=$(mktemp -d /tmp/hone-e2e-XXXXXX)
honed=""
ranks() { # process ids of our ranks
    local pid
    for pid in $(cd /proc && echo [0-9]*); do
        { tr '\0' ' ' <"/proc/$pid/cmdline"; } 2>/dev/null | grep -q "^[^ ]*hone-worker $dir/" &&
            echo "$pid"
    done
    return 0
}
tidy() {
    [ -z "$honed" ] || kill -KILL "$honed" 2>/dev/null || true
    for pid in $(ranks); do kill -KILL "$pid" 2>/dev/null || true; done
    rm -rf "$dir"
}
trap tidy EXIT
export TMPDIR=$dir XDG_STATE_HOME=$dir/state XDG_CONFIG_HOME=$dir/config
unset XDG_RUNTIME_DIR HONE_TO
mkdir "$dir/inside" "$dir/outside"
python3 "$here/make_tiny.py" "$dir/inside"
cp "$dir/inside/train.jsonl" "$dir/outside/secret.jsonl"
cd "$dir/inside"
hone=$bin/hone
two=(--set resources.workers=2)

fail() {
    echo "FAILED: $*"
    for f in out err ../honed.log bent/log fat/log; do
        [ ! -s $f ] || { echo "  $f:"; tail -8 $f | sed 's/^/  | /'; }
    done
    exit 1
}
start_honed() {
    "$bin/honed" --root "$dir/inside" "$@" 2>>../honed.log &
    honed=$!
    for _ in $(seq 500); do
        "$hone" ps >/dev/null 2>&1 && return
        sleep 0.02
    done
    fail "honed does not start"
}
stop_honed() {
    kill "$honed"
    wait "$honed" || fail "honed ended with status $?"
    honed=""
}
submit() { # RUN [arguments]: its number in $job
    "$hone" submit job.yaml "${two[@]}" "${@:2}" --out "$1" --json >out 2>err || fail "submit"
    job=$(python3 -c 'import json; print(json.load(open("out"))["job"]["id"])')
}
state() { "$hone" show "$1" --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["state"])'; }
ended() { case $(state "$1") in done | failed | stopped) return 0 ;; esac; return 1; }
await() { # SECONDS COMMAND...
    for _ in $(seq $(($1 * 20))); do
        "${@:2}" && return
        sleep 0.05
    done
    fail "in vain for $1 s: ${*:2}"
}
trains() { compgen -G "$1/sft/checkpoint-*" >/dev/null; }

echo "a link that is bent outside while the job waits"
start_honed
submit first --set stages.sft.epochs=100000 --set stages.sft.checkpoint_every=20
first=$job
ln -s "$dir/inside/train.jsonl" link.jsonl
submit bent --set data.train=link.jsonl
bent=$job
await 60 trains first
[ "$(state "$bent")" = queued ] || fail "job $bent is $(state "$bent")"
for pid in $(ranks); do
    grep -q 'NoNewPrivs:.*1' "/proc/$pid/status" || fail "a rank is not confined"
    grep -q 'Seccomp:.*2' "/proc/$pid/status" || fail "a rank may start processes"
    grep -qx 500 "/proc/$pid/oom_score_adj" || fail "a rank is as dear to the kernel as honed"
    [ "$(awk '/^Max data size/ {print $4}' "/proc/$pid/limits")" != unlimited ] ||
        fail "a rank without a limit of memory"
done
ln -sfn "$dir/outside/secret.jsonl" link.jsonl
"$hone" cancel "$first" --now >/dev/null
await 60 ended "$bent"
[ "$(state "$bent")" = failed ] || fail "job $bent is $(state "$bent")"
grep -q "link.jsonl: Permission denied" bent/log || fail "why it failed"
! grep -q "job $bent: .*restart" ../honed.log || fail "wrong input was tried again"

echo "a rank that wants more memory than there is"
stop_honed
start_honed --memory 0.05
submit fat
await 60 ended "$job"
[ "$(state "$job")" = failed ] || fail "job $job is $(state "$job")"
grep -qiE "out of memory|cannot allocate memory|resource temporarily unavailable" fat/log || fail "why it failed"
kill -0 "$honed" || fail "honed went with it"
stop_honed
start_honed
submit well
await 90 ended "$job"
[ "$(state "$job")" = done ] || fail "job $job is $(state "$job")"
[ -z "$(ranks)" ] || fail "a rank is left"
stop_honed
echo "confine: all well"
