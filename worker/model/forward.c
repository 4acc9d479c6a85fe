/* The one transformer, switched on a family's traits (worker/family/family.h).
 *
 *     post-norm (Vaswani et al. 2017)        pre-norm (Xiong et al. 2020)
 *     x = norm(x + attention(x))             x = x + attention(norm(x))
 *     x = norm(x + ff(x))                    x = x + ff(norm(x)), norm after the last
 *
 * Training, planning and inference run these same lines; so log-probabilities agree bit
 * for bit. Where only one row of a sequence is pooled, the last layer works on those rows
 * alone after its attention: rows do not depend on one another there, so the bits stay.
 *
 * Backward reads a layer's own memory alone; so with recomputation only the layers' inputs
 * stay: one matrix each, of pre-norm two (the stream and its norm).
 *
 * Dropout sites in program order, as Hugging Face has them: embeddings; in each layer the
 * attention probabilities, the attention's output, the feed-forward's output; the head. */
#include <stdio.h>

#include "base/mem.h"
#include "worker/model/head.h"
#include "worker/model/internal.h"
#include "worker/tape/rule.h"

struct run {
    struct model *m;
    struct tape *t;
    const struct packed *in;
    struct model_out *out;
    int keep;       /* every layer's output stays */
    int early_pool; /* the last layer works on the pooled rows alone */
    int recompute;
    enum op_pool pool;
    const float *freq; /* of rotary positions; on the device */
    long n_rows;       /* pooled; HEAD_LOGPROB: those that predict answer tokens, */
    int *target;       /* ... these tokens, and each sequence's rows (B + 1) */
    int *bounds;
};

static struct param *slot(const struct run *r, int i)
{
    return i < 0 ? NULL : &r->m->param[i];
}

static void drop(const struct run *r, struct tensor *x)
{
    if (!r->keep)
        tape_release(r->t, x);
}

static struct norm_spec norm_of(const struct run *r, int w, int b)
{
    return (struct norm_spec){.kind = r->m->config.norm,
                              .eps = r->m->config.norm_eps,
                              .w = slot(r, w),
                              .b = slot(r, b)};
}

double model_dropout(const struct model *m, double configured)
{
    return m->options.dropout >= 0 ? m->options.dropout : configured;
}

/* ---- checks -------------------------------------------------------------------------- */

static int check_tokens(const struct run *r, long b, struct err *e)
{
    const struct packed *in = r->in;
    const struct dims *d = &r->m->config.dims;
    long types = r->m->type < 0 ? 1 : d->X;

    for (long i = in->cu_seqlens[b]; i < in->cu_seqlens[b + 1]; i++) {
        if (in->ids[i] < 0 || in->ids[i] >= d->V)
            return err_set(e, ERR_CONFIG,
                           "sequence %ld of the batch: token id %d, but the model's "
                           "vocabulary has %ld",
                           b, in->ids[i], d->V);
        if (in->types[i] < 0 || in->types[i] >= types)
            return err_set(
                e, ERR_CONFIG,
                "sequence %ld of the batch: token type %d, but the model has %ld", b,
                in->types[i], types);
        invariant((long)in->position[i] == i - in->cu_seqlens[b]);
    }
    return 0;
}

static int check_batch(const struct run *r, struct err *e)
{
    const struct packed *in = r->in;
    long most = r->m->config.dims.P - r->m->config.position_offset;

    invariant(in->B > 0 && in->cu_seqlens[0] == 0 && in->cu_seqlens[in->B] == in->T);
    for (long b = 0; b < in->B; b++) {
        long n = in->cu_seqlens[b + 1] - in->cu_seqlens[b];

        invariant(n > 0);
        if (n > most) {
            err_set(e, ERR_CONFIG,
                    "sequence %ld of the batch has %ld tokens, but the model has %ld "
                    "positions",
                    b, n, most);
            return err_mend(e, "set max_tokens to %ld or less", most);
        }
        if (check_tokens(r, b, e))
            return e->code;
    }
    return 0;
}

/* ---- layers -------------------------------------------------------------------------- */

