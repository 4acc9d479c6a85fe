/* Heads, as Hugging Face has them.
 *
 *     bert        tanh(dense(first)), dropout, classifier
 *     roberta     dropout, tanh(dense(first)), dropout, out_proj
 *     distilbert  relu(dense(first)), dropout, classifier
 *     llama       score(last real token)
 *     cls, mean, last_token, eos: dropout, linear
 *
 * A value head is one more linear on the same pooled state. Language models: lm_head, or
 * the word embedding where tied; BERT's masked LM transforms first. */
#include "worker/model/head.h"

#include "worker/model/internal.h"
#include "worker/tape/rule.h"

const char *const pooling_names[] = {"model", "cls", "mean", "last_token", "eos", NULL};

static struct param *slot(struct model *m, int i)
{
    return i < 0 ? NULL : &m->param[i];
}

enum op_pool head_pool(const struct model *m)
{
    switch (m->pooling) {
    case POOLING_CLS:
        return POOL_FIRST;
    case POOLING_MEAN:
        return POOL_MEAN;
    case POOLING_LAST_TOKEN:
    case POOLING_EOS:
        return POOL_LAST;
    case POOLING_MODEL:
        break;
    }
    return m->config.native == NATIVE_LAST_LINEAR || m->config.causal ? POOL_LAST
                                                                      : POOL_FIRST;
}

/* The architecture's own dense layer on the pooled rows. */
static struct tensor *native_dense(struct model *m, struct tape *t, struct tensor *x,
                                   double dropout)
{
    enum native_head native = m->config.native;

    if (m->pooling != POOLING_MODEL || native == NATIVE_NONE ||
        native == NATIVE_LAST_LINEAR)
        return x;
    if (m->pooler_w < 0) {
        tape_fail(t, ERR_CONFIG,
                  "pooling \"model\": the checkpoint lacks its head's dense layer");
        err_mend(&t->err, "choose pooling cls or mean");
        return NULL;
    }
    if (native == NATIVE_DENSE_TANH)
        x = tape_dropout(t, x, dropout, 0);
    return tape_linear(t, x, slot(m, m->pooler_w), slot(m, m->pooler_b),
                       native == NATIVE_DENSE_RELU ? ACT_RELU : ACT_TANH);
}

void head_pooled(struct model *m, struct tape *t, struct tensor *x, int only,
                 struct model_out *out)
{
    double dropout = model_dropout(m, m->config.head_dropout);

    x = native_dense(m, t, x, dropout);
    out->pooled = x;
    if (only || m->head_w < 0)
        return;
    if (m->config.native != NATIVE_LAST_LINEAR)
        x = tape_dropout(t, x, dropout, 0);
    out->logits = tape_linear(t, x, slot(m, m->head_w), slot(m, m->head_b), ACT_NONE);
    if (m->value_w >= 0)
        out->value = tape_linear(t, x, slot(m, m->value_w), slot(m, m->value_b), ACT_NONE);
}

void head_tokens(struct model *m, struct tape *t, struct tensor *x, struct model_out *out)
{
    struct param *w = slot(m, m->lm_w >= 0 ? m->lm_w : m->word);

    if (m->options.head == HEAD_MASKED && m->mlm_dense_w >= 0) {
        struct norm_spec norm = {.kind = m->config.norm,
                                 .eps = m->config.norm_eps,
                                 .w = slot(m, m->mlm_norm_w),
                                 .b = slot(m, m->mlm_norm_b)};
        struct tensor *h = tape_linear(t, x, slot(m, m->mlm_dense_w),
                                       slot(m, m->mlm_dense_b), m->config.mlm_act);

        x = tape_norm(t, h, NULL, &norm, 0, NULL);
        tape_release(t, h);
    }
    if (m->options.head == HEAD_CAUSAL || m->options.head == HEAD_MASKED)
        out->logits = tape_linear(t, x, w, slot(m, m->lm_b), ACT_NONE);
}

void head_answers(struct model *m, struct tape *t, struct tensor *x, const int *target,
                  const int *bounds, struct model_out *out)
{
    struct param *w = slot(m, m->lm_w >= 0 ? m->lm_w : m->word);
    long B = t->batch.B;
    struct tensor *y = tape_logprob(t, x, w, slot(m, m->lm_b), target, 1);

    tape_release(t, x);
    if (y)
        out->logits = tape_pool_by(
            t, y, POOL_SUM, tape_copy(t, bounds, (size_t)(B + 1) * sizeof *bounds), B);
    tape_release(t, y);
}
