/* Tiny random models made in memory, without files: a BERT and a Llama in every shape the
 * forward has. Weights are normal(0, 0.3), norms near 1. */
#ifndef TESTS_UNIT_MODEL_TINY_H
#define TESTS_UNIT_MODEL_TINY_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/mem.h"
#include "base/rng.h"
#include "worker/model/internal.h"

enum tiny_kind { TINY_BERT, TINY_LLAMA };

struct tiny_spec {
    enum tiny_kind kind;
    enum head_kind head;
    enum pooling pooling;
    int value_head;
    double dropout;
    int scale; /* 1: D 16; larger: times as wide */
    int layers;
};

enum { TINY_PARAMS_MAX = 128 };

static float *tiny_memory(const struct backend *be, struct rng *r, long n, double mean,
                          double sd)
{
    float *host = mem_array((size_t)n, sizeof *host);
    float *p = be->alloc((size_t)n * sizeof *p);

    assert_non_null(host);
    assert_non_null(p);
    for (long i = 0; i < n; i++)
        host[i] = (float)(mean + sd * rng_normal(r));
    assert_int_equal(be->copy_in(p, host, (size_t)n * sizeof *p), 0);
    mem_free(host);
    return p;
}

static int tiny_param(struct model *m, struct rng *r, const char *name, long rows,
                      long cols)
{
    struct param *p = &m->param[m->n_params];
    int norm = strstr(name, "norm.w") != NULL;
    double sd = rows == 1 ? 0.1 : 0.3 * 4 / (4 + (double)cols / 16);

    assert_true(m->n_params < TINY_PARAMS_MAX);
    *p = (struct param){.name = name, .rows = rows, .cols = cols, .trainable = 1};
    p->data = tiny_memory(m->options.backend, r, rows * cols, norm, sd);
    p->grad = tiny_memory(m->options.backend, r, rows * cols, 0, 0);
    p->pack[0].version = p->pack[1].version = 1;
    if (strncmp(name, "embed.", 6) == 0 && rows > 1) {
        p->touched = mem_alloc((size_t)rows);
        p->live = mem_alloc((size_t)rows);
    }
    return (int)m->n_params++;
}