static struct tensor *embed(struct run *r)
{
    const struct model *m = r->m;
    const struct packed *in = r->in;
    struct param *table[OP_TABLES_MAX];
    const int *index[OP_TABLES_MAX];
    struct norm_spec norm = norm_of(r, m->embed_norm_w, m->embed_norm_b);
    struct tensor *x, *y;
    int n = 0;

    table[n] = slot(r, m->word);
    index[n++] = in->ids;
    if (m->position >= 0) {
        int *at = arena_array(&r->t->arena, (size_t)in->T, sizeof *at);

        if (!at) {
            tape_fail(r->t, ERR_NOMEM, "out of memory for the positions of a batch");
            return NULL;
        }
        for (long i = 0; i < in->T; i++)
            at[i] = (int)in->position[i] + m->config.position_offset;
        table[n] = slot(r, m->position);
        index[n++] = at;
    }
    if (m->type >= 0) {
        table[n] = slot(r, m->type);
        index[n++] = in->types;
    }
    x = tape_embedding(r->t, n, table, index);
    if (m->config.embedding_norm) {
        y = tape_norm(r->t, x, NULL, &norm, 0, NULL);
        tape_release(r->t, x);
        x = y;
    }
    return tape_dropout(r->t, x, model_dropout(m, m->config.embedding_dropout), 1);
}

/* x (T,D) to the heads' outputs (T, H d), before the output matrix; x stays. */
static struct tensor *attend(struct run *r, struct tensor *x, long layer)
{
    const struct layer_params *l = &r->m->layer[layer];
    const struct model_config *c = &r->m->config;
    struct attention_spec spec = {.H = (int)c->dims.H,
                                  .K = (int)c->dims.K,
                                  .d = (int)c->dims.d,
                                  .causal = c->causal,
                                  .window = layer >= c->window_from ? c->window : 0,
                                  .dropout = model_dropout(r->m, c->attention_dropout),
                                  .precision = model_get_precision(r->m)};
    struct tensor *qkv, *o;

    qkv = tape_linear(r->t, x, slot(r, l->qkv_w), slot(r, l->qkv_b), ACT_NONE);
    if (c->head_norm) {
        struct head_norm_spec heads = {spec.H,
                                       spec.K,
                                       spec.d,
                                       c->norm_eps,
                                       {slot(r, l->qnorm_w), slot(r, l->knorm_w)}};

        qkv = tape_head_norm(r->t, qkv, &heads);
    }
    if (c->position == POSITION_ROTARY)
        qkv = tape_rotary(r->t, qkv, spec.H + spec.K, spec.d, c->rotary_dims,
                          c->rotary_interleaved, r->freq);
    o = tape_attention(r->t, qkv, &spec);
    tape_release(r->t, qkv);
    return o;
}

static struct tensor *project(struct run *r, struct tensor *o, int w, int b)
{
    struct tensor *h = tape_linear(r->t, o, slot(r, w), slot(r, b), ACT_NONE);

    tape_release(r->t, o);
    return h;
}

static struct tensor *feed_forward(struct run *r, struct tensor *x,
                                   const struct layer_params *l)
{
    const struct model_config *c = &r->m->config;
    int gated = c->ff == FF_GATED;
    struct tensor *h =
        tape_linear(r->t, x, slot(r, l->in_w), slot(r, l->in_b), gated ? ACT_NONE : c->act);

    if (gated) {
        struct tensor *y = tape_glu(r->t, h, c->act);

        tape_release(r->t, h);
        h = y;
    }
    return project(r, h, l->ffout_w, l->ffout_b);
}

static struct tensor *pool_rows(struct run *r, struct tensor *x)
{
    struct tensor *y = tape_pool(r->t, x, r->pool);

    tape_release(r->t, x);
    return y;
}

