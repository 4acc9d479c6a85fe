/* bf16 products where no instruction serves them: panels and strips as the f32 loops have
 * them, every element rounded; then the f32 tile. The product of two bf16 numbers is exact
 * in f32, so this differs from the other two only in the order of sums and in keeping
 * denormals. Its sizes are those of the f32 loops in use. */
#include <pthread.h>

#include "kernels/bf16.h"
#include "kernels/cpu/bf16.h"
#include "kernels/cpu/features.h"
#include "kernels/cpu/loops.h"

static const struct cpu_loops *loops;
static struct cpu_bf16 rounded;

static void panel_along(const struct bf16_pack *p)
{
    loops->pack_columns(p->x, p->ld, p->n, p->k, p->out);
    loops->round_bf16(p->out, p->out, p->k * loops->tile_n);
}

static void panel_across(const struct bf16_pack *p)
{
    loops->pack_rows(p->x, p->ld, p->n, p->k, p->out);
    loops->round_bf16(p->out, p->out, p->k * loops->tile_n);
}

static void strip_along(const struct bf16_pack *p)
{
    for (long r = 0; r < p->n; r++)
        loops->round_bf16(p->x + r * p->ld, (float *)((char *)p->out + r * p->row_bytes),
                          p->k);
}

static void strip_across(const struct bf16_pack *p)
{
    long row = p->row_bytes / (long)sizeof(float);
    float *out = p->out;

    for (long k = 0; k < p->k; k++)
        for (long r = 0; r < p->n; r++)
            out[r * row + k] = bf16_round(p->x[k * p->ld + r]);
}

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
                                .panel_along = panel_along,
                                .panel_across = panel_across,
                                .strip_along = strip_along,
                                .strip_across = strip_across};
}

const struct cpu_bf16 *cpu_bf16(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

#if defined(__x86_64__)
    if (cpu_level() == CPU_AMX)
        return &cpu_bf16_amx;
    if (cpu_level() == CPU_AVX512_BF16)
        return &cpu_bf16_avx512;
#endif
    pthread_once(&once, fill);
    return &rounded;
}
