#!/usr/bin/env bash
# Everything about the CUDA back end that only a GPU can show, in one call: builds the
# plug-in for this GPU, tests the inline PTX and every operator on it, and V100's attention
# assembled for it; trains a tiny job, and two ranks that share the GPU, where the whole of
# Hone can be built; and prints a table of speeds.
#
#   tests/gpu/run.sh [BUILD_FOLDER]       default: build/gpu
#   EMULATE=1 tests/gpu/run.sh            the same on the CPU, tiny: proves this script
#
# Needs this tree, a CUDA toolkit and a C and C++ compiler; nothing is downloaded. Each part
# has its time limit, all of them together are under 9 minutes. Exit status 0: all passed.
set -u
cd "$(dirname "$0")/../.." || exit 1
build=${1:-build/gpu} emulate=${EMULATE:-} failed=0 began=$SECONDS
mkdir -p "$build/o" || exit 1
build=$(cd "$build" && pwd)
nvcc=${CUDA_HOME:+$CUDA_HOME/bin/}nvcc
command -v "$nvcc" >/dev/null || nvcc=/usr/local/cuda/bin/nvcc
[ -x "$(command -v "$nvcc")" ] || { echo "no nvcc: set CUDA_HOME"; exit 1; }
cuda=$(cd "$(dirname "$(readlink -f "$(command -v "$nvcc")")")/.." && pwd)
jobs=$(nproc)
export HONE_CUDA_PLUGIN=$build/hone-cuda.so HONE_TEST_BACKEND=cuda

check() { # seconds, name, command...: one line
    local limit=$1 name=$2 from=$SECONDS status=0 left=$((430 - SECONDS + began))
    shift 2
    [ -z "$emulate" ] || limit=$((limit * 5)) left=$limit # on a machine of any speed
    limit=$((limit < left ? limit : left < 1 ? 1 : left))
    timeout "$limit" "$@" >"$build/log" 2>&1 || status=$?
    if [ $status = 0 ]; then
        printf 'ok      %-44s %4d s\n' "$name" $((SECONDS - from))
    else
        failed=$((failed + 1))
        printf 'FAILED  %-44s status %d\n' "$name" $status
        tail -n 6 "$build/log" | cut -c 1-150 | sed 's/^/        /'
    fi
}

if [ -z "$emulate" ]; then
    nvidia-smi --query-gpu=name,driver_version,memory.total,compute_cap --format=csv,noheader ||
        { echo "no GPU here: nvidia-smi fails"; exit 1; }
    arch=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .)
else
    echo "emulated: this proves the script, not a GPU"
fi
"$nvcc" --version | tail -2 | head -1

