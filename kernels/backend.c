/* The table of back ends: the reference, complete by the linker's word; the CPU back end,
 * which overrides what it does faster; and the CUDA back end, a plug-in (plugin.h) that is
 * looked for once, when it is first asked for, and stays for the life of the process.
 *
 * backend_find() fails with NULL for a name nobody has, and for a plug-in that cannot be
 * used; backend_reason() then says why. */
#include "kernels/backend.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "kernels/cpu/cpu.h"
#include "kernels/fail.h"
#include "kernels/plugin.h"

static int ref_devices(void)
{
    return 1;
}

static void ref_describe(char *buf, size_t n)
{
    snprintf(buf, n, "reference: plain loops, double accumulators, 1 thread");
}

static const char *ref_bf16(void) /* nor f16 */
{
    return NULL;
}

static void ref_set_threads(int n)
{
    (void)n; /* the definition has one thread */
}

static int ref_threads(void)
{
    return 1;
}

static void *ref_alloc(size_t bytes)
{
    return mem_aligned(64, bytes ? bytes : 1);
}

static int ref_copy(void *to, const void *from, size_t bytes)
{
    if (bytes)
        memcpy(to, from, bytes);
    return 0;
}

static int ref_fill_zero(void *p, size_t bytes)
{
    if (bytes)
        memset(p, 0, bytes);
    return 0;
}

static int ref_memory(size_t *left, size_t *all)
{
    *left = *all = 0;
    return 0;
}

static int ref_reserve(size_t bytes, size_t scratch)
{
    (void)bytes;
    (void)scratch;
    return 0;
}

static void ref_step(int begins)
{
    (void)begins;
}

static void ref_pack_free(struct op_pack *p)
{
    mem_free(p->data);
    p->data = NULL;
    p->packed = 0;
}

static const struct backend backend_ref = {.abi = HONE_BACKEND_ABI,
                                           .size = sizeof(struct backend),
                                           .name = "ref",
                                           .devices = ref_devices,
                                           .describe = ref_describe,
                                           .bf16 = ref_bf16,
                                           .f16 = ref_bf16,
                                           .set_threads = ref_set_threads,
                                           .threads = ref_threads,
                                           .alloc = ref_alloc,
                                           .release = mem_free,
                                           .copy_in = ref_copy,
                                           .copy_out = ref_copy,
                                           .fill_zero = ref_fill_zero,
                                           .memory = ref_memory,
                                           .reserve = ref_reserve,
                                           .step = ref_step,
                                           .pack_free = ref_pack_free,
                                           .error = op_error,
#define X(op) .op = ref_##op,
                                           HONE_OPS(X)
#undef X
};

static pthread_once_t cuda_once = PTHREAD_ONCE_INIT;
static const struct backend *backend_cuda;
static char cuda_reason[512];

static void find_cuda(void)
{
    backend_cuda =
        plugin_find("hone-cuda.so", "HONE_CUDA_PLUGIN", cuda_reason, sizeof cuda_reason);
    if (backend_cuda && backend_cuda->devices() < 1)
        backend_cuda->describe(cuda_reason, sizeof cuda_reason);
}

static const struct backend *cuda(void)
{
    pthread_once(&cuda_once, find_cuda);
    return backend_cuda;
}

const struct backend *backend_find(const char *name)
{
    if (!strcmp(name, "ref"))
        return &backend_ref;
    if (!strcmp(name, "cuda"))
        return cuda();
    if (!strcmp(name, "auto") && cuda() && !*cuda_reason)
        return backend_cuda;
    if (!strcmp(name, "cpu") || !strcmp(name, "auto"))
        return cpu_backend(&backend_ref);
    return NULL;
}

const char *backend_reason(const char *name)
{
    if (strcmp(name, "cuda") != 0)
        return backend_find(name) ? "" : "no such back end";
    cuda();
    return cuda_reason;
}
