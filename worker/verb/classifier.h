/* A finished classifier, as `predict` and `eval` use one: tokenizer, model, label names.
 *
 * Fails with ERR_CONFIG when the folder holds no classifier (a base model without a head, a
 * reward model), and as model_open() and tok_open() do. */
#ifndef WORKER_VERB_CLASSIFIER_H
#define WORKER_VERB_CLASSIFIER_H

#include "worker/data/encode.h"
#include "worker/model/model.h"

struct classifier {
    struct tok *tok;
    struct model *model;
    struct encode_spec encode;
    int K;
    const char **label; /* (K) borrowed from the model, or "LABEL_<i>" */
    char *names;
    float *logits; /* of the newest batch */
    size_t cap_logits;
};

/* precision: "f32", "bf16", or "auto" (or NULL): what it was trained in (hone.json) where
 * the processor has instructions for that, else f32. Another word: ERR_USAGE. */
int classifier_open(struct classifier *c, const char *dir, const char *precision,
                    struct err *e);
void classifier_close(struct classifier *c); /* total */

/* *logits: (n, K), valid until the next call; of rows, or of a whole data set. */
int classifier_run(struct classifier *c, const struct row *row, size_t n,
                   const float **logits, struct err *e);
int classifier_run_set(struct classifier *c, const struct dataset *d, const float **logits,
                       struct err *e);

#endif