/* x[0]: the layers' input and output. */
static void post_norm_layer(struct run *r, long i, struct tensor **x)
{
    const struct model_config *c = &r->m->config;
    double p = model_dropout(r->m, c->dropout);
    const struct layer_params *l = &r->m->layer[i];
    struct norm_spec attn_norm = norm_of(r, l->attn_norm_w, l->attn_norm_b);
    struct norm_spec ff_norm = norm_of(r, l->ff_norm_w, l->ff_norm_b);
    struct tensor *in = *x, *o = attend(r, in, i), *h, *y;

    if (r->early_pool && i == c->dims.L - 1) {
        o = pool_rows(r, o);
        in = pool_rows(r, in);
    }
    h = project(r, o, l->out_w, l->out_b);
    y = tape_norm(r->t, h, in, &attn_norm, c->no_attention_out_dropout ? 0 : p, NULL);
    drop(r, in);
    h = feed_forward(r, y, l);
    *x = tape_norm(r->t, h, y, &ff_norm, p, NULL);
    tape_release(r->t, y);
}

/* x[0]: the residual stream, x[1] its norm. */
static void pre_norm_layer(struct run *r, long i, struct tensor **x)
{
    const struct model *m = r->m;
    const struct model_config *c = &m->config;
    double p = model_dropout(m, c->dropout);
    const struct layer_params *l = &m->layer[i];
    struct norm_spec norm;
    struct tensor *s = x[0], *o = attend(r, x[1], i), *h, *y;

    tape_release(r->t, x[1]);
    if (r->early_pool && i == c->dims.L - 1) {
        o = pool_rows(r, o);
        s = pool_rows(r, s);
    }
    h = project(r, o, l->out_w, l->out_b);
    norm = norm_of(r, l->ff_norm_w, l->ff_norm_b);
    y = tape_norm(r->t, h, s, &norm, p, &x[0]);
    drop(r, s);
    s = x[0];
    h = feed_forward(r, y, l);
    tape_release(r->t, y);
    norm = i + 1 < c->dims.L ? norm_of(r, l[1].attn_norm_w, l[1].attn_norm_b)
                             : norm_of(r, m->norm_w, m->norm_b);
    x[1] = tape_norm(r->t, h, s, &norm, p, &x[0]);
    tape_release(r->t, s);
}

static void layer(struct run *r, long i, struct tensor **x)
{
    if (r->m->config.norm_place == NORM_POST)
        post_norm_layer(r, i, x);
    else
        pre_norm_layer(r, i, x);
}

/* A layer that backward runs again. */
struct block {
    struct run run;
    long layer;
};

static void run_block(struct tape *t, void *arg, struct tensor **x)
{
    struct block *b = arg;

    (void)t;
    layer(&b->run, b->layer, x);
}

static void recomputed_layer(struct run *r, long i, struct tensor **x, int n)
{
    struct block *b = arena_alloc(&r->t->arena, sizeof *b);

    if (!b) {
        tape_fail(r->t, ERR_NOMEM, "out of memory for the books of a step");
        return;
    }
    *b = (struct block){*r, i};
    b->run.in = NULL; /* the caller's */
    b->run.out = NULL;
    tape_recompute(r->t, run_block, b, x, n);
}

/* Embeddings to the last layer's output. The last layer is never recomputed: its backward
 * comes at once. */
static struct tensor *layers(struct run *r, struct tensor *x)
{
    const struct model *m = r->m;
    const struct model_config *c = &m->config;
    int post = c->norm_place == NORM_POST;
    struct norm_spec norm =
        post ? norm_of(r, m->norm_w, m->norm_b)
             : norm_of(r, m->layer[0].attn_norm_w, m->layer[0].attn_norm_b);
    struct tensor *stream[TAPE_STREAMS_MAX] = {x};

    if (!post) {
        invariant(c->final_norm);
        stream[1] = tape_norm(r->t, x, NULL, &norm, 0, NULL);
    }
    for (long i = 0; i < c->dims.L; i++) {
        if (r->recompute && i + 1 < c->dims.L)
            recomputed_layer(r, i, stream, post ? 1 : 2);
        else
            layer(r, i, stream);
        if (r->keep)
            r->out->layer[i + 1] = stream[0];
    }
    if (post && !c->final_norm)
        return stream[0];
    if (post)
        stream[1] = tape_norm(r->t, stream[0], NULL, &norm, 0, NULL);
    drop(r, stream[0]);
    return r->out->norm = stream[1];
}

/* ---- the whole ----------------------------------------------------------------------- */

