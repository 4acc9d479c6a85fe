/* Heads: from the last hidden states to logits, scores and values. Inside the model room.
 */
#ifndef WORKER_MODEL_HEAD_H
#define WORKER_MODEL_HEAD_H

#include "worker/model/model.h"

/* What a dropout site uses: the option, or what config.json says. */
double model_dropout(const struct model *m, double configured);

/* Which rows the model's pooling takes; POOL_LAST also for eos. */
enum op_pool head_pool(const struct model *m);

/* From the pooled rows x (B,D): out->pooled, and unless `only` the logits and the value. */
void head_pooled(struct model *m, struct tape *t, struct tensor *x, int only,
                 struct model_out *out);

/* From the hidden states x (T,D): out->logits of language models. */
void head_tokens(struct model *m, struct tape *t, struct tensor *x, struct model_out *out);

/* From the hidden states x (n,D) that predict answer tokens, and these tokens (n):
 * out->logits of HEAD_LOGPROB. bounds (B + 1): each sequence's rows of x. Host memory. */
void head_answers(struct model *m, struct tape *t, struct tensor *x, const int *target,
                  const int *bounds, struct model_out *out);

#endif
