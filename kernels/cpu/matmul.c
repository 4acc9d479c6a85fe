/* Matrix products: packed panels of the right-hand side, the register tile, an epilogue
 * while the result is in cache.
 *
 * A task owns some columns and rows of c. For each chunk of K it packs a group of column
 * panels that stays in L2 (or uses b's own rows, where those are contiguous), then walks
 * its rows: a strip of tile_m rows against each panel.
 * Weights come as struct op_pack: the first product of a version packs on the fly (in
 * training a version serves one step, and a copy in DRAM costs more than it saves); when
 * the same version returns, the panels of the whole matrix are kept.
 *
 * Invariant: an element is a chain of fused multiply-adds within a chunk of K, the chunks
 * are added in order, and chunks depend on K alone. So bits depend neither on M nor on the
 * split into tasks. Fails when memory is short or the arguments contradict. */
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "kernels/cpu/cpu.h"
#include "kernels/fail.h"

enum {
    K_CHUNK = 512,
    GROUP_MIN = 64 * 1024, /* floats of packed panels: a part of L2 */
    GROUP_MAX = 256 * 1024,
    FAR_ROWS = 1024, /* so many rows of a do not wait in L2 for the next group */
    STRIP_PAD = 16,
    ALIAS = 1024, /* floats: rows at such strides share a few cache sets */
    TILE_M_MAX = 16,
    TILE_N_MAX = 32,
    PANELS_ENOUGH = 8, /* so many make a strip's way into L1 cheap */
    STRIPS_MAX = 8,
};

struct product {
    const struct matmul_args *a;
    const struct cpu_loops *loops;
    const float *packed; /* the whole b in panels, or NULL */
    float *scratch;      /* per worker: a group of panels, strips of a */
    long scratch_floats, group_floats, strip_floats, k_chunk, group;
    long row_tasks, column_tasks, panels;
    int copy_strip, plain_panels; /* b's own rows serve as panels */
};

static void pack_panel(const struct matmul_args *a, const struct cpu_loops *loops, long j,
                       long k0, long k, float *out)
{
    long n = cpu_min(loops->tile_n, a->N - j);

    if (a->trans_b)
        loops->pack_columns(a->b + j * a->ldb + k0, a->ldb, n, k, out);
    else
        loops->pack_rows(a->b + k0 * a->ldb + j, a->ldb, n, k, out);
}

/* Where the strip of a task's rows from .. to-1 begins: as even as can be. */
static long strip_start(const struct product *p, long from, long to, long s)
{
    return from + (to - from) * s / cpu_ceil_div(to - from, p->loops->tile_m);
}

/* Copies strips s .. s+n-1, chunk k0, k long, of the rows from .. to-1. */
static void copy_strips(const struct product *p, long from, long to, long s, int n, long k0,
                        long k, float *copy)
{
    const struct matmul_args *a = p->a;
    long at[STRIPS_MAX + 1];

    for (int i = 0; i <= n; i++)
        at[i] = strip_start(p, from, to, s + i);
    if (a->trans_a) {
        p->loops->copy_strips(a->a + k0 * a->lda, a->lda, at, n, k, copy, p->strip_floats);
        return;
    }
    for (int i = 0; i < n; i++, copy += p->strip_floats)
        for (long r = at[i]; r < at[i + 1]; r++)
            memcpy(copy + (r - at[i]) * (k + STRIP_PAD), a->a + r * a->lda + k0,
                   (size_t)k * sizeof *copy);
}

/* Row m of a, chunk k0, as the tile reads it, or the copy of its strip: copied is what lies
 * at a stride that would put all rows into the same few cache sets. */
static void operand(const struct product *p, struct tile *t, long m, long k0,
                    const float *copy)
{
    const struct matmul_args *a = p->a;

    if (p->copy_strip) {
        t->a = copy;
        t->rs = a->trans_a ? 1 : t->k + STRIP_PAD;
        t->ks = a->trans_a ? t->rows : 1;
    } else {
        t->a = a->a + m * a->lda + k0;
        t->rs = a->lda;
        t->ks = 1;
    }
}

