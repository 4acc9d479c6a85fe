#!/usr/bin/env bash
# hone doctor: a table and one JSON document in about a second, and what it says of a
# machine without mpirun and of a process that may use one core.
set -u
bin=${HONE_BIN:?}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
status=0
fail() {
    echo "doctor: $*"
    status=1
}

start=$(date +%s%N)
"$bin/hone" doctor >"$out/table" 2>"$out/err" || fail "exit status $?"
took=$((($(date +%s%N) - start) / 1000000))
[ "$took" -lt 12000 ] || fail "it took $took ms"
[ -s "$out/err" ] && fail "it wrote to standard error: $(cat "$out/err")"
for word in processor instructions 'cores  ' memory /dev/shm disk GPUs CUDA MPI \
    'matrix products, f32' 'memory, a = b' bf16 all-reduce; do
    grep -q "$word" "$out/table" || fail "no \"$word\" in the table"
done
"$bin/hone" doctor --json >"$out/json" || fail "--json: exit status $?"
python3 - "$out/json" <<'PY' || fail "the JSON document is not as documented"
import json, os, sys
d = json.load(open(sys.argv[1]))
assert d["cpu"]["affinity"] == len(os.sched_getaffinity(0)), d["cpu"]
assert 1 <= d["cpu"]["usable"] <= d["cpu"]["affinity"]
total = int(open("/proc/meminfo").readline().split()[1]) * 1024
assert d["memory"]["bytes"] == total
s = os.statvfs("/dev/shm")
assert d["shm"]["bytes"] == s.f_blocks * s.f_frsize
assert d["speed"]["matmul_f32_flops"] > 1e8 and d["speed"]["triad_bytes"] > 1e8
assert d["speed"]["matmul_bf16_flops"] > 1e7 and d["speed"]["bf16"]
if d["mpi"]:
    assert d["speed"]["all_reduce_bytes"] > 1e7, d["speed"]["no_all_reduce"]
else:
    assert d["speed"]["all_reduce_bytes"] is None and d["speed"]["no_all_reduce"]
assert all(w["what"] and w["mend"] for w in d["warnings"])
assert isinstance(d["gpus"], list) and isinstance(d["cuda"]["usable"], bool)
PY
ln -s "$(command -v taskset)" "$out/taskset"
PATH=$out taskset -c "$(taskset -cp $$ | sed 's/.*: //; s/[-,].*//')" \
    "$bin/hone" doctor --quick >"$out/one" || fail "--quick: exit status $?"
grep -q 'matrix products, f32' "$out/one" && fail "--quick measures"
grep -q 'mpirun is not in PATH' "$out/one" || fail "no warning without mpirun"
grep -q 'few cores: 1' "$out/one" || fail "no warning with one core"
"$bin/hone" doctor --nonsense >/dev/null 2>&1
[ $? = 2 ] || fail "a wrong flag must give 2"
"$bin/hone" doctor --help | grep -q 'usage: hone doctor' || fail "no --help"
exit $status
