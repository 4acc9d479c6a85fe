/* A plug-in that is right, or wrong in one way: -DFAKE_ABI, -DFAKE_SIZE, -DFAKE_HOLE (an
 * operator is missing), -DFAKE_NAME (the exported function has another name). It has no
 * device, and says so. */
#include <stdio.h>

#include "kernels/plugin.h"

#ifndef FAKE_ABI
#define FAKE_ABI HONE_BACKEND_ABI
#endif
#ifndef FAKE_SIZE
#define FAKE_SIZE sizeof(struct backend)
#endif
#ifndef FAKE_NAME
#define FAKE_NAME hone_backend
#endif

static int fake_devices(void)
{
    return 0;
}
static void fake_describe(char *buf, size_t n)
{
    snprintf(buf, n, "cuda: no device: the driver is too old");
}
static const char *fake_bf16(void)
{
    return NULL;
}
static void fake_set_threads(int n)
{
    (void)n;
}
static int fake_threads(void)
{
    return 1;
}
static void *fake_alloc(size_t bytes)
{
    (void)bytes;
    return NULL;
}
static void fake_release(void *p)
{
    (void)p;
}
static int fake_copy(void *to, const void *from, size_t bytes)
{
    (void)to;
    (void)from;
    (void)bytes;
    return -1;
}
static int fake_fill(void *p, size_t bytes)
{
    (void)p;
    (void)bytes;
    return -1;
}
static int fake_memory(size_t *left, size_t *all)
{
    *left = *all = 0;
    return -1;
}
static int fake_reserve(size_t bytes, size_t scratch)
{
    (void)bytes;
    (void)scratch;
    return -1;
}
static void fake_step(int begins)
{
    (void)begins;
}
static void fake_pack_free(struct op_pack *p)
{
    (void)p;
}
static const char *fake_error(void)
{
    return "no device";
}
#define X(op)                                                                              \
    static int fake_##op(const struct op##_args *a)                                        \
    {                                                                                      \
        (void)a;                                                                           \
        return -1;                                                                         \
    }
HONE_OPS(X)
#undef X

plugin_function FAKE_NAME;

const struct backend *FAKE_NAME(void)
{
    static struct backend b = {.abi = FAKE_ABI,
                               .size = (unsigned)FAKE_SIZE,
                               .name = "cuda",
                               .devices = fake_devices,
                               .describe = fake_describe,
                               .bf16 = fake_bf16,
                               .f16 = fake_bf16,
                               .set_threads = fake_set_threads,
                               .threads = fake_threads,
                               .alloc = fake_alloc,
                               .release = fake_release,
                               .copy_in = fake_copy,
                               .copy_out = fake_copy,
                               .fill_zero = fake_fill,
                               .memory = fake_memory,
                               .reserve = fake_reserve,
                               .step = fake_step,
                               .pack_free = fake_pack_free,
                               .error = fake_error,
#define X(op) .op = fake_##op,
                               HONE_OPS(X)
#undef X
    };

#ifdef FAKE_HOLE
    b.adamw = NULL;
#endif
    return &b;
}