/* One tile at (m, j), through a buffer when it reaches over the right edge. */
static void place(const struct product *p, struct tile *t, long m, long j)
{
    const struct matmul_args *a = p->a;
    long n = cpu_min(p->loops->tile_n, a->N - j);
    float *c = a->c + m * a->ldc + j, edge[TILE_M_MAX * TILE_N_MAX];

    t->c = n == p->loops->tile_n ? c : edge;
    t->ldc = n == p->loops->tile_n ? a->ldc : p->loops->tile_n;
    if (t->c == edge && t->add)
        for (int r = 0; r < t->rows; r++)
            for (long i = 0; i < p->loops->tile_n; i++)
                edge[r * t->ldc + i] = i < n ? c[r * a->ldc + i] : 0;
    p->loops->tile(t);
    if (t->c == edge)
        for (int r = 0; r < t->rows; r++)
            memcpy(c + r * a->ldc, edge + r * t->ldc, (size_t)n * sizeof *c);
}

/* Bias and activation for `rows` rows from (m, j), n columns, while they are in cache. */
static void finish(const struct product *p, long m, int rows, long j, long n)
{
    const struct matmul_args *a = p->a;
    struct epilogue e = {.c = a->c + m * a->ldc + j,
                         .pre = a->pre ? a->pre + m * a->ldc + j : NULL,
                         .ldc = a->ldc,
                         .n = cpu_min(n, a->N - j),
                         .rows = rows,
                         .bias = a->bias ? a->bias + j : NULL,
                         .act = a->act};

    if (a->bias || a->pre || a->act != ACT_NONE)
        p->loops->epilogue(&e);
}

/* Where panel j of chunk k0 lies. */
static const float *panel_of(const struct product *p, long j, long k0, int plain,
                             const float *group)
{
    long column = j * p->loops->tile_n;

    if (plain)
        return p->a->b + k0 * p->a->ldb + column;
    return p->packed ? p->packed + column * p->a->K + k0 * p->loops->tile_n : group;
}

/* Panels first .. first+n-1 of chunk k0 against rows from .. to-1. */
static void group_product(const struct product *p, long first, long n, long k0, long from,
                          long to, int worker)
{
    const struct matmul_args *a = p->a;
    int tile_m = p->loops->tile_m, tile_n = p->loops->tile_n;
    long k = cpu_min(p->k_chunk, a->K - k0), strips = cpu_ceil_div(to - from, tile_m);
    float *group = p->scratch + worker * p->scratch_floats;
    float *copy = group + p->group_floats;
    int plain = p->plain_panels && (first + n) * tile_n <= a->N;

    for (long i = 0; !p->packed && !plain && i < n; i++)
        pack_panel(a, p->loops, (first + i) * tile_n, k0, k, group + i * k * tile_n);
    for (long s = 0; s < strips; s++) {
        long m = strip_start(p, from, to, s), together = p->loops->strips;
        struct tile t = {.bs = plain ? a->ldb : tile_n, .k = k};

        t.rows = (int)(strip_start(p, from, to, s + 1) - m);
        t.add = a->accumulate || k0 > 0;
        if (p->copy_strip && s % together == 0)
            copy_strips(p, from, to, s, (int)cpu_min(together, strips - s), k0, k, copy);
        operand(p, &t, m, k0, copy + s % together * p->strip_floats);
        for (long i = 0; i < n; i++) {
            t.b = panel_of(p, first + i, k0, plain, group + i * k * tile_n);
            place(p, &t, m, (first + i) * tile_n);
        }
        if (k0 + k == a->K)
            finish(p, m, t.rows, first * tile_n, n * tile_n);
    }
}

static void product_task(void *arg, long i, int worker)
{
    const struct product *p = arg;
    long row = i % p->row_tasks, column = i / p->row_tasks;
    long from = p->a->M * row / p->row_tasks, to = p->a->M * (row + 1) / p->row_tasks;
    long first = p->panels * column / p->column_tasks;
    long end = p->panels * (column + 1) / p->column_tasks;

    for (long k0 = 0; k0 < p->a->K; k0 += p->k_chunk)
        for (long g = first; g < end; g += p->group)
            group_product(p, g, cpu_min(p->group, end - g), k0, from, to, worker);
}

/* ---- kept panels ---- */

struct pack_job {
    const struct matmul_args *a;
    const struct cpu_loops *loops;
    float *out;
};

static void pack_task(void *arg, long i, int worker)
{
    const struct pack_job *j = arg;

    (void)worker;
    pack_panel(j->a, j->loops, i * j->loops->tile_n, 0, j->a->K,
               j->out + i * j->a->K * j->loops->tile_n);
}

void cpu_pack_free(struct op_pack *p)
{
    mem_free(p->data);
    p->data = NULL;
    p->packed = p->tag = 0;
}

