#!/usr/bin/env bash
# One bug at a time in the kernels: a barrier, a mask, a bound, a factor. Each must be
# noticed by the operator tests: by a wrong result, or by the emulator's own checks (lines
# marked race are compiled with the race checker: what they lack shows in no result here).
#
# Every third line is tried, all of them with MUTANTS=all (half an hour on two cores): after
# a change of a kernel's tiles, masks or barriers.
#
# A line of the list: kind | file | test | which occurrence | text | its replacement.
set -u
cd "$(dirname "$0")/../.."
objects=$HONE_TESTS/../CMakeFiles
[ -d "$objects/hone-cuda-race_kernels.dir" ] || { echo "skipped: no race build here"; exit 77; }
dir=$(mktemp -d /tmp/hone-mutate-XXXXXX) || exit 1
trap 'rm -rf "$dir"' EXIT
flags="-std=c++17 -O1 -fPIC -fvisibility=hidden -ffp-contract=off -DHONE_CUDA_EMU -D_GNU_SOURCE
    -Wno-unknown-pragmas -isystem $HONE_CUDA_INCLUDE -Itests/cuda_emu"
rest=
for source in kernels/cuda/*.c kernels/fail.c base/mem.c; do
    rest="$rest $objects/hone-cuda-emu.dir/$source.o"
done
for source in tests/cuda_emu/*.cc; do rest="$rest $objects/emulator.dir/$source.o"; done

plant() { # occurrence, text, replacement, from, to
    FROM=$2 TO=$3 awk -v n="$1" 'BEGIN { RS = "\001"; from = ENVIRON["FROM"]; to = ENVIRON["TO"] } {
        s = $0; out = ""
        for (i = 1; i <= n; i++) {
            at = index(s, from)
            if (!at) exit 1
            out = out substr(s, 1, at - 1) (i < n ? from : to)
            s = substr(s, at + length(from))
        }
        printf "%s%s", out, s }' "$4" >"$5"
}

one() { # number, kind, file, test, occurrence, text, replacement
    local d=$dir/$1 kind=$2 file=$3 name="$3: $6 ($5) -> ${7:-nothing}" built=emu more= said what
    local linked=() source base
    [ "$kind" = race ] && built=race more="-fsanitize=thread -fno-threadsafe-statics"
    mkdir -p "$d/kernels/cuda"
    plant "$5" "$6" "$7" "kernels/cuda/$file" "$d/kernels/cuda/$file" ||
        { echo "STALE    $name"; return; }
    for source in kernels/cuda/*.cu; do
        base=$(basename "$source")
        if [ "$base" = "$file" ] || { [[ $file = *.h ]] && [[ $base = ${file%.h}*.cu ]]; }; then
            [ -e "$d/$source" ] || cp "$source" "$d/$source"
            # shellcheck disable=SC2086
            g++ -I"$d" -I. $flags $more -x c++ -c "$d/$source" -o "$d/$base.o" 2>"$d/err" ||
                { echo "COMPILE  $name"; tail -3 "$d/err"; return; }
            linked+=("$d/$base.o")
        else
            linked+=("$objects/hone-cuda-${built}_kernels.dir/$source.o")
        fi
    done
    # shellcheck disable=SC2086
    g++ -shared "${linked[@]}" $rest -o "$d/mutant.so" -lpthread -ldl -lm 2>"$d/err" ||
        { echo "LINK     $name"; tail -3 "$d/err"; return; }
    said=$(HONE_TEST_BACKEND=cuda HONE_CUDA_PLUGIN=$d/mutant.so EMU_SEED=3 EMU_SHARED=99 CMOCKA_TEST_ABORT=1 \
        timeout 200 "$HONE_TESTS/op_$4" 2>&1)
    what=$?
    if [ $what = 0 ]; then
        echo "MISSED   $name"
    elif [ "$kind" = race ] && ! echo "$said" | grep -q 'race: \|ERROR'; then
        echo "MISSED   $name (status $what)"
    else
        echo "noticed  $name: $(echo "$said" | sed -n 's/.*\(race: thread\|different barriers\|deadlock\).*/\1/p' | head -1)"
    fi
    rm -rf "$d"
}
export -f one plant
export dir flags objects rest

i=0
while IFS='|' read -r kind file test n from to; do
    i=$((i + 1))
    [ "${MUTANTS:-}" = all ] || [ $((i % 3)) = 1 ] || continue
    printf '%s\0' "$i" "$kind" "$file" "$test" "$n" "$from" "$to"
