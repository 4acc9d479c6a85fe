/* bf16 and f16 products where no instruction serves them: panels and strips as the f32
 * loops have them, every element rounded; then the f32 tile. The product of two such
 * numbers is exact in f32, so this differs from the others only in the order of sums and
 * in keeping denormals. Its sizes are those of the f32 loops in use. */
#include <pthread.h>

#include "kernels/bf16.h"
#include "kernels/cpu/bf16.h"
#include "kernels/cpu/features.h"
#include "kernels/cpu/loops.h"
#include "kernels/f16.h"

static const struct cpu_loops *loops;
static struct cpu_bf16 rounded, rounded_f16;

static void round_f16(const float *x, float *y, long n)
{
    for (long i = 0; i < n; i++)
        y[i] = f16_round(x[i]);
}

static void round_bf16(const float *x, float *y, long n)
{
    loops->round_bf16(x, y, n);
}

/* The four ways to pack, with either rounding. */
#define PACKING(kind)                                                                      \
    static void panel_along_##kind(const struct bf16_pack *p)                              \
    {                                                                                      \
        loops->pack_columns(p->x, p->ld, p->n, p->k, p->out);                              \
        round_##kind(p->out, p->out, p->k * loops->tile_n);                                \
    }                                                                                      \
                                                                                           \
    static void panel_across_##kind(const struct bf16_pack *p)                             \
    {                                                                                      \
        loops->pack_rows(p->x, p->ld, p->n, p->k, p->out);                                 \
        round_##kind(p->out, p->out, p->k * loops->tile_n);                                \
    }                                                                                      \
                                                                                           \
    static void strip_along_##kind(const struct bf16_pack *p)                              \
    {                                                                                      \
        for (long r = 0; r < p->n; r++)                                                    \
            round_##kind(p->x + r * p->ld, (float *)((char *)p->out + r * p->row_bytes),   \
                         p->k);                                                            \
    }                                                                                      \
                                                                                           \
    static void strip_across_##kind(const struct bf16_pack *p)                             \
    {                                                                                      \
        long row = p->row_bytes / (long)sizeof(float);                                     \
        float *out = p->out;                                                               \
                                                                                           \
        for (long k = 0; k < p->k; k++)                                                    \
            for (long r = 0; r < p->n; r++)                                                \
                out[r * row + k] = kind##_round(p->x[k * p->ld + r]);                      \
    }
PACKING(bf16)
PACKING(f16)
#undef PACKING

static void tile(const struct bf16_tile *t)
{
    struct tile f = {.a = t->a,
                     .rs = t->row_bytes / (long)sizeof(float),
                     .ks = 1,
                     .b = t->b,
                     .bs = loops->tile_n,
                     .c = t->c,
                     .ldc = t->ldc,
                     .k = t->k,
                     .rows = t->rows,
                     .add = t->add};

    loops->tile(&f);
}

static void fill(void)
{
    loops = cpu_loops();
    rounded = (struct cpu_bf16){.name = "rounding",
                                .tile_m = loops->tile_m,
                                .tile_n = loops->tile_n,
                                .row_step = 1,
                                .strip_rows = loops->tile_m,
                                .k_step = 1,
                                .k_chunk = 512,
                                .bytes = sizeof(float),
                                .per_ns = 24,
                                .tile = tile,
                                .panel_along = panel_along_bf16,
                                .panel_across = panel_across_bf16,
                                .strip_along = strip_along_bf16,
                                .strip_across = strip_across_bf16};
    rounded_f16 = rounded;
    rounded_f16.panel_along = panel_along_f16;
    rounded_f16.panel_across = panel_across_f16;
    rounded_f16.strip_along = strip_along_f16;
    rounded_f16.strip_across = strip_across_f16;
}

static pthread_once_t once = PTHREAD_ONCE_INIT;

const struct cpu_bf16 *cpu_bf16(void)
{
#if defined(__x86_64__)
    if (cpu_level() == CPU_AMX)
        return &cpu_bf16_amx;
    if (cpu_level() == CPU_AVX512_BF16)
        return &cpu_bf16_avx512;
#endif
    pthread_once(&once, fill);
    return &rounded;
}

const struct cpu_bf16 *cpu_f16(void)
{
    pthread_once(&once, fill);
    return &rounded_f16;
}
