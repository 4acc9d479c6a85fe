/* Attention over packed sequences on a fused matrix [q | k | v] of (H + 2K) heads.
 *
 * Backward (flash: Dao et al. 2022) recomputes the probabilities from q, k and the row
 * statistic lse, which is kept; gradients are written over the whole fused gradient. */
#include <math.h>

#include "worker/tape/rule.h"

struct attention_node {
    struct tape_node node; /* keep[0]: lse (T,H) */
    struct tensor *qkv, *o;
    struct attention_spec spec;
    struct op_dropout dropout;
};

static int backward(struct tape *t, struct tape_node *node)
{
    struct attention_node *n = (struct attention_node *)node;
    const struct attention_spec *s = &n->spec;
    long k = (long)s->H * s->d, v = k + (long)s->K * s->d, ld = n->qkv->cols;
    struct tape_block *g = tape_grad_new(t, n->qkv);
    struct attention_backward_args a;

    if (!g)
        return t->err.code;
    a = (struct attention_backward_args){.q = n->qkv->data,
                                         .o = n->o->data,
                                         .dout = n->o->grad,
                                         .lse = node->keep[0]->p,
                                         .ldq = ld,
                                         .ldk = ld,
                                         .ldv = ld,
                                         .ldo = n->o->cols,
                                         .dq = g->p,
                                         .cu_seqlens = t->batch.cu_seqlens,
                                         .B = t->batch.B,
                                         .T = n->qkv->rows,
                                         .H = s->H,
                                         .K = s->K,
                                         .d = s->d,
                                         .causal = s->causal,
                                         .window = s->window,
                                         .scale = 1.0f / sqrtf((float)s->d),
                                         .dropout = n->dropout,
                                         .precision = s->precision};
    if (tape_runs(t)) {
        a.k = a.q + k;
        a.v = a.q + v;
        a.dk = a.dq + k;
        a.dv = a.dq + v;
    }
    TAPE_RUN(t, attention_backward, &a);
    return tape_grad_put(t, n->qkv, g);
}

struct tensor *tape_attention(struct tape *t, struct tensor *qkv,
                              const struct attention_spec *s)
{
    long k = (long)s->H * s->d, v = k + (long)s->K * s->d;
    struct attention_node *n;
    struct attention_args a;
    struct tensor *o;

    if (t->err.code)
        return NULL;
    invariant(qkv->cols == v + (long)s->K * s->d && qkv->rows == t->batch.T);
    o = tape_tensor(t, qkv->rows, k, qkv->needs_grad);
    if (!o)
        return NULL;
    a = (struct attention_args){.q = qkv->data,
                                .ldq = qkv->cols,
                                .ldk = qkv->cols,
                                .ldv = qkv->cols,
                                .ldo = k,
                                .o = o->data,
                                .cu_seqlens = t->batch.cu_seqlens,
                                .B = t->batch.B,
                                .T = qkv->rows,
                                .H = s->H,
                                .K = s->K,
                                .d = s->d,
                                .causal = s->causal,
                                .window = s->window,
                                .scale = 1.0f / sqrtf((float)s->d),
                                .dropout = tape_next_dropout(t, s->dropout, 0),
                                .precision = s->precision};
    n = tape_record(t, sizeof *n, backward, o, NULL);
    if (n) {
        n->qkv = qkv;
        n->o = o;
        n->spec = *s;
        n->dropout = a.dropout;
        n->node.keep[0] = tape_take(t, (size_t)qkv->rows * (size_t)s->H * sizeof(float));
    }
    if (tape_runs(t)) {
        a.k = a.q + k;
        a.v = a.q + v;
        a.lse = n ? n->node.keep[0]->p : NULL;
    }
    TAPE_RUN(t, attention, &a);
    return o;
}
