#!/usr/bin/env bash
# The compiler kept the inner loops of AVX-512 and AMX as they were meant: the instructions
# that were asked for, as many as the register tile needs, and nothing spilled to the stack.
# Looks at the object files of an optimized build by gcc; elsewhere there is nothing to see.
set -eu
objects=${HONE_BIN:?the folder of the programs}/../CMakeFiles/hone_kernels.dir/kernels/cpu
skip() {
    echo "skipped: $1"
    exit 77
}
command -v objdump >/dev/null || skip "no objdump"
[ -f "$objects/bf16_x86.c.o" ] || skip "no object files beside the programs"
grep -q 'CMAKE_BUILD_TYPE:.*=Release' "$objects/../../../../CMakeCache.txt" ||
    skip "no optimized build"
objdump -s -j .comment "$objects/bf16_x86.c.o" | grep -q GCC || skip "not built by gcc"
grep -q 'HONE_SANITIZE:BOOL=ON' "$objects/../../../../CMakeCache.txt" && skip "sanitized"

# loop FILE INSTRUCTION COUNT MOST: some loop of FILE has COUNT times INSTRUCTION among at
# most MOST instructions and touches no stack.
loop() {
    objdump -d --no-show-raw-insn "$objects/$1" | awk -v want="$2" -v count="$3" -v most="$4" '
        /^ *[0-9a-f]+:\t/ {
            line[++n] = $0
            split($1, a, ":")
            at[a[1]] = n
            if ($2 ~ /^j/ && $3 in at && n - at[$3] < most) {
                found = stack = 0
                for (i = at[$3]; i <= n; i++) {
                    found += line[i] ~ want
                    stack += line[i] ~ /%r[sb]p/
                }
                good += found == count && !stack
            }
        }
        END { exit !good }' || {
        echo "$1: no loop of at most $4 instructions has $3 of $2 and no use of the stack"
        exit 1
    }
}
[ "$(uname -m)" = x86_64 ] || skip "not x86-64"
loop bf16_x86.c.o 'vdpbf16ps .*%zmm' 28 52
loop bf16_x86.c.o 'tdpbf16ps' 4 18
loop bf16_x86.c.o 'tileloadd' 4 18
loop loops_avx512.c.o 'vfmadd...ps .*%zmm' 28 56
