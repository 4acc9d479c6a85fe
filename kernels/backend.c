/* The table of back ends: the reference, complete by the linker's word, and the CPU back
 * end, which overrides what it does faster.
 *
 * backend_find() fails with NULL for a name nobody has; it opens nothing and cannot fail
 * otherwise. */
#include "kernels/backend.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "kernels/cpu/cpu.h"
#include "kernels/fail.h"

static _Thread_local char op_message[256];

int op_fail(int code, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(op_message, sizeof op_message, fmt, ap);
    va_end(ap);
    return code;
}

const char *op_error(void)
{
    return op_message;
}

static int ref_devices(void)
{
    return 1;
}

static void ref_describe(char *buf, size_t n)
{
    snprintf(buf, n, "reference: plain loops, double accumulators, 1 thread");
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
                                           .set_threads = ref_set_threads,
                                           .threads = ref_threads,
                                           .alloc = ref_alloc,
                                           .release = mem_free,
                                           .copy_in = ref_copy,
                                           .copy_out = ref_copy,
                                           .fill_zero = ref_fill_zero,
                                           .pack_free = ref_pack_free,
                                           .error = op_error,
#define X(op) .op = ref_##op,
                                           HONE_OPS(X)
#undef X
};

const struct backend *backend_find(const char *name)
{
    if (!strcmp(name, "ref"))
        return &backend_ref;
    if (!strcmp(name, "cpu") || !strcmp(name, "auto"))
        return cpu_backend(&backend_ref);
    return NULL;
}
