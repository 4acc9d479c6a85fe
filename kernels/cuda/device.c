/* Which device, and what to say when there is none.
 *
 * A process works on one device. Ranks of one host take devices by their local rank
 * (HONE_LOCAL_RANK, else what Open MPI or Slurm says); a list in CUDA_VISIBLE_DEVICES is
 * CUDA's own business. Devices older than sm_70, a driver older than the toolkit, and fewer
 * devices than local ranks are "0 devices" with a reason, since nothing could run. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/cuda/cuda.h"

enum { CAPABILITY_LEAST = 70, CAPABILITY_BF16 = 80 };

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int count, device, opened, capability;
static char reason[256], name[200], model[64];
static char bf16[96], f16[96]; /* the units that multiply it, or "" */
static cudaStream_t stream;
static pthread_mutex_t open_lock = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local int current; /* is the device this thread's? */

static int local_rank(void)
{
    const char *s = getenv("HONE_LOCAL_RANK");
    long rank;

    if (!s || !*s)
        s = getenv("OMPI_COMM_WORLD_LOCAL_RANK");
    if (!s || !*s) /* srun without mpirun */
        s = getenv("SLURM_LOCALID");
    rank = s ? strtol(s, NULL, 10) : 0;
    return rank > 0 && rank < 1 << 16 ? (int)rank : 0;
}

static void no_driver(cudaError_t e)
{
    int driver = 0, runtime = 0;

    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    if (e == cudaErrorInsufficientDriver && driver)
        snprintf(reason, sizeof reason,
                 "the driver serves CUDA %d.%d, this build needs %d.%d: update the driver, "
                 "or build with an older toolkit",
                 driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    else if (e == cudaErrorInsufficientDriver)
        snprintf(reason, sizeof reason, "no NVIDIA driver is loaded");
    else
        snprintf(reason, sizeof reason, "%s", cudaGetErrorString(e));
}

static void look(void)
{
    struct cudaDeviceProp p;
    char host[72];
    int n = 0, rank = local_rank();
    cudaError_t e = cudaGetDeviceCount(&n);

    cudaGetLastError(); /* found out, not an error of what comes next */
    if (e) {
        no_driver(e);
        return;
    }
    if (n == 1 && getenv("SLURM_LOCALID") && getenv("CUDA_VISIBLE_DEVICES"))
        rank = 0; /* srun --gpus-per-task: each sees its own; equal ones are found later */
    if (rank >= n) {
        snprintf(reason, sizeof reason,
                 "local rank %d has no device of its own, this host shows %d: lower "
                 "resources.workers to %d a host",
                 rank, n, n);
        return;
    }
    device = rank;
    e = cudaGetDeviceProperties(&p, device);
    if (e) {
        snprintf(reason, sizeof reason, "device %d: %s", device, cudaGetErrorString(e));
        return;
    }
    capability = 10 * p.major + p.minor;
#ifdef HONE_CUDA_AS /* tests: the kernels of an older chip (flash.h) */
    capability = HONE_CUDA_AS;
#endif
    if (capability < CAPABILITY_LEAST) {
        snprintf(reason, sizeof reason,
                 "device %d, %.100s, is of compute capability %d.%d, older than 7.0",
                 device, p.name, p.major, p.minor);
        return;
    }
    count = n;
    snprintf(model, sizeof model, "%.63s", p.name);
    snprintf(f16, sizeof f16, "tensor cores of %.64s", p.name);
    if (capability >= CAPABILITY_BF16)
        snprintf(bf16, sizeof bf16, "tensor cores of %.64s", p.name);
    if (gethostname(host, sizeof host))
        *host = 0;
    host[sizeof host - 1] = 0;
    snprintf(name, sizeof name, "device %d of %s (%.60s, sm_%d%d, %.1f GB)", device, host,
             p.name, p.major, p.minor, (double)p.totalGlobalMem / 1e9);
}

int cuda_devices(void)
{
    pthread_once(&once, look);
    return count;
}

void cuda_describe(char *buf, size_t n)
{
    if (!cuda_devices())
        snprintf(buf, n, "cuda: no device: %s", reason);
    else
        snprintf(buf, n, "cuda: %s, 1 of %d, f32%s", name, count,
                 cuda_bf16() ? ", tf32, f16 and bf16" : " and f16");
}

void cuda_model(char *buf, size_t n)
{
    snprintf(buf, n, "%s", cuda_devices() ? model : "no device");
}

int cuda_device(void)
{
    return device;
}

int cuda_capability(void)
{
    return cuda_devices() ? capability : 0;
}

const char *cuda_bf16(void)
{
    return cuda_devices() && *bf16 ? bf16 : NULL;
}

const char *cuda_f16(void)
{
    return cuda_devices() ? f16 : NULL;
}

static _Thread_local cudaStream_t diverted;

cudaStream_t cuda_stream(void)
{
    return diverted ? diverted : stream;
}

void cuda_divert(cudaStream_t to)
{
    diverted = to;
}

/* What helps, where that is known. */
static const char *mend_of(cudaError_t e)
{
    switch (e) {
    case cudaErrorMemoryAllocation:
        return ": lower micro_tokens, or free the device";
    case cudaErrorDevicesUnavailable:
        return ": another process holds it (nvidia-smi shows which), or it was lost (dmesg "
               "shows an Xid)";
    case cudaErrorECCUncorrectable:
        return ": its memory is damaged, go on with another device";
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
        return " (in this or an earlier operator)";
    case cudaErrorUnknown:
    case cudaErrorNoDevice:
        return " (dmesg shows an Xid if it was lost)";
    default:
        return "";
    }
}

const char *cuda_name(void)
{
    return cuda_devices() ? name : "cuda";
}

int cuda_check(cudaError_t e, const char *what)
{
    if (!e)
        return 0;
    cudaGetLastError();
    return op_fail(e == cudaErrorMemoryAllocation ? ERR_NOMEM : ERR_DEVICE, "%s: %s: %s%s",
                   *name ? name : "cuda", what, cudaGetErrorString(e), mend_of(e));
}

int cuda_launched(const char *what)
{
    return cuda_check(cudaGetLastError(), what);
}

static int open_stream(void)
{
    int rc = 0;

    pthread_mutex_lock(&open_lock);
    if (!opened) {
        rc = cuda_check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking),
                        "open the device");
        opened = !rc;
    }
    pthread_mutex_unlock(&open_lock);
    return rc;
}

int cuda_ready(void)
{
    int rc;

    if (current)
        return 0;
    if (!cuda_devices())
        return op_fail(ERR_DEVICE, "no CUDA device: %s", reason);
    rc = cuda_check(cudaSetDevice(device), "take the device");
    if (!rc)
        rc = open_stream();
    current = !rc;
    return rc;
}