static void tiny_layer(struct model *m, struct rng *r, struct layer_params *l, int bias)
{
    const struct dims *d = &m->config.dims;
    long in = m->config.ff == FF_GATED ? 2 * d->F : d->F;

    *l = (struct layer_params){-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
    l->qkv_w = tiny_param(m, r, "qkv.w", (d->H + 2 * d->K) * d->d, d->D);
    l->out_w = tiny_param(m, r, "out.w", d->D, d->H * d->d);
    l->attn_norm_w = tiny_param(m, r, "attn.norm.w", 1, d->D);
    l->in_w = tiny_param(m, r, "in.w", in, d->D);
    l->ffout_w = tiny_param(m, r, "ff.out.w", d->D, d->F);
    l->ff_norm_w = tiny_param(m, r, "ff.norm.w", 1, d->D);
    if (!bias)
        return;
    l->qkv_b = tiny_param(m, r, "qkv.b", 1, (d->H + 2 * d->K) * d->d);
    l->out_b = tiny_param(m, r, "out.b", 1, d->D);
    l->attn_norm_b = tiny_param(m, r, "attn.norm.b", 1, d->D);
    l->in_b = tiny_param(m, r, "in.b", 1, in);
    l->ffout_b = tiny_param(m, r, "ff.out.b", 1, d->D);
    l->ff_norm_b = tiny_param(m, r, "ff.norm.b", 1, d->D);
}

static void tiny_heads(struct model *m, struct rng *r, const struct tiny_spec *s)
{
    long D = m->config.dims.D, outputs = s->head == HEAD_REWARD ? 1 : 3;

    if (s->head == HEAD_CLASSIFY || s->head == HEAD_REWARD) {
        m->head_w = tiny_param(m, r, "head.w", outputs, D);
        if (s->kind == TINY_BERT) {
            m->head_b = tiny_param(m, r, "head.b", 1, outputs);
            m->pooler_w = tiny_param(m, r, "pooler.w", D, D);
            m->pooler_b = tiny_param(m, r, "pooler.b", 1, D);
        }
    }
    if (s->value_head) {
        m->value_w = tiny_param(m, r, "value.w", 1, D);
        m->value_b = tiny_param(m, r, "value.b", 1, 1);
    }
    if (s->head == HEAD_MASKED) {
        m->mlm_dense_w = tiny_param(m, r, "mlm.dense.w", D, D);
        m->mlm_dense_b = tiny_param(m, r, "mlm.dense.b", 1, D);
        m->mlm_norm_w = tiny_param(m, r, "mlm.norm.w", 1, D);
        m->mlm_norm_b = tiny_param(m, r, "mlm.norm.b", 1, D);
        m->lm_b = tiny_param(m, r, "lm.b", 1, m->config.dims.V);
    }
}

static void tiny_config(struct model_config *c, const struct tiny_spec *s)
{
    long k = s->scale ? s->scale : 1, L = s->layers ? s->layers : 2;

    if (s->kind == TINY_BERT) {
        *c = (struct model_config){.dims = {50, 16 * k, L, 4, 4, 4 * k, 40 * k, 40, 2, 3},
                                   .act = ACT_GELU_ERF,
                                   .norm = NORM_LAYER,
                                   .norm_place = NORM_POST,
                                   .position = POSITION_LEARNED,
                                   .native = NATIVE_POOLER_TANH,
                                   .embedding_norm = 1,
                                   .norm_eps = 1e-12f};
    } else {
        *c = (struct model_config){.dims = {50, 16 * k, L, 4, 2, 4 * k, 24 * k, 40, 0, 1},
                                   .act = ACT_SILU,
                                   .norm = NORM_RMS,
                                   .norm_place = NORM_PRE,
                                   .position = POSITION_ROTARY,
                                   .ff = FF_GATED,
                                   .native = NATIVE_LAST_LINEAR,
                                   .causal = 1,
                                   .final_norm = 1,
                                   .norm_eps = 1e-5f};
        c->rotary_dims = (int)c->dims.d;
        c->rotary_freq = mem_array((size_t)c->dims.d / 2, sizeof *c->rotary_freq);
        assert_non_null(c->rotary_freq);
        for (long i = 0; i < c->dims.d / 2; i++)
            c->rotary_freq[i] = 1.0f / (float)(1 + 7 * i);
    }
    c->pad_id = 0;
    c->eos_id = 2;
    c->dropout = c->attention_dropout = c->head_dropout = s->dropout;
}

static inline void tiny_init(struct model *m, const struct backend *be,
                             const struct tiny_spec *s)
{
    struct dims *d;
    struct rng r;

    memset(m, 0, sizeof *m);
    rng_init(&r, 7);
    tiny_config(&m->config, s);
    d = &m->config.dims;
    m->options = (struct model_options){.backend = be, .head = s->head, .dropout = -1};
    m->pooling = s->pooling;
    m->position = m->type = m->embed_norm_w = m->embed_norm_b = m->norm_w = m->norm_b = -1;
    m->pooler_w = m->pooler_b = m->head_w = m->head_b = m->value_w = m->value_b = -1;
    m->lm_w = m->lm_b = m->mlm_dense_w = m->mlm_dense_b = m->mlm_norm_w = m->mlm_norm_b =
        -1;
    m->param = mem_array(TINY_PARAMS_MAX, sizeof *m->param);
    m->layer = mem_array((size_t)d->L, sizeof *m->layer);
    assert_non_null(m->param);
    assert_non_null(m->layer);
    m->word = tiny_param(m, &r, "embed.word", d->V, d->D);
    if (s->kind == TINY_BERT) {
        m->position = tiny_param(m, &r, "embed.position", d->P, d->D);
        m->type = tiny_param(m, &r, "embed.type", d->X, d->D);
        m->embed_norm_w = tiny_param(m, &r, "embed.norm.w", 1, d->D);
        m->embed_norm_b = tiny_param(m, &r, "embed.norm.b", 1, d->D);
    } else {
        m->norm_w = tiny_param(m, &r, "norm.w", 1, d->D);
    }
    for (long i = 0; i < d->L; i++)
        tiny_layer(m, &r, &m->layer[i], s->kind == TINY_BERT);
    tiny_heads(m, &r, s);
}

static inline void tiny_fini(struct model *m)
{
    const struct backend *be = m->options.backend;

    for (size_t i = 0; i < m->n_params; i++) {
        struct param *p = &m->param[i];

        for (int k = 0; k < 2; k++)
            if (be->pack_free)
                be->pack_free(&p->pack[k]);
        be->release(p->data);
        be->release(p->grad);
        mem_free(p->touched);
        mem_free(p->live);
    }
    mem_free(m->config.rotary_freq);
    mem_free(m->param);
    mem_free(m->layer);
}

/* A micro-batch of B random sequences of the given lengths; sequence b is example
 * first + b, and its tokens depend on that alone. */
struct tiny_batch {
    struct packed in;
    int ids[2048], types[2048], cu[65];
    uint32_t position[2048], example[2048];
};

static inline void tiny_pack(struct tiny_batch *p, const struct model *m, const int *length,
                             int B, uint32_t first)
{
    int at = 0;

    memset(p, 0, sizeof *p);
    for (int b = 0; b < B; b++) {
        struct rng r;

        rng_init(&r, 100 + first + (uint32_t)b);
        for (int i = 0; i < length[b]; i++, at++) {
            p->ids[at] = (int)rng_below(&r, (uint32_t)m->config.dims.V);
            p->types[at] = m->type >= 0 && i > length[b] / 2;
            p->position[at] = (uint32_t)i;
            p->example[at] = first + (uint32_t)b;
        }
        p->cu[b + 1] = at;
        if (length[b] > p->in.max_len)
            p->in.max_len = length[b];
    }
    p->in.B = B;
    p->in.T = at;
    p->in.ids = p->ids;
    p->in.types = p->types;
    p->in.position = p->position;
    p->in.example = p->example;
    p->in.cu_seqlens = p->cu;
}

#endif
