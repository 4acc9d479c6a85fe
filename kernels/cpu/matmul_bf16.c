/* Matrix products with operands rounded to bf16 or f16: panels of the right-hand side are
 * packed first, by all threads, each once; then tasks walk strips of rows, packed when they
 * are met, against groups of panels that stay in L2.
 *
 * A weight's panels are kept (struct op_pack) until it changes: once per optimizer step
 * they are two bytes an element instead of four for every product that follows. Other
 * right-hand sides are packed a block of K at a time, so that the copy stays small.
 *
 * Invariant: an element is summed within chunks of K as bf16.h says, the chunks are added
 * in order, and chunks depend on K alone. So bits depend neither on M nor on the split into
 * tasks. Fails when memory is short. */
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "kernels/cpu/bf16.h"
#include "kernels/cpu/cpu.h"
#include "kernels/fail.h"

enum {
    BLOCK_BYTES = 2 << 20, /* of panels that are not kept */
    GROUP_MIN = 256 * 1024,
    GROUP_MAX = 1024 * 1024, /* bytes of panels: half of L2 */
    ROW_PAD = 64,            /* bytes: strip rows do not share cache sets */
    EDGE_FLOATS = 32 * 32,
    PACK_PER_NS = 4, /* elements, about */
};

struct product {
    const struct matmul_args *a;
    const struct cpu_bf16 *loops;
    char *panels; /* chunks of the block in order, each all its panels */
    char *strips; /* per worker */
    long n_panels, n_strips, strip_rows, strip_bytes, chunk, group;
    long first, end; /* of K: the block at hand */
    long row_tasks, column_tasks;
};

static long round_up(long n, long to)
{
    return cpu_ceil_div(n, to) * to;
}

/* Elements of K that the chunk at k0 holds, and those its panels hold. */
static long chunk_k(const struct product *p, long k0)
{
    return cpu_min(p->chunk, p->a->K - k0);
}

static long chunk_wide(const struct product *p, long k0)
{
    return round_up(chunk_k(p, k0), p->loops->k_step);
}

/* Bytes of all panels for the elements of K from `first` to `end`. */
static size_t panel_bytes(const struct product *p, long first, long end)
{
    return (size_t)round_up(end - first, p->loops->k_step) * (size_t)p->n_panels *
           (size_t)(p->loops->tile_n * p->loops->bytes);
}

static char *panel_of(const struct product *p, long j, long k0)
{
    return p->panels + panel_bytes(p, p->first, k0) +
           j * chunk_wide(p, k0) * p->loops->tile_n * p->loops->bytes;
}

static void pack_task(void *arg, long i, int worker)
{
    const struct product *p = arg;
    const struct matmul_args *a = p->a;
    long j = i % p->n_panels, k0 = p->first + i / p->n_panels * p->chunk;
    long column = j * p->loops->tile_n;
    struct bf16_pack pack = {.x = a->trans_b ? a->b + column * a->ldb + k0
                                             : a->b + k0 * a->ldb + column,
                             .ld = a->ldb,
                             .n = cpu_min(p->loops->tile_n, a->N - column),
                             .k = chunk_k(p, k0),
                             .out = panel_of(p, j, k0)};

    (void)worker;
    if (a->trans_b)
        p->loops->panel_along(&pack);
    else
        p->loops->panel_across(&pack);
}

static void pack_panels(struct product *p)
{
    long chunks = cpu_ceil_div(p->end - p->first, p->chunk);
    double work = (double)(p->end - p->first) * (double)p->a->N / PACK_PER_NS;

    cpu_for(chunks * p->n_panels, work, pack_task, p);
}

static void pack_strip(const struct product *p, long m, int rows, long k0, char *out,
                       long row_bytes)
{
    const struct matmul_args *a = p->a;
    struct bf16_pack pack = {.x = a->trans_a ? a->a + k0 * a->lda + m
                                             : a->a + m * a->lda + k0,
                             .ld = a->lda,
                             .n = rows,
                             .k = chunk_k(p, k0),
                             .out = out,
                             .row_bytes = row_bytes};

    if (a->trans_a)
        p->loops->strip_across(&pack);
    else
        p->loops->strip_along(&pack);
}

/* One tile at (m, j), through a buffer when it reaches over the edge of c. */
static void place(const struct product *p, struct bf16_tile *t, long m, long j)
{
    const struct matmul_args *a = p->a;
    long wide = p->loops->tile_n, n = cpu_min(wide, a->N - j);
    float *c = a->c + m * a->ldc + j, edge[EDGE_FLOATS];
    int rows = t->rows, whole = n == wide && rows % p->loops->row_step == 0;

    t->c = whole ? c : edge;
    t->ldc = whole ? a->ldc : wide;
    if (!whole && t->add) {
        memset(edge, 0, sizeof edge);
        for (int r = 0; r < rows; r++)
            memcpy(edge + r * wide, c + r * a->ldc, (size_t)n * sizeof *c);
    }
    p->loops->tile(t);
    for (int r = 0; !whole && r < rows; r++)
        memcpy(c + r * a->ldc, edge + r * wide, (size_t)n * sizeof *c);
}

/* Bias and activation for `rows` rows from (m, j), n columns, while they are in the
 * nearest cache. */
static void finish(const struct matmul_args *a, long m, int rows, long j, long n)
{
    struct epilogue e = {.c = a->c + m * a->ldc + j,
                         .pre = a->pre ? a->pre + m * a->ldc + j : NULL,
                         .ldc = a->ldc,
                         .n = cpu_min(n, a->N - j),
                         .rows = rows,
                         .bias = a->bias ? a->bias + j : NULL,
                         .act = a->act};

    if (a->bias || a->pre || a->act != ACT_NONE)
        cpu_loops()->epilogue(&e);
}

