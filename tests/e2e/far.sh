#!/usr/bin/env bash
# A honed whose first rank lies on another host, which does not see honed's socket: it
# reports over TLS (honed --uplink), with its secret in no argument, confined as it would be
# here; honed is killed meanwhile and adopts mpirun. Hosts are network namespaces of the
# development tool netns-mpi.sh.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bin=${HONE_BIN:?the folder of hone, honed and hone-worker}
net=${HONE_SHARED:-$here/../../../shared}/tools/netns-mpi.sh
[ -e "$net" ] || { echo "skipped: $net is absent"; exit 77; }
[ -e "$bin/../lib/hone/hone-mpi.so" ] || { echo "skipped: built without MPI"; exit 77; }
export PATH=$PATH:/usr/sbin:/sbin
for program in mpirun ip nsenter unshare python3; do
    command -v $program >/dev/null || { echo "skipped: there is no $program"; exit 77; }
done
[ "$(id -u)" = 0 ] || { echo "skipped: network namespaces want root"; exit 77; }

dir=$(mktemp -d /tmp/hone-far-XXXXXX)
export NM_DIR=$dir/nm TMPDIR=$dir HOME=$dir
unset XDG_RUNTIME_DIR XDG_STATE_HOME XDG_CONFIG_HOME HONE_TO
mkdir "$dir/site" "$dir/state"
if ! bash "$net" up 2 >"$dir/up" 2>&1; then
    cat "$dir/up"
    rm -rf "$dir"
    echo "skipped: no network namespaces"
    exit 77
fi
honed=""
workers() { # process ids of our hone-workers, ranks and mpirun
    local pid
    for pid in $(cd /proc && echo [0-9]*); do
        { tr '\0' ' ' <"/proc/$pid/cmdline"; } 2>/dev/null |
            grep -q "hone-worker $dir/site" && echo "$pid"
    done
    return 0
}
tidy() {
    [ -z "$honed" ] || kill -KILL "$honed" 2>/dev/null || true
    for pid in $(workers); do kill -KILL "$pid" 2>/dev/null || true; done
    bash "$net" down >/dev/null 2>&1 || true
    rm -rf "$dir"
}
trap tidy EXIT
on() { # HOST COMMAND...
    nsenter -t "$(cat "$NM_DIR/$1.pid")" -n -u -m -- "${@:2}"
}
python3 "$here/make_tiny.py" "$dir/site"
cd "$dir/site"
fail() {
    echo "FAILED: $*"
    for f in out err "$dir/log" run/log; do [ ! -s "$f" ] || { echo "  $f:"; tail -15 "$f" | sed 's/^/  | /'; }; done
    exit 1
}
"$bin/honed" token add alice --state "$dir/state" >"$dir/token" 2>err
"$bin/honed" cert init --state "$dir/state" --host 10.78.0.1 >out 2>err
on h2 mount -t tmpfs tmpfs "$dir/state"
printf 'h2 slots=1\nh1 slots=1\n' >"$dir/hosts"
export OMPI_MCA_plm=rsh OMPI_MCA_plm_rsh_agent="bash $net agent" \
    OMPI_MCA_orte_default_hostfile="$dir/hosts" OMPI_MCA_oob_tcp_if_include=eth0 \
    OMPI_MCA_btl_tcp_if_include=eth0
export HONE_TO=unix:$dir/state/socket
start_honed() {
    nsenter -t "$(cat "$NM_DIR/h1.pid")" -n -u -m -- "$bin/honed" --state "$dir/state" \
        --listen tcp:10.78.0.1:4663 --uplink 10.78.0.1:4663 --root "$dir/site" 2>>"$dir/log" &
    honed=$!
    for _ in $(seq 250); do
        "$bin/hone" ps >/dev/null 2>&1 && return
        sleep 0.02
    done
    fail "honed does not start"
}
start_honed
"$bin/hone" submit "$dir/site/job.yaml" --out "$dir/site/run" --set resources.workers=2 \
    --set resources.threads=1 --set stages.sft.epochs=60 >out 2>err || fail "submit"
for _ in $(seq 1000); do
    compgen -G "run/sft/checkpoint-*" >/dev/null && break
    sleep 0.05
done
kill -KILL "$honed"
wait "$honed" 2>/dev/null || true
[ "$(workers | wc -l)" -ge 3 ] || fail "the workers did not go on"
for pid in $(workers); do
    case $(cat "/proc/$pid/comm") in hone-worker) ;; *) continue ;; esac
    grep -q 'NoNewPrivs:.*1' "/proc/$pid/status" || fail "a rank is not confined"
    token=$(tr '\0' '\n' <"/proc/$pid/environ" | sed -n 's/^HONE_UPLINK_TOKEN=//p')
    [ -n "$token" ] || fail "a rank without its secret"
done
start_honed
for pid in $(workers); do
    ! tr '\0' ' ' <"/proc/$pid/cmdline" | grep -qF "$token" || fail "a secret in an argument"
done
timeout 120 "$bin/hone" watch 1 --after 0 --json >watched 2>err || fail "hone watch: status $?"
! grep -q "taken from metrics.jsonl" "$dir/log" || fail "rank 0 did not report itself"
grep -q "honed is back, the worker goes on" "$dir/log" || fail "mpirun was not adopted"
python3 - "$(on h2 hostname)" <<'PY' || fail "what was watched"
import json, sys
events = [json.loads(l) for l in open("watched")]
seqs = [e["seq"] for e in events if "seq" in e]
assert seqs == list(range(1, len(seqs) + 1)), "a hole or a repeat"
for stage in ("sft", "rm", "ppo"):
    want = [json.loads(l) for l in open(f"run/{stage}/metrics.jsonl")]
    got = [e["data"] for e in events if e["event"] == "metric" and e["stage"] == stage]
    assert got == want, (stage, len(got), len(want))
PY
! grep -qF "$token" "$dir/log" || fail "a secret is in the log"
kill "$honed"
wait "$honed" || fail "honed ended with status $?"
honed=""
echo "far: all well"
