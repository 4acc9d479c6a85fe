#!/usr/bin/env bash
# The emulator notices planted bugs: by wrong results, by its own checks, by the race checker
# (or, in a sanitizer build, by AddressSanitizer). Each line below is a bug in a kernel that
# a GPU might well run without complaint.
set -u
cd "$(dirname "$0")/../.."
plain=$HONE_TESTS/emu_plain race=$HONE_TESTS/emu_race status=0
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT

check() { # name, command...: must succeed
    local name=$1
    shift
    if "$@" >"$log" 2>&1; then
        echo "ok      $name"
    else
        echo "FAILED  $name"
        tail -n 15 "$log"
        status=1
    fi
}
noticed() { # text, command...: must fail and say so
    local text=$1
    shift
    if "$@" >"$log" 2>&1 || ! grep -q -e "$text" "$log"; then
        echo "not noticed ($text): $*"
        return 1
    fi
}

for seed in 1 2 3 4; do
    check "operations, order $seed" env EMU_SEED=$seed "$plain"
done
sanitized=$(nm "$plain" 2>/dev/null | grep -c __asan_init || true)
if [ "$sanitized" -gt 0 ]; then
    check "past dynamic shared memory" noticed heap-buffer-overflow "$plain" past_shared
    check "past static shared memory" noticed 'global-buffer-overflow\|out of bounds' \
        "$plain" past_static
    check "past device memory" noticed heap-buffer-overflow "$plain" past_global
    exit $status
fi
for bug in no_sync overwrite no_syncwarp no_wait unset no_event reused_buffer; do
    check "wrong result: $bug" noticed 'result wrong' env EMU_SEED=2 "$plain" $bug
done
check "two barriers" noticed 'different barriers' "$plain" two_barriers
check "a lane that is missing" noticed deadlock "$plain" lost_lane
check "a lane outside its mask" noticed 'not in its mask' "$plain" bad_mask
check "two operations" noticed 'wait for different things' "$plain" two_ops
check "mma with lanes missing" noticed 'needs all 32 lanes' "$plain" part_mma
check "an unaligned row" noticed 'not aligned' "$plain" unaligned
check "shared memory not reserved" noticed cudaFuncSetAttribute "$plain" no_attribute
check "a graph over freed memory" noticed 'freed since' "$plain" freed_memory
check "operations, race checker" "$race"
for bug in no_sync overwrite no_syncwarp no_wait two_blocks; do
    check "race: $bug" noticed 'test_emu.cu:.*race: ' "$race" $bug
done
check "the host in device memory" noticed 'host uses device memory' "$race" host_access
exit $status
