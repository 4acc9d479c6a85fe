/* The CUDA back end's table, and the one function this plug-in exports (kernels/plugin.h).
 *
 * A machine without a usable device has 0 of them, and describe() says why. */
#include <sched.h>

#include "kernels/cuda/product.h"
#include "kernels/plugin.h"

static int host_threads; /* 0: not set */

static void set_threads(int n)
{
    host_threads = n > 0 ? n : 0;
}

/* Of the host, for what is done beside the device (texts, packing). */
static int threads(void)
{
    cpu_set_t cpus;

    if (host_threads)
        return host_threads;
    if (sched_getaffinity(0, sizeof cpus, &cpus))
        return 1;
    return CPU_COUNT(&cpus) > 0 ? CPU_COUNT(&cpus) : 1;
}

__attribute__((visibility("default"))) plugin_function hone_backend;

const struct backend *hone_backend(void)
{
    static const struct backend_choices choices = {
        .key = choices_key,
        .changes = choices_changes,
        .get = choices_get,
        .put = choices_put,
        .prepare = choices_prepare,
    };
    static const struct backend_device device = {
        .bus = trace_bus,
        .enter = graph_enter,
        .step_seconds = graph_step_seconds,
        .notice = graph_notice,
    };
    static const struct backend table = {.abi = HONE_BACKEND_ABI,
                                         .size = sizeof(struct backend),
                                         .name = "cuda",
                                         .devices = cuda_devices,
                                         .describe = cuda_describe,
                                         .bf16 = cuda_bf16,
                                         .f16 = cuda_f16,
                                         .set_threads = set_threads,
                                         .threads = threads,
                                         .alloc = cuda_alloc,
                                         .release = cuda_release,
                                         .copy_in = graph_copy_in,
                                         .copy_out = graph_copy_out,
                                         .fill_zero = graph_fill_zero,
                                         .memory = cuda_memory,
                                         .reserve = cuda_reserve,
                                         .step = graph_step,
                                         .pack_free = graph_pack_free,
                                         .error = op_error,
                                         .choices = &choices,
                                         .device = &device,
                                         .ranks = &cuda_ranks,
#define X(op) .op = graph_##op,
                                         HONE_OPS(X)
#undef X
    };

    return &table;
}
