#!/usr/bin/env bash
# What ranks under mpirun may use: folders (honed --root: a link that is bent outside after
# the check leads nowhere), memory (honed --memory: a rank that wants more fails and says
# so, and nobody else does), processes (none).
. "$(dirname "$0")/common.sh"
need_mpi
HONE_CONFINE=/tmp "$bin/hone-worker" --version >/dev/null 2>&1 || skip "this kernel has no Landlock"
mkdir inside outside
python3 "$here/make_tiny.py" "$dir/inside"
cp inside/train.jsonl outside/secret.jsonl
cd inside
two=(--set resources.workers=2)
ranks() { # process ids, without mpirun
    local pid
    for pid in $(workers); do
        [[ $(tr '\0' ' ' <"/proc/$pid/cmdline") == *mpirun* ]] || echo "$pid"
    done
    return 0
}
trains() { compgen -G "$1/sft/checkpoint-*" >/dev/null; }

echo "a link that is bent outside while the job waits"
start_honed --root "$dir/inside"
submit first "${two[@]}" --set stages.sft.epochs=100000 --set stages.sft.checkpoint_every=20
first=$job
ln -s "$dir/inside/train.jsonl" link.jsonl
submit bent "${two[@]}" --set data.train=link.jsonl
bent=$job
within 60 trains first
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
within 60 ended "$bent"
[ "$(state "$bent")" = failed ] || fail "job $bent is $(state "$bent")"
grep -q "link.jsonl: Permission denied" bent/log || fail "why it failed"
! grep -q "job $bent: .*restart" ../honed.log || fail "wrong input was tried again"

echo "a rank that wants more memory than there is"
end_honed
start_honed --root "$dir/inside" --memory 0.05
submit fat "${two[@]}"
within 60 ended "$job"
[ "$(state "$job")" = failed ] || fail "job $job is $(state "$job")"
grep -qiE "out of memory|cannot allocate memory|resource temporarily unavailable" fat/log || fail "why it failed"
kill -0 "$honed" || fail "honed went with it"
end_honed
start_honed --root "$dir/inside"
submit well "${two[@]}"
within 90 ended "$job"
[ "$(state "$job")" = done ] || fail "job $job is $(state "$job")"
[ -z "$(ranks)" ] || fail "a rank is left"
end_honed
echo "confine: all well"