/* Panels j .. j+n-1 of chunk k0 against strips s .. end-1. */
static void group_product(const struct product *p, long j, long n, long k0, long s,
                          long end, char *strip)
{
    const struct matmul_args *a = p->a;
    long wide = p->loops->tile_n, k = chunk_wide(p, k0);
    long row_bytes = k * p->loops->bytes + ROW_PAD;

    for (; s < end; s++) {
        long m = s * p->strip_rows;
        int rows = (int)cpu_min(p->strip_rows, a->M - m);
        struct bf16_tile t = {.a = strip, .row_bytes = row_bytes, .k = k, .rows = rows};

        t.add = a->accumulate || k0 > 0;
        pack_strip(p, m, rows, k0, strip, row_bytes);
        for (long i = 0; i < n; i++) {
            t.b = panel_of(p, j + i, k0);
            place(p, &t, m, (j + i) * wide);
            if (k0 + p->chunk >= a->K)
                finish(a, m, rows, (j + i) * wide, wide);
        }
    }
}

static void product_task(void *arg, long i, int worker)
{
    const struct product *p = arg;
    long row = i % p->row_tasks, column = i / p->row_tasks;
    long from = p->n_strips * row / p->row_tasks,
         to = p->n_strips * (row + 1) / p->row_tasks;
    long j = p->n_panels * column / p->column_tasks;
    long end = p->n_panels * (column + 1) / p->column_tasks;

    if (p->loops->begin)
        p->loops->begin();
    for (long k0 = p->first; k0 < p->end; k0 += p->chunk)
        for (long g = j; g < end; g += p->group)
            group_product(p, g, cpu_min(p->group, end - g), k0, from, to,
                          p->strips + worker * p->strip_bytes);
    if (p->loops->end)
        p->loops->end();
}

/* Strips of equal height. Rows are split before columns: a strip is then packed by one
 * task. Two tasks a thread let a disturbed thread do less. */
static void split(struct product *p, int team)
{
    const struct matmul_args *a = p->a;
    long cache = sysconf(_SC_LEVEL2_CACHE_SIZE) / 2, tasks = team > 1 ? 2L * team : 1;

    if (cache < GROUP_MIN)
        cache = GROUP_MIN;
    p->n_panels = cpu_ceil_div(a->N, p->loops->tile_n);
    p->chunk = cpu_ceil_div(a->K, cpu_ceil_div(a->K, p->loops->k_chunk));
    p->chunk = round_up(p->chunk, p->loops->k_step);
    p->strip_rows = cpu_ceil_div(a->M, cpu_ceil_div(a->M, p->loops->tile_m));
    p->strip_rows = round_up(p->strip_rows, p->loops->row_step);
    p->n_strips = cpu_ceil_div(a->M, p->strip_rows);
    p->row_tasks = cpu_min(tasks, p->n_strips);
    p->column_tasks = cpu_min(cpu_ceil_div(tasks, p->row_tasks), p->n_panels);
    p->group = cpu_min(cache, GROUP_MAX) / (p->chunk * p->loops->tile_n * p->loops->bytes);
    if (p->group < 1)
        p->group = 1;
    p->strip_bytes =
        round_up(p->loops->strip_rows * (p->chunk * p->loops->bytes + ROW_PAD), 4096);
}

/* Panels of the whole weight, packed unless this version's are there. */
static int keep_panels(struct product *p)
{
    struct op_pack *keep = p->a->pack;
    size_t bytes = panel_bytes(p, 0, p->a->K);

    if (!keep->data)
        keep->data = mem_aligned(64, bytes);
    if (!keep->data)
        return op_fail(ERR_NOMEM, "matmul: no memory for a packed weight of %zu bytes",
                       bytes);
    p->panels = keep->data;
    p->first = 0;
    p->end = p->a->K;
    if (keep->packed != keep->version)
        pack_panels(p);
    keep->packed = keep->version;
    return 0;
}

int cpu_matmul_bf16(const struct matmul_args *a)
{
    struct product p = {.a = a,
                        .loops = a->precision == PRECISION_F16 ? cpu_f16() : cpu_bf16()};
    double work = (double)a->M * (double)a->N * (double)a->K / p.loops->per_ns;
    int team = cpu_threads_for(work), rc = 0;
    long block = a->K;
    size_t strips, panels = 0;
    char *scratch;

    split(&p, team);
    strips = (size_t)p.strip_bytes * (size_t)team;
    if (!a->pack) {
        block = p.chunk * (1 + (long)(BLOCK_BYTES / panel_bytes(&p, 0, p.chunk)));
        panels = panel_bytes(&p, 0, cpu_min(block, a->K));
    }
    scratch = cpu_scratch_take(strips + panels);
    if (!scratch)
        return op_fail(ERR_NOMEM, "matmul: out of memory");
    p.strips = scratch;
    p.panels = scratch + strips;
    if (a->pack)
        rc = keep_panels(&p);
    for (long k0 = 0; !rc && k0 < a->K; k0 += block) {
        p.first = k0;
        p.end = cpu_min(k0 + block, a->K);
        if (!a->pack)
            pack_panels(&p);
        cpu_for(p.row_tasks * p.column_tasks, work, product_task, &p);
    }
    cpu_scratch_give(scratch);
    return rc;
}
