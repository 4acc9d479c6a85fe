/* Gradients over several ranks; see optim.h.
 *
 * Dense parameters are laid end to end in the model's order. Buckets hold whole parameters
 * up to about BUCKET elements; a parameter much larger is cut. Their gradients (and with a
 * sharded optimizer the parameters themselves) move into the communicator's memory, which
 * is host memory. On a device they stay where they are. Where the communicator sums from
 * device to device, buckets are cut in the model's own memory, with gaps where tables are
 * sparse; else its memory holds copies: of a gradient when backward has completed it, of
 * the sums when they come back, of parameters when their owners have updated them.
 *
 * Fails as the communicator does, and with ERR_DEVICE where copies fail. */
#include <stdint.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "worker/train/optim_internal.h"

enum { BUCKET = 1 << 20, GAP = 64 }; /* elements; less between two parameters is padding */

struct home { /* where a parameter was before */
    float *data, *grad;
};

struct optim_grads {
    struct comm_grad g;
    size_t *bound;     /* (buckets + 1) */
    size_t *flat;      /* (n) first element of a dense parameter */
    int *first, *last; /* (n) its buckets, inclusive */
    int *members;      /* (buckets) parameters in it */
    int *left;         /* (buckets) of them not done in this step */
    struct home *home; /* (n) */
    unsigned *bits;    /* (1 + world, words) rows touched in sparse tables */
    size_t words;
    float *rows; /* packed rows of sparse tables */
    size_t cap_rows;
    struct optim_rows rows_device;
    int opened;
    int in_place;       /* parameters lie on a device, and are summed from there; or */
    int staged;         /* g's memory holds copies */
    int failed;         /* a copy in optim_param_done() */
    unsigned char *gap; /* (buckets) */
    float *base;        /* in place: where element 0 of the gradients lies */
};

static size_t elements(const struct param *p)
{
    return (size_t)p->rows * (size_t)p->cols;
}

static int is_dense(const struct optim *o, int i)
{
    return !o->ready[i];
}

/* Words of the bit set over a sparse table's rows. */
static size_t words_of(const struct optim *o, int i)
{
    return is_dense(o, i) ? 0 : ((size_t)o->param[i]->rows + 31) / 32;
}

static int device_failed(const struct optim *o, const struct param *p, struct err *e)
{
    return err_set(e, ERR_DEVICE, "%s: %s", p->name, o->backend->error());
}

/* ---- layout ---- */

/* Where dense parameter i begins: behind `at`, or where its gradient lies. */
static size_t begins(const struct optim *o, const struct optim_grads *g, int i, size_t at)
{
    return g->in_place ? (size_t)(o->param[i]->grad - g->base) : at;
}

/* Bounds of the buckets; with bound NULL only counted. */
static int lay_out(const struct optim *o, struct optim_grads *g, size_t *bound)
{
    size_t at = 0, begin = 0, bucket = BUCKET;
    int b = 0;

    if (g->in_place)
        bucket = o->options.bucket ? o->options.bucket : COMM_DEVICE_BUCKET;
    for (int i = 0; i < o->n; i++) {
        size_t n = is_dense(o, i) ? elements(o->param[i]) : 0, from;

        if (!n)
            continue;
        from = begins(o, g, i, at);
        if (from - at >= GAP) {
            if (at > begin && bound)
                bound[b + 1] = at;
            b += at > begin;
            if (bound) {
                g->gap[b] = 1;
                bound[b + 1] = from;
            }
            b++;
            begin = from;
        }
        at = from;
        if (bound) {
            g->flat[i] = at;
            g->first[i] = b;
        }
        for (at += n; at - begin >= bucket; b++) {
            begin = at - begin < 2 * bucket ? at : begin + bucket;
            if (bound) {
                g->last[i] = b;
                bound[b + 1] = begin;
            }
        }
        if (bound && at > begin)
            g->last[i] = b;
    }
    if (at > begin) {
        b++;
        if (bound)
            bound[b] = at;
    }
    g->g.n = at;
    return b;
}

/* Gradients in the model's own memory; parameters lie in the same order in theirs. */
static void lay_in_place(struct optim *o, struct optim_grads *g)
{
    for (int i = o->n - 1; i >= 0; i--)
        if (is_dense(o, i)) {
            g->base = o->param[i]->grad;
            g->g.param = o->options.shard ? o->param[i]->data : NULL;
        }
    for (int i = 0; i < o->n; i++)
        invariant(!is_dense(o, i) || !g->g.param ||
                  o->param[i]->data - g->g.param == o->param[i]->grad - g->base);
    g->g.grad = g->base;
}

