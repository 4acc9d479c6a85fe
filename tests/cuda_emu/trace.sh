#!/usr/bin/env bash
# What a run on a device tells of itself: its own times of the parts of a step (the emulated
# clock goes on by half a second for each product), NVTX ranges that a profiler sees, the
# GPU's state from NVML, and an Xid as an alarm. A driver that hangs stops nobody.
tiny_model="--rows 16 --width 16 --layers 1"
. "$(dirname "$0")/common.sh"
export HONE_NVML=$HONE_TESTS/fake_nvml.so

train() { # NAME [options]
    local name=$1
    shift
    timeout 120 "$worker" job.yaml --out "$dir/$name" --set resources.device=cuda --stage sft \
        --set stages.sft.log_every=1 "$@" >"$name.out" 2>&1 ||
        fail "$name" "$name.out"
}
FAKE_NVML=xid FAKE_NVML_XID=74 FAKE_NVTX=$dir/ranges NVTX_INJECTION64_PATH=$HONE_TESTS/fake_nvtx.so train a
grep -q 'reports Xid 74: NVLink error' a.out || fail "no Xid"
FAKE_NVML=hang train hangs

python3 - <<'PYTHON'
import json

rows = [json.loads(line) for line in open("a/sft/metrics.jsonl")]
rows = [row for row in rows if row["split"] == "train"]
assert len(rows) >= 3, rows
for row in rows[1:]:  # the first step's are the host's
    # On the device: several products in forward, more in backward, none in the update.
    assert row["time_forward"] >= 2, row
    assert row["time_backward"] > row["time_forward"], row
    assert 0 <= row["time_optimizer"] < 1 and 0 <= row["time_data"] < 1, row
    assert "time_reduce" in row and "time_checkpoint" in row, row
assert any(row.get("gpu_celsius") == 41 and row.get("gpu_watts") == 75.5
           and row.get("gpu_memory_used") == 2e9 for row in rows), rows[-1]
ranges = open("ranges").read().split()
steps = len(rows)
for name in ("load", "forward", "backward", "reduce", "update"):
    assert ranges.count(name) >= steps, (name, ranges.count(name), steps)
assert "checkpoint" in ranges and "evaluate" in ranges
first = ranges.index("forward")
assert ranges[first:first + 4] == ["forward", "backward", "reduce", "update"], ranges[:12]
print(steps, "steps,", len(ranges), "ranges")
PYTHON