done <<'END' | xargs -0 -n 7 -P "$(nproc)" bash -c 'one "$@"' _ | tee "$dir/all"
race|attention.cu|attention|1|__syncthreads(); /* the tile|/* the tile
race|attention.h|attention|1|__syncwarp(); /* what|/* what
race|attention.h|attention|2|__syncwarp();|
race|attention_backward.cu|attention|1|__syncthreads(); /* the tile|/* the tile
race|attention_backward.cu|attention|2|__syncthreads(); /* the tile|/* the tile
race|columns.cu|norm|1|__syncthreads();|
race|tokens.cu|tokens|1|__syncthreads();|
plain|attention.cu|attention|1|max(0, t.begin - a.window + 1)|max(0, t.begin - a.window + N)
plain|attention.cu|attention|1|to = min(to, t.begin + M)|to = min(to, t.begin + M - N)
plain|attention.cu|attention|1|l[r] *= shrink|l[r] *= 1
plain|attention.cu|attention|1|(j + c) % 4|c
plain|attention.cu|attention|1|h / (a.H / a.K)|h % a.K
plain|attention.cu|attention|1|top == -INFINITY ? 0 : top|top
plain|attention.h|attention|1|!(causal && j > i)|!(causal && j >= i)
plain|attention.h|attention|1|i - j >= window|i - j > window
plain|attention.h|attention|1|j < length && |
plain|attention.h|attention|1|first + r < valid|first + r <= valid
plain|attention_backward.cu|attention|1|t.begin + M - 1 + a.window|t.begin + a.window
plain|attention_backward.cu|attention|1|(j + r) % 4|r
plain|attention_backward.cu|attention|1|h < (kv + 1) * group|h < kv * group + 1
plain|attention_backward.cu|attention|1|g[r][c] - minus)|g[r][c])
race|flash.cu|attention|1|__syncthreads(); /* K is|/* K is
race|flash.cu|attention|1|__syncthreads(); /* V is|/* V is
plain|flash.cu|attention|1|copy_wait<0>();|
plain|flash.cu|attention|2|copy_wait<0>();|
race|flash_backward.cu|attention|1|__syncthreads(); /* the tile|/* the tile
race|flash_backward.cu|attention|2|__syncthreads(); /* the tile|/* the tile
plain|flash_backward.cu|attention|1|copy_wait<0>();|copy_wait<1>();
plain|flash_backward.cu|attention|2|copy_wait<0>();|copy_wait<1>();
plain|flash.cu|attention|1|top == -INFINITY ? 0 : top * c|top * c
plain|flash.cu|attention|1|shrink != 1|shrink > 1
plain|flash.cu|attention|1|l[slot] * shrink + sum|l[slot] + sum
plain|flash.cu|attention|1|h / (a.H / a.K)|h % a.K
plain|flash.cu|attention|1|to = min(to, t.begin + M)|to = min(to, t.begin + M - N)
plain|flash.cu|attention|1|max(0, t.begin - a.window + 1)|max(0, t.begin - a.window + N)
plain|flash.cu|attention|1|(j0 + 8 * n) / 4|j0 / 4 + n
plain|flash.cu|attention|1|P::row_sum(l[i][slot])|l[i][slot]
plain|flash.h|attention|1|j < s.length && |
plain|flash.h|attention|1|i - j >= s.window)|i - j > s.window)
plain|flash.h|attention|1|s.causal && j > i)|s.causal && j >= i)
plain|flash.h|attention|1|j0 + keys - 1) && sees|j0) && sees
plain|flash.h|attention|1|sees(s, i0 + rows - 1, j0)|sees(s, i0, j0)
plain|flash.h|attention|1|j0 > i0 + rows - 1|j0 > i0
plain|flash.h|attention|1|i0 - (j0 + keys - 1) >= s.window|i0 - j0 >= s.window
plain|flash.h|attention|1|r >= valid|r > valid
plain|flash.h|attention|1|first = odd ? other : mine|first = mine
plain|flash.h|attention|1|group + place / 2 * 2 + l / 16|group + place / 2 * 2
plain|flash.h|attention|1|x >> place & 1|x >> e & 1
plain|flash_backward.cu|attention|1|next_i >= to|next_i > to
plain|flash_backward.cu|attention|1|t.begin + M - 1 + a.window|t.begin + a.window
plain|flash_backward.cu|attention|1|f * g[n][e] - dj[8 * n + P::column(e)]|f * g[n][e]
plain|flash_backward.cu|attention|1|warp % tile::WC * COLUMNS|0
plain|flash_backward.cu|attention|1|next_h < (kv + 1) * group|next_h < kv * group + 1
plain|flash_pack.cu|attention|1|left - 4, w);|left, w);
plain|flash_pack.cu|attention|1|bits = LANES / 2|bits = LANES / 4
plain|norm.cu|norm|1|if (left > 1)|
race|norm.cu|norm|1|__syncthreads();|
plain|norm.cu|norm|1|mgu += sum4(g[j] * u[j])|mgu += sum4(g[j])
plain|norm.cu|norm|1|i ? part[1][c] + sb[j] : sb[j]|sb[j]
plain|norm.cu|norm|1|i ? part[c] + sw[j] : sw[j]|sw[j]
race|norm.cu|norm|2|__syncthreads();|
plain|columns.cu|norm|1|r < last|r < p.N
plain|columns.cu|act|1|x * act_slope4|x + act_slope4
plain|columns.cu|norm|1|i += LANES|i += 2 * LANES
plain|tokens.cu|tokens|1|a.inverse ? -s : s|s
plain|loss.cu|loss|1|top = block_max(r.top, part)|top = warp_max(r.top)
plain|loss.cu|logprob|1|r.weighted = block_sum(r.weighted, part);|
plain|loss.cu|logprob|1|raise(before, r.top);|
plain|loss.cu|loss|2|left > 3|left >= 3
plain|train.cu|train|1|decay && t[i].decay != 0|decay && 0
plain|train.cu|train|1|l.at[mid].first <= chunk|l.at[mid].first < chunk
plain|act.cu|act|1|i + 4 <= a.n|i <= a.n
plain|product.cu|matmul|1|x + load4(a.bias + n|x + load4(a.bias
END
missed=$(grep -vc '^noticed' "$dir/all")
echo "$(grep -c '^noticed' "$dir/all") of $(grep -c . "$dir/all") planted bugs noticed, $(grep -c 'race: \|barriers\|deadlock' "$dir/all") by the emulator's own checks"
[ "$missed" = 0 ]
