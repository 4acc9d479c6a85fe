#!/usr/bin/env bash
# What may go wrong with GPUs and their ranks, in the real worker on two ranks (docs/GPU.md,
# "What goes wrong"): each ends within seconds with one message that names rank, host and
# device, the mend, and the newest checkpoint; what is named is whole, and a resume from it
# gives the bits of a run without a fault.
need=mpirun tiny_model="--rows 32 --width 16 --layers 1"
. "$(dirname "$0")/common.sh"
export EMU_DEVICES=8 HONE_NCCL=$plugin HONE_NCCL_SECONDS=3
export HONE_NVML=$HONE_TESTS/fake_nvml.so
export HONE_CUDA_GRAPHS=off # what fails below is the n-th launch of a kernel
runs=0

# ranks RUN OPTION...: its exit status; what it said is in err. Every step has a checkpoint.
ranks() {
    local run=$1
    shift
    timeout -k 5 120 mpirun --oversubscribe -np 2 "$worker" job.yaml --out "$run" \
        --stage sft --set resources.device=cuda --set resources.precision=f32 \
        --set resources.bucket_mb=8 \
        --set stages.sft.log_every=1 --set stages.sft.checkpoint_every=1 "$@" >err 2>&1
}
same() {
    cmp "$1/sft/final/model.safetensors" clean/sft/final/model.safetensors ||
        fail "$1 has other bits than a clean run"
}
# said NAME SECONDS WORDS...: one message, with all of the words, in time; the checkpoint it
# names, if one is there, is whole.
said() {
    local name=$1 seconds=$2 named
    shift 2
    [ $((SECONDS - since)) -le "$seconds" ] || fail "$name took $((SECONDS - since)) s"
    [ "$(grep -c '^hone: ' err)" = 1 ] || fail "$name: not one message"
    for words in "$@"; do
        grep -q -e "^hone: .*$words" -e "^  try: .*$words" err ||
            fail "$name: \"$words\" was not said"
    done
    named=$(sed -n 's|^  try: .*--resume goes on from \(.*/checkpoint-[0-9]*\)$|\1|p' err)
    [ -z "$named" ] || [ ! -d "$named" ] || [ -e "$named/manifest.json" ] ||
        fail "$name: $named is not whole"
    runs=$((runs + 1))
}
# starts_not STATUS NAME WORDS ENVIRONMENT...: before the first step, on rank 1.
starts_not() {
    local status=$1 name=$2 words=$3 got=0 since=$SECONDS
    shift 3
    (for assignment in "$@"; do export "${assignment?}"; done; ranks "$name") || got=$?
    [ "$got" = "$status" ] || fail "$name: exit status $got, not $status"
    said "$name" 20 "$words" .
    ! compgen -G "$name/sft/checkpoint-*" >/dev/null || fail "$name: a step was taken"
}
# ends NAME WORDS ENVIRONMENT...: in training, with a checkpoint.
ends() {
    local name=$1 words=$2 got=0 since=$SECONDS
    shift 2
    (for assignment in "$@"; do export "${assignment?}"; done
        ranks "$name" --set stages.sft.epochs="${EPOCHS:-2}") || got=$?
    [ $got != 0 ] || fail "$name: the job ended well"
    said "$name" 25 "$words" "--resume goes on from $name/sft/checkpoint-[0-9]*$"
}
resumes() { # NAME
    (unset EMU_RANK; ranks "$1" --resume) || fail "$1 does not go on"
    same "$1"
}
# differ ENVIRONMENT: what rank 1 alone has.
differ() {
    timeout -k 5 60 mpirun --oversubscribe -np 1 "$worker" job.yaml --out differ \
        --set resources.device="${device:-cuda}" : -np 1 env "$@" "$worker" job.yaml \
        --out differ --set resources.device="${device:-cuda}" >err 2>&1
}

ranks clean || fail "two ranks"
export EMU_RANK=1 FAKE_NVML_RANK=1 # what follows happens on rank 1

# ---- plug-ins ----
for case in "absent /nowhere.so the plug-in /nowhere.so is absent: build with -DHONE_CUDA=ON" \
    "version $HONE_TESTS/fake_abi.so the plug-in .*fake_abi.so was built for another version of Hone .*: build both from the same sources"; do
    read -r name file words <<<"$case"
    since=$SECONDS
    if differ HONE_CUDA_PLUGIN="$file"; then fail "$name: the job ended well"; fi
    said "$name" 20 "rank 1 on $host: .*$words"
done
since=$SECONDS
if device=auto differ HONE_CUDA_PLUGIN=/nowhere.so; then fail "one rank on its CPU"; fi
said cpu 20 "rank 1 on $host computes on cpu, rank 0 on $host on cuda" "give every rank a device"

# ---- devices that do not go together ----
starts_not 2 same "ranks 0 on $host and 1 on $host share one device (number 1, emulated GPU)" \
    EMU_SAME_DEVICE=1
grep -q 'try: start as many ranks on a host as it has devices' err || fail "no mend"
starts_not 1 fewer "rank 1 on $host: .*local rank 1 has no device of its own, this host shows 1: lower resources.workers" \
    EMU_DEVICES=1