static int plan(struct optim *o, struct optim_grads *g)
{
    size_t n = (size_t)o->n + 1, buckets;

    g->flat = mem_array(n, sizeof *g->flat);
    g->first = mem_array(n, sizeof *g->first);
    g->last = mem_array(n, sizeof *g->last);
    g->home = mem_array(n, sizeof *g->home);
    if (g->in_place)
        lay_in_place(o, g);
    buckets = (size_t)lay_out(o, g, NULL);
    g->bound = mem_array(buckets + 1, sizeof *g->bound);
    g->gap = mem_alloc(buckets + 1);
    g->members = mem_array(buckets + 1, sizeof *g->members);
    g->left = mem_array(buckets + 1, sizeof *g->left);
    for (int i = 0; i < o->n; i++)
        g->words += words_of(o, i);
    g->bits = mem_array(g->words * ((size_t)o->comm->world + 1) + 1, sizeof *g->bits);
    if (!g->bits || !g->flat || !g->first || !g->last || !g->home || !g->bound ||
        !g->members || !g->left || !g->gap)
        return ERR_NOMEM;
    g->g.buckets = lay_out(o, g, g->bound);
    g->g.bound = g->bound;
    g->g.gap = g->in_place ? g->gap : NULL;
    g->g.shard = o->options.shard;
    for (int i = 0; i < o->n; i++)
        for (int b = g->first[i]; is_dense(o, i) && b <= g->last[i]; b++)
            g->members[b]++;
    return 0;
}

static void begin_step(struct optim_grads *g)
{
    memcpy(g->left, g->members, (size_t)g->g.buckets * sizeof *g->left);
    g->failed = 0;
}

/* ---- opening ---- */

static int hash_param(const struct optim *o, const struct param *p, uint64_t *h,
                      struct err *e)
{
    size_t bytes = elements(p) * sizeof(float);
    int device = o->grads->staged || o->grads->in_place;
    float *copy = device ? mem_alloc(bytes) : p->data;
    uint64_t pair[2] = {*h};
    int r = 0;

    if (!copy)
        return err_set(e, ERR_NOMEM, "%s: out of memory", p->name);
    if (device && o->backend->copy_out(copy, p->data, bytes))
        r = device_failed(o, p, e);
    pair[1] = hash_bytes(copy, bytes);
    *h = hash_bytes(pair, sizeof pair);
    if (device)
        mem_free(copy);
    return r;
}

/* All ranks must start from the same weights. */
static int compare_weights(struct optim *o, struct err *e)
{
    uint64_t h = 0;
    int r = 0;

    for (int i = 0; !r && i < o->n; i++)
        r = hash_param(o, o->param[i], &h, e);
    r = comm_agree(o->comm, r, e);
    return r ? r : comm_same(o->comm, "a model", &h, sizeof h, e);
}

static void move_in(struct optim *o, struct optim_grads *g)
{
    for (int i = 0; i < o->n; i++) {
        struct param *p = o->param[i];

        g->home[i] = (struct home){p->data, p->grad};
        if (!is_dense(o, i) || g->staged || g->in_place)
            continue;
        if (g->g.grad)
            p->grad = g->g.grad + g->flat[i];
        if (!g->g.param)
            continue;
        /* Every rank writes the same bytes. */
        memcpy(g->g.param + g->flat[i], p->data, elements(p) * sizeof(float));
        p->data = g->g.param + g->flat[i];
    }
}

int optim_grads_open(struct optim *o, struct err *e)
{
    struct optim_grads *g;
    int r;

    if (o->comm->world == 1)
        return 0;
    g = mem_alloc(sizeof *g);
    if (g && !strcmp(o->backend->name, "cuda")) {
        g->in_place = o->comm->device_sum != NULL;
        g->staged = !g->in_place;
    }
    r = !g || plan(o, g) ? err_set(e, ERR_NOMEM, "gradients: out of memory") : 0;
    o->grads = g;
    r = comm_agree(o->comm, r, e);
    if (!r)
        r = compare_weights(o, e);
    if (!r)
        r = o->comm->grad_open(o->comm, &g->g, e);
    if (r)
        return r;
    g->opened = 1;
    move_in(o, g);
    begin_step(g);
    if (g->in_place && g->words)
        r = comm_agree(o->comm, optim_rows_open(&g->rows_device, o, e), e);
    return r ? r : o->comm->barrier(o->comm, e);
}

void optim_grads_close(struct optim *o)
{
    struct optim_grads *g = o->grads;

    if (!g)
        return;
    for (int i = 0; g->opened && i < o->n; i++) {
        struct param *p = o->param[i];

        if (p->data != g->home[i].data)
            memcpy(g->home[i].data, p->data, elements(p) * sizeof(float));
        p->data = g->home[i].data;
        p->grad = g->home[i].grad;
    }
    if (g->opened)
        o->comm->grad_close(o->comm, &g->g);
    mem_free(g->flat);
    mem_free(g->first);
    mem_free(g->last);
    mem_free(g->home);
    mem_free(g->bound);
    mem_free(g->members);
    mem_free(g->left);
    mem_free(g->bits);
    mem_free(g->rows);
    mem_free(g->gap);
    optim_rows_close(&g->rows_device, o);
    mem_free(g);
    o->grads = NULL;
}

