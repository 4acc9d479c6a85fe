#!/usr/bin/env bash
# A honed whose first rank lies on another host, which does not see honed's socket: it
# reports over TLS (honed --uplink), with its secret in no argument, confined as it would be
# here; honed is killed meanwhile and adopts mpirun. Hosts are network namespaces of the
# development tool netns-mpi.sh.
. "$(dirname "$0")/common.sh"
net=${HONE_SHARED:-$here/../../../shared}/tools/netns-mpi.sh
[ -e "$net" ] || skip "$net is absent"
need_mpi
need_networks
export NM_DIR=$dir/nm
mkdir site state
bash "$net" up 2 >up 2>&1 || { cat up; skip "no network namespaces"; }
tidy_more() { bash "$net" down >/dev/null 2>&1 || true; }
on() { # HOST COMMAND...
    nsenter -t "$(cat "$NM_DIR/$1.pid")" -n -u -m -- "${@:2}"
}
python3 "$here/make_tiny.py" "$dir/site"
cd "$dir/site"
"$bin/honed" token add alice --state "$dir/state" >"$dir/token" 2>err
"$bin/honed" cert init --state "$dir/state" --host 10.78.0.1 >out 2>err
on h2 mount -t tmpfs tmpfs "$dir/state"
printf 'h2 slots=1\nh1 slots=1\n' >"$dir/hosts"
export OMPI_MCA_plm=rsh OMPI_MCA_plm_rsh_agent="bash $net agent" \
    OMPI_MCA_orte_default_hostfile="$dir/hosts" OMPI_MCA_oob_tcp_if_include=eth0 \
    OMPI_MCA_btl_tcp_if_include=eth0
export HONE_TO=unix:$dir/state/socket
honed_through=(nsenter -t "$(cat "$NM_DIR/h1.pid")" -n -u -m --)
serve=(--state "$dir/state" --listen tcp:10.78.0.1:4663 --uplink 10.78.0.1:4663 --root "$dir/site")
start_honed "${serve[@]}"
submit "$dir/site/run" --set resources.workers=2 --set resources.threads=1 \
    --set stages.sft.epochs=60
await "run/sft/checkpoint-*"
kill_honed
[ "$(workers | wc -l)" -ge 3 ] || fail "the workers did not go on"
for pid in $(workers); do
    case $(cat "/proc/$pid/comm") in hone-worker) ;; *) continue ;; esac
    grep -q 'NoNewPrivs:.*1' "/proc/$pid/status" || fail "a rank is not confined"
    token=$(tr '\0' '\n' <"/proc/$pid/environ" | sed -n 's/^HONE_UPLINK_TOKEN=//p')
    [ -n "$token" ] || fail "a rank without its secret"
done
start_honed "${serve[@]}"
for pid in $(workers); do
    ! tr '\0' ' ' <"/proc/$pid/cmdline" | grep -qF "$token" || fail "a secret in an argument"
done
timeout 120 "$hone" watch 1 --after 0 --json >watched 2>err || fail "hone watch: status $?"
! grep -q "taken from metrics.jsonl" "$dir/honed.log" || fail "rank 0 did not report itself"
grep -q "honed is back, the worker goes on" "$dir/honed.log" || fail "mpirun was not adopted"
told_once watched run
! grep -qF "$token" "$dir/honed.log" || fail "a secret is in the log"
end_honed
echo "far: all well"