static void *host_array(struct run *r, size_t n, size_t size)
{
    void *p = arena_array(&r->t->arena, n, size);

    if (!p)
        tape_fail(r->t, ERR_NOMEM, "out of memory for the positions of a batch");
    return p;
}

/* The rows whose next token belongs to an answer. */
static int *answer_rows(struct run *r)
{
    const struct packed *in = r->in;
    int *row = host_array(r, (size_t)in->T, sizeof *row);
    long n = 0;

    r->target = host_array(r, (size_t)in->T, sizeof *r->target);
    r->bounds = host_array(r, (size_t)in->B + 1, sizeof *r->bounds);
    if (!row || !r->target || !r->bounds)
        return NULL;
    for (long b = 0; b < in->B; b++) {
        int first = in->cu_seqlens[b], end = in->cu_seqlens[b + 1];
        int answer = in->answer ? in->answer[b] : 1;

        invariant(answer > 0);
        if (first + answer >= end) {
            tape_fail(r->t, ERR_CONFIG, "sequence %ld of the batch has no answer", b);
            return NULL;
        }
        for (int i = first + answer; i < end; i++) {
            row[n] = i - 1;
            r->target[n++] = in->ids[i];
        }
        r->bounds[b + 1] = (int)n;
    }
    r->n_rows = n;
    return row;
}

/* The row (0 .. T-1) that stands for each sequence, whatever the pooling. */
static int *pooled_rows(struct run *r)
{
    const struct packed *in = r->in;
    int eos = r->m->pooling == POOLING_EOS ? r->m->config.eos_id : -1;
    int *row = host_array(r, (size_t)in->B, sizeof *row);

    if (!row)
        return NULL;
    r->n_rows = in->B;
    for (long b = 0; b < in->B; b++) {
        int first = in->cu_seqlens[b], last = in->cu_seqlens[b + 1] - 1;

        row[b] = r->pool == POOL_LAST ? last : first;
        for (int i = last; eos >= 0 && i >= first; i--)
            if (in->ids[i] == eos) {
                row[b] = i;
                break;
            }
    }
    return row;
}

int model_forward(struct model *m, struct tape *t, const struct packed *in,
                  const struct forward_options *o, struct model_out *out, struct err *e)
{
    struct run r = {.m = m, .t = t, .in = in, .out = out};
    int only = o && o->pooled_only, answers = m->options.head == HEAD_LOGPROB && !only;
    int pools;
    struct tensor *x;
    int *rows;

    *out = (struct model_out){0};
    r.keep = o && o->keep_layers;
    r.pool = answers ? POOL_LAST : head_pool(m);
    pools = only || m->options.head == HEAD_CLASSIFY || m->options.head == HEAD_REWARD;
    r.early_pool = (pools || answers) && !r.keep && r.pool != POOL_MEAN;
    r.recompute = o && o->recompute && !r.keep && !tape_infers(t);
    if (check_batch(&r, e))
        return e->code;
    rows = answers ? answer_rows(&r) : pooled_rows(&r);
    if (r.keep) {
        out->layer =
            arena_array(&t->arena, (size_t)m->config.dims.L + 1, sizeof *out->layer);
        if (!out->layer)
            tape_fail(t, ERR_NOMEM, "out of memory for the layers of a batch");
    }
    if (rows)
        tape_set_batch(t, in, rows, r.n_rows);
    if (m->config.position == POSITION_ROTARY)
        r.freq = tape_copy(t, m->config.rotary_freq,
                           (size_t)m->config.rotary_dims / 2 * sizeof *r.freq);
    if (tape_result(t, e))
        return e->code;
    x = embed(&r);
    if (r.keep)
        out->layer[0] = x;
    x = layers(&r, x);
    if (!r.early_pool)
        out->hidden = x;
    if (answers) {
        head_answers(m, t, r.early_pool ? x : tape_pool(t, x, r.pool), r.target, r.bounds,
                     out);
    } else if (r.early_pool) {
        head_pooled(m, t, x, only, out);
    } else {
        if (pools)
            head_pooled(m, t, tape_pool(t, x, r.pool), only, out);
        else
            head_tokens(m, t, x, out);
    }
    return tape_result(t, e);
}