int optim_grads_own(const struct optim *o, int i, int *at, size_t *first, size_t *n)
{
    const struct optim_grads *g = o->grads;

    if (!g || !g->g.shard || !is_dense(o, i)) { /* everything */
        *first = 0;
        *n = elements(o->param[i]);
        return !(*at)++;
    }
    for (; g->first[i] + *at <= g->last[i]; ++*at) {
        int b = g->first[i] + *at;
        size_t lo = g->flat[i], hi = lo + elements(o->param[i]);

        lo = g->g.from[b] > lo ? g->g.from[b] : lo;
        hi = g->g.to[b] < hi ? g->g.to[b] : hi;
        if (lo >= hi)
            continue;
        *first = lo - g->flat[i];
        *n = hi - lo;
        ++*at;
        return 1;
    }
    return 0;
}

/* ---- the step ---- */

void optim_param_done(void *optim, struct param *p)
{
    struct optim *o = optim;
    struct optim_grads *g = o->grads;
    int i = 0;

    while (i < o->n && o->param[i] != p)
        i++;
    if (!g || i == o->n || !is_dense(o, i))
        return;
    if (g->staged &&
        o->backend->copy_out(g->g.grad + g->flat[i], p->grad, elements(p) * sizeof(float)))
        g->failed = 1; /* the others must not wait: optim_reduce_all() says it */
    for (int b = g->last[i]; b >= g->first[i]; b--)
        if (--g->left[b] == 0)
            o->comm->grad_start(o->comm, &g->g, b);
}

static int has_row(const unsigned *bits, size_t row)
{
    return bits[row / 32] >> row % 32 & 1;
}

/* g->bits: the rows that any rank has touched. */
static int unite_rows(struct optim *o, struct optim_grads *g, struct err *e)
{
    unsigned *bits = g->bits, *all = g->bits + g->words;
    int r;

    memset(bits, 0, g->words * sizeof *bits);
    for (int i = 0; i < o->n; i++) {
        for (long row = 0; !is_dense(o, i) && row < o->param[i]->rows; row++)
            bits[row / 32] |= (unsigned)(o->param[i]->touched[row] != 0) << row % 32;
        bits += words_of(o, i);
    }
    r = o->comm->all_gather(o->comm, g->bits, g->words * sizeof *bits, all, e);
    for (size_t w = 0; !r && w < g->words * (size_t)o->comm->world; w++)
        g->bits[w % g->words] |= all[w];
    return r;
}

/* Gradients of the united rows to the packed buffer, or back from it: then the rows are
 * touched and live here, too. Returns the elements. */
static size_t copy_rows(struct optim *o, struct optim_grads *g, float *packed, int back)
{
    const struct backend *b = o->backend;
    const unsigned *bits = g->bits;
    size_t at = 0;

    for (int i = 0; i < o->n; i++) {
        struct param *p = o->param[i];
        size_t cols = (size_t)p->cols, bytes = cols * sizeof(float);

        for (size_t row = 0; !is_dense(o, i) && row < (size_t)p->rows; row++) {
            if (!has_row(bits, row))
                continue;
            if (back) {
                g->failed |= b->copy_in(p->grad + row * cols, packed + at, bytes) != 0;
                p->touched[row] = p->live[row] = 1;
            } else if (packed) {
                g->failed |= b->copy_out(packed + at, p->grad + row * cols, bytes) != 0;
            }
            at += cols;
        }
        bits += words_of(o, i);
    }
    return at;
}

/* Sparse tables: only the rows that some rank has touched travel. */
static int reduce_rows(struct optim *o, struct err *e)
{
    struct optim_grads *g = o->grads;
    size_t n;
    int r = g->words ? unite_rows(o, g, e) : 0;

    if (r || !g->words)
        return r;
    if (g->in_place)
        return optim_rows_sum(&g->rows_device, o, g->bits, e);
    n = copy_rows(o, g, NULL, 0);
    if (n > g->cap_rows) { /* on every rank alike */
        mem_free(g->rows);
        g->rows = mem_array(n, sizeof *g->rows);
        g->cap_rows = g->rows ? n : 0;
        r = comm_agree(
            o->comm,
            g->rows ? 0 : err_set(e, ERR_NOMEM, "rows of %zu numbers: out of memory", n),
            e);
    }
    if (r)
        return r;
    copy_rows(o, g, g->rows, 0);
    r = o->comm->all_reduce(o->comm, g->rows, n, e);
    if (!r)
        copy_rows(o, g, g->rows, 1);
    return r;
}