starts_not 1 connect "rank 0 on $host: .*device 0 .*connection of the ranks: NCCL has not come to an end in time" \
    EMU_NCCL=init-hang
grep -q 'try: NCCL_SOCKET_IFNAME' err || fail "no mend"
starts_not 1 refuse "rank 1 on $host: .*device 1 .*connection of the ranks: NCCL" \
    EMU_NCCL=init-fail
for call in cudaStreamCreateWithPriority:0 cudaEventCreateWithFlags:30; do
    starts_not 1 "${call%:*}" "rank 1 on $host: .*device 1" EMU_FAIL=$call
done

# ---- a rank that is missing ----
ends stalls "rank 1 on $host (pid [0-9]*, device 1) is missing from sum [0-9]* (.*, step [0-9]*) since 3 s: it is at step [0-9]*, [a-z]*" \
    EMU_STALL=cudaEventRecord:50
resumes stalls
ends stands "rank 1 on $host (pid [0-9]*, device 1) has not come on for [0-9]* s and all others wait for it: it is at step 6, backward" \
    EMU_STALL=launch:300
ends dies "rank 1 on $host (pid [0-9]*, device 1) was killed or crashed at step" EMU_NCCL=die:11
resumes dies
ends hangs "rank [01] on $host (device [01]): sum 11 (.*, step [0-9]*) hangs since 3 s, though every rank has joined it.*: look at the link" \
    EMU_NCCL=hang:11
ends remote "rank 1 on $host: .*device 1 .*remote process exited or there was a network" \
    EMU_NCCL=async:11
ends system "rank 1 on $host: .*device 1 .*unhandled system error" EMU_NCCL=fail:11

# ---- a device that fails ----
ends kernel "rank 1 on $host: .*device 1 of $host (emulated GPU.*unspecified launch failure" \
    EMU_FAIL=launch:300
ends address "rank 1 on $host.*device 1.*illegal memory access" \
    EMU_FAIL=cudaEventQuery:30 EPOCHS=100 # which the watch asks ten times a second
ends bus "rank 1 on $host: .*device 1 of $host.*: unknown error .*; rank 1 on $host (device 1): 0000:3C:00.0 does not answer: GPU is lost (it fell off the bus)" \
    EMU_FAIL=launch:300 EMU_ERROR=999 FAKE_NVML=falls
grep -q 'try: reset this GPU (nvidia-smi -r) or leave it out' err || fail "no mend"
resumes bus
ends xid "rank 1 on $host (device 1): NVIDIA Fake 1000 (0000:3C:00.0) reports Xid 79: it fell off the bus; the machine needs a reboot" \
    EMU_STALL=launch:300 FAKE_NVML=xid EMU_STALLED=$dir/stalled FAKE_NVML_AFTER=$dir/stalled \
    HONE_NCCL_SECONDS=60
ends ecc "rank 1 on $host: .*device 1 of $host.*uncorrectable ECC error.*; rank 1 on $host (device 1): NVIDIA Fake 1000 (0000:3C:00.0) has had 1 uncorrected memory errors since the stage began" \
    EMU_FAIL=launch:300 EMU_ERROR=214 FAKE_NVML=ecc FAKE_NVML_AFTER=ecc/sft/best
ends xid48 "rank 1 on $host: device 1 of $host: .* reports Xid 48: uncorrected memory error: results may be wrong" \
    FAKE_NVML=xid FAKE_NVML_XID=48 FAKE_NVML_AFTER=xid48/sft/best
resumes xid48

# ---- memory: before the first step, so also before the first step of a resume ----
since=$SECONDS
cp -r dies full
rm -rf full/sft/final full/sft/stage.json
if EMU_FAIL=cudaMalloc:1 ranks full --resume; then fail "full: the job ended well"; fi
said full 20 "rank 1 on $host: .*device 1 of $host.*out of memory" \
    "--resume goes on from full/sft/checkpoint-8$"

echo "$runs faults end with rank, host, device, mend and checkpoint"

# ---- what is only warned of ----
warns() { # WORDS ENVIRONMENT...
    local words=$1
    shift
    rm -rf warned
    (for assignment in "$@"; do export "${assignment?}"; done; ranks warned) ||
        fail "$*: only a warning was due"
    grep -q "warning .*$words" err || fail "$*: \"$words\" was not said"
    same warned
}
warns "devices of different kinds: rank 0 on $host has emulated GPU, rank 1 on $host has other; each step waits for the slowest (a job for each kind would not)" \
    EMU_NAME=other EMU_CAPABILITY=70 EMU_MEMORY=64
warns "rank 1 on $host (device 1): no NCCL: .*version 21200, older than 2.14.3: install" \
    EMU_NCCL_VERSION=21200
warns "rank 1 on $host has NCCL 22000, rank 0 on $host .*: install the same on every host" \
    EMU_NCCL_VERSION=22000
warns "rank 0 on $host (device 0): no NCCL: .*libm.so.6 lacks ncclGetVersion" \
    HONE_NCCL=libm.so.6
warns "no NCCL: .*cannot open shared object" HONE_NCCL=/nowhere/libnccl.so.2