host="-O2 -g1 -D_GNU_SOURCE -I. -isystem $cuda/include -fPIC"
compile() { # list of sources: one object each under $build/o, in parallel
    printf '%s\n' "$@" | xargs -P "$jobs" -I{} bash -c 'source=$1
        object=$0/$(echo "$source" | tr / _).o
        [ "$object" -nt "$source" ] && exit 0
        case $source in
        *.cu) eval "$CU -c $source -o $object" ;;
        *.cc) eval "$CC1 -c $source -o $object" ;;
        *) cc -std=gnu11 $HOST -c "$source" -o "$object" ;;
        esac' "$build/o" {}
}
export HOST=$host
if [ -n "$emulate" ]; then
    export CU="g++ -std=c++17 -x c++ -DHONE_CUDA_EMU -Itests/cuda_emu -Wno-unknown-pragmas -fvisibility=hidden $host"
    export CC1=$CU EMU_SEED=2 HONE_CUDA_TUNE=8
    extra=(tests/cuda_emu/*.cc)
    libraries=(-lpthread -ldl -lm)
    export HONE_NCCL=$HONE_CUDA_PLUGIN
    tiny=--tiny
else
    export CU="$nvcc -std=c++17 -O3 -lineinfo -arch=sm_$arch -D_GNU_SOURCE -I. -Xcompiler -fPIC,-fvisibility=hidden"
    extra=()
    libraries=("$cuda/lib64/libcublasLt.so" "$cuda/lib64/libcudart_static.a" -lpthread -ldl -lrt -lm)
    export LD_LIBRARY_PATH=$cuda/lib64${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    tiny=
fi
plugin=(kernels/cuda/*.cu kernels/cuda/*.c kernels/fail.c base/mem.c "${extra[@]}")
small=(kernels/*.c kernels/ref/*.c kernels/cpu/*.c base/mem.c base/rng.c base/err.c base/clock.c)
objects() {
    local source
    for source in "$@"; do echo "$build/o/$(echo "$source" | tr / _).o"; done
}
build_all() {
    compile "${plugin[@]}" "${small[@]}" tests/op/mirror.c tests/gpu/bench.c \
        tests/cuda_emu/test_emu.cu &&
        g++ -shared $(objects "${plugin[@]}") "${libraries[@]}" -o "$HONE_CUDA_PLUGIN" &&
        gcc $(objects "${small[@]}" tests/gpu/bench.c) -lpthread -ldl -lm -o "$build/bench" &&
        g++ $(objects tests/cuda_emu/test_emu.cu "${extra[@]}") "${libraries[@]}" \
            -o "$build/ptx" &&
        for op in act attention coverage logprob loss matmul norm tokens train; do
            gcc -std=gnu11 $host -Itests/gpu "tests/op/test_$op.c" \
                $(objects "${small[@]}" tests/op/mirror.c) -lpthread -ldl -lm \
                -o "$build/op_$op" || return 1
        done
}
# V100's attention: sm_70's form of these files, assembled for this chip.
volta=(kernels/cuda/flash.cu kernels/cuda/flash_backward.cu kernels/cuda/device.c)
build_volta() {
    local build=$build/volta CU=${CU/-arch=sm_$arch/-gencode arch=compute_75,code=sm_$arch}
    local rest=() source
    export CU="$CU -DHONE_CUDA_AS=70" HOST="$HOST -DHONE_CUDA_AS=70"
    mkdir -p "$build/o"
    compile "${volta[@]}" || return 1
    for source in "${plugin[@]}"; do
        [[ " ${volta[*]} " = *" $source "* ]] || rest+=("${build%/volta}/o/${source//\//_}.o")
    done
    g++ -shared $(objects "${volta[@]}") "${rest[@]}" "${libraries[@]}" -o "$build/hone-cuda.so"
}
export -f compile build_all objects 2>/dev/null
from=$SECONDS
if build_all >"$build/log" 2>&1; then
    printf 'ok      %-44s %4d s\n' "build" $((SECONDS - from))
else
    echo "FAILED  build"
    tail -n 20 "$build/log" | cut -c 1-150
    exit 1
fi

check 30 "inline PTX against plain loops" "$build/ptx"
for op in act attention coverage logprob loss matmul norm tokens train; do
    check 60 "operators: $op" "$build/op_$op"
done
if command -v compute-sanitizer >/dev/null && [ -z "$emulate" ]; then
    for op in norm tokens; do
        check 60 "compute-sanitizer: $op" compute-sanitizer --error-exitcode 9 "$build/op_$op"
    done
fi

if [ -n "$emulate" ]; then
    check 60 "V100's attention" env EMU_CAPABILITY=70 "$build/op_attention"
elif (build_volta) >"$build/log" 2>&1; then
    check 60 "V100's attention" env HONE_CUDA_PLUGIN="$build/volta/hone-cuda.so" \
        "$build/op_attention"
else
    check 1 "build of V100's attention" sh -c "tail -n 6 '$build/log'; exit 1"
fi

# Two ranks on one GPU: NCCL takes them for two hosts (slow: for the result alone).
cat >"$build/two_ranks" <<'SCRIPT'
set -e
build=$1 run=$2
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 HONE_LOCAL_RANK=0
export NCCL_NET=Socket NCCL_SOCKET_IFNAME=lo NCCL_MNNVL_ENABLE=0
mpirun --oversubscribe -np 2 bash -c 'NCCL_HOSTID=hone-$OMPI_COMM_WORLD_RANK exec "$@"' ranks \
    "$build/hone/bin/hone-worker" "$build/job/job.yaml" --out "$build/job/$run" --stage sft \
    --set resources.device=cuda 2>&1 | tee "$build/said"
grep -q 'sums over 2 devices by NCCL' "$build/said"
SCRIPT

# The whole of Hone, where its libraries are there.
if cmake -S . -B "$build/hone" -G Ninja -DHONE_CUDA=OFF -DBUILD_TESTING=OFF >"$build/log" 2>&1 &&
    command -v python3 >/dev/null; then
    check 240 "build hone-worker" cmake --build "$build/hone" --target hone-worker
    cmake --build "$build/hone" --target hone-mpi >"$build/log" 2>&1 || true # without MPI: none
fi
if [ -x "$build/hone/bin/hone-worker" ]; then
    rm -rf "$build/job"
    mkdir "$build/job"
    python3 tests/e2e/make_tiny.py "$build/job" --rows 40
    for run in one two; do
        check 60 "a tiny job, SFT to PPO: $run" "$build/hone/bin/hone-worker" \
            "$build/job/job.yaml" --out "$build/job/$run" --set resources.device=cuda
    done
    check 60 "the same without CUDA graphs" env HONE_CUDA_GRAPHS=off \
        "$build/hone/bin/hone-worker" "$build/job/job.yaml" --out "$build/job/three" \
        --set resources.device=cuda
    check 5 "with and without, the same bits" cmp "$build/job/one/ppo/final/model.safetensors" \
        "$build/job/three/ppo/final/model.safetensors"
    check 5 "two runs, the same bits" cmp "$build/job/one/ppo/final/model.safetensors" \
        "$build/job/two/ppo/final/model.safetensors"
    if command -v mpirun >/dev/null && [ -e "$build/hone/lib/hone/hone-mpi.so" ]; then
        for run in ranks again; do
            check 90 "two ranks on one GPU: $run" bash "$build/two_ranks" "$build" $run
        done
        check 5 "two ranks, the same bits" cmp "$build/job/ranks/sft/final/model.safetensors" \
            "$build/job/again/sft/final/model.safetensors"
    else
        echo "skipped  two ranks on one GPU: there is no MPI"
    fi
else
    echo "skipped  a whole job: Hone's libraries (deploy/packages.sh) are not installed"
fi

echo
timeout 90 "$build/bench" cuda $tiny || failed=$((failed + 1))
for graphs in on off; do
    echo "CUDA graphs $graphs:"
    HONE_CUDA_GRAPHS=$graphs timeout 30 "$build/bench" cuda $tiny --steps | tail -n +2 ||
        failed=$((failed + 1))
done
echo
echo "$((SECONDS - began)) s, $failed failed"
[ $failed = 0 ]