/* Sums of what this rank owns to the device. */
static int unstage_sums(struct optim *o, struct optim_grads *g, struct err *e)
{
    if (g->failed)
        return err_set(e, ERR_DEVICE, "gradients: %s", o->backend->error());
    for (int i = 0; g->staged && i < o->n; i++) {
        struct param *p = o->param[i];
        size_t first, n;

        for (int at = 0; is_dense(o, i) && optim_grads_own(o, i, &at, &first, &n);)
            if (o->backend->copy_in(p->grad + first, g->g.grad + g->flat[i] + first,
                                    n * sizeof(float)))
                return device_failed(o, p, e);
    }
    return 0;
}

int optim_reduce_all(struct optim *o, struct err *e)
{
    struct optim_grads *g = o->grads;
    int r = 0;

    if (!g)
        return 0;
    /* The devices' sums come in one order on all ranks: buckets, then rows. */
    for (int b = g->g.buckets - 1; g->in_place && b >= 0; b--)
        o->comm->grad_start(o->comm, &g->g, b);
    r = reduce_rows(o, e);
    if (!r)
        r = o->comm->grad_wait(o->comm, &g->g, e);
    if (!r && g->staged)
        r = comm_agree(o->comm, unstage_sums(o, g, e), e);
    begin_step(g);
    return r;
}

/* Owned parts of the parameters from the device, or all of them to it. */
static int stage_params(struct optim *o, struct optim_grads *g, int back, struct err *e)
{
    for (int i = 0; i < o->n; i++) {
        struct param *p = o->param[i];
        size_t first = 0, n = elements(p);
        float *host = g->g.param + g->flat[i];

        if (!is_dense(o, i))
            continue;
        if (back && o->backend->copy_in(p->data, host, n * sizeof(float)))
            return device_failed(o, p, e);
        for (int at = 0; !back && optim_grads_own(o, i, &at, &first, &n);)
            if (o->backend->copy_out(host + first, p->data + first, n * sizeof(float)))
                return device_failed(o, p, e);
    }
    return 0;
}

int optim_grads_gather(struct optim *o, struct err *e)
{
    struct optim_grads *g = o->grads;
    int staged = g && g->staged && g->g.param, r = 0;

    if (!g)
        return 0;
    if (staged)
        r = comm_agree(o->comm, stage_params(o, g, 0, e), e);
    if (!r)
        r = o->comm->param_gather(o->comm, &g->g, e);
    if (!r && staged)
        r = comm_agree(o->comm, stage_params(o, g, 1, e), e);
    return r;
}

/* Gradients [from, to) of the row, by the back end. */
static int zero(const struct optim *o, const struct optim_grads *g, size_t from, size_t to,
                struct err *e)
{
    if (from == to || !o->backend->fill_zero(g->g.grad + from, (to - from) * sizeof(float)))
        return 0;
    return err_set(e, ERR_DEVICE, "gradients: %s", o->backend->error());
}

int optim_grads_zero(struct optim *o, struct err *e)
{
    const struct optim_grads *g = o->grads;
    int r = 0;

    if (!g || !g->g.shard || !g->g.grad)
        return 0;
    for (int i = 0; g->staged && i < o->n; i++)
        if (is_dense(o, i) &&
            o->backend->fill_zero(o->param[i]->grad, elements(o->param[i]) * sizeof(float)))
            return device_failed(o, o->param[i], e);
    if (g->staged)
        return 0;
    for (int b = 0; !r && b < g->g.buckets; b++) {
        if (g->gap[b])
            continue;
        r = zero(o, g, g->bound[b], g->g.from[b], e);
        if (!r)
            r = zero(o, g, g->g.to[b], g->bound[b + 1], e);
    }
    return r;
}

/* Each rank has the squares of what it owns; sparse tables are the same everywhere. */
int optim_grads_sum_norms(struct optim *o, struct err *e)
{
    size_t n = (size_t)o->n;
    double *all;
    int r;

    if (!o->grads || !o->grads->g.shard)
        return 0;
    all = mem_array(n * (size_t)o->comm->world, sizeof *all);
    r = comm_agree(o->comm, all ? 0 : err_set(e, ERR_NOMEM, "gradient norm: out of memory"),
                   e);
    if (!r)
        r = o->comm->all_gather(o->comm, o->param_sum, n * sizeof *all, all, e);
    for (size_t i = 0; !r && i < n; i++) {
        o->param_sum[i] = all[i];
        for (int k = 1; is_dense(o, (int)i) && k < o->comm->world; k++)
            o->param_sum[i] += all[(size_t)k * n + i];
    }
    mem_free(all);
    return r;
}