/* The kept panels of b when this version has been here before; *out NULL: not (yet). */
static int kept_panels(const struct matmul_args *a, const struct cpu_loops *loops,
                       long panels, const float **out)
{
    struct op_pack *p = a->pack;
    struct pack_job job = {a, loops, NULL};
    size_t bytes = (size_t)(panels * a->K) * (size_t)loops->tile_n * sizeof *job.out;

    *out = NULL;
    if (!p)
        return 0;
    if (p->packed == p->version && p->data) {
        *out = p->data;
        return 0;
    }
    if (p->tag != p->version) { /* first meeting */
        p->tag = p->version;
        return 0;
    }
    if (!p->data)
        p->data = mem_aligned(64, bytes);
    if (!p->data)
        return op_fail(ERR_NOMEM, "matmul: no memory for a packed weight of %zu bytes",
                       bytes);
    job.out = p->data;
    cpu_for(panels, (double)bytes / 8, pack_task, &job);
    p->packed = p->version;
    *out = p->data;
    return 0;
}

/* Room for a group of panels: half of L2, or more where each group fetches a's strips from
 * afar and few groups matter more than near panels. No bit depends on it. */
static long group_room(const struct product *p)
{
    long floats = sysconf(_SC_LEVEL2_CACHE_SIZE) / 2 / (long)sizeof(float);

    if (p->a->trans_a || p->a->M >= FAR_ROWS)
        floats = floats < p->loops->far_group ? p->loops->far_group : floats;
    return floats < GROUP_MIN ? GROUP_MIN : cpu_min(floats, GROUP_MAX);
}

/* Columns are split before rows: a column's panel is then packed by one task, and a strip
 * of a serves many panels. Two tasks a thread let a disturbed thread do less: of columns,
 * where panels are packed and there are enough, else of rows. */
static void split(struct product *p, double work)
{
    const struct matmul_args *a = p->a;
    int team = cpu_threads_for(work);
    long strips = cpu_ceil_div(a->M, p->loops->tile_m), columns, groups;

    p->row_tasks = p->column_tasks = 1;
    if (team > 1) {
        columns = p->panels % team && p->panels < 4L * team ? p->panels : team;
        if (!p->packed && !p->copy_strip && p->panels >= 2L * team * PANELS_ENOUGH)
            columns = 2L * team;
        p->column_tasks = cpu_min(p->panels, columns);
        p->row_tasks = cpu_min(cpu_ceil_div(2L * team, p->column_tasks), strips);
    }
    p->group_floats = group_room(p);
    p->k_chunk = cpu_ceil_div(a->K, cpu_ceil_div(a->K, K_CHUNK));
    columns = cpu_ceil_div(p->panels, p->column_tasks);
    groups = cpu_ceil_div(columns * p->k_chunk * p->loops->tile_n, p->group_floats);
    p->group = cpu_ceil_div(columns, groups);
    p->group = cpu_min(p->group, p->group_floats / (p->k_chunk * p->loops->tile_n));
}

int cpu_matmul(const struct matmul_args *a)
{
    struct product p = {.a = a, .loops = cpu_loops()};
    double work = (double)a->M * (double)a->N * (double)a->K / 48;
    int rc;

    if (a->accumulate && (a->bias || a->act != ACT_NONE || a->pre))
        return op_fail(ERR_FAILED, "matmul: accumulate excludes bias and activation");
    if (a->K <= 0)
        return ref_matmul(a);
    if (a->M <= 0 || a->N <= 0)
        return 0;
    p.panels = cpu_ceil_div(a->N, p.loops->tile_n);
    if (a->precision == PRECISION_BF16 || a->precision == PRECISION_F16)
        return cpu_matmul_bf16(a);
    rc = kept_panels(a, p.loops, p.panels, &p.packed);
    if (rc)
        return rc;
    p.copy_strip = a->trans_a || a->lda % ALIAS == 0;
    split(&p, work);
    p.plain_panels =
        a->M <= p.loops->plain_most && !a->trans_b && !p.packed && a->ldb % ALIAS != 0;
    p.strip_floats = TILE_M_MAX * (p.k_chunk + STRIP_PAD);
    p.scratch_floats = p.group_floats + p.loops->strips * p.strip_floats;
    p.scratch = cpu_scratch_take((size_t)p.scratch_floats * sizeof *p.scratch *
                                 (size_t)cpu_threads_for(work));
    if (!p.scratch)
        return op_fail(ERR_NOMEM, "matmul: out of memory");
    cpu_for(p.row_tasks * p.column_tasks, work, product_task, &p);
    cpu_scratch_give(p.scratch);
    return 0;
}
