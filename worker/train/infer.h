/* Inference: a model in eval mode over many sequences, longest first, in micro-batches.
 *
 * Results do not depend on the micro-batch (row invariance), so tables computed here agree
 * bit for bit with what training's forward gives with dropout off; nor on the number of
 * ranks that share the work: every rank ends with all results. */
#ifndef WORKER_TRAIN_INFER_H
#define WORKER_TRAIN_INFER_H

#include "base/err.h"
#include "worker/data/encode.h"
#include "worker/dist/comm.h"
#include "worker/model/model.h"

struct infer_options {
    long micro_tokens; /* 0: default */
    void (*progress)(void *arg, size_t done, size_t n);
    void *arg;
    const volatile int *stop; /* non-zero: ERR_STOPPED at the next micro-batch */
    const struct comm *comm;  /* the work is shared by its ranks (collective); or NULL */
};

/* out: (n sequences, O) in the order of `s`; value: (n) or NULL. */
int infer_outputs(struct model *m, const struct sequences *s, const struct infer_options *o,
                  float *out, float *value, struct err *e);

/* Mean-pooled last hidden states: (n, D). For `order: embedding`. */
int infer_embeddings(struct model *m, const struct sequences *s, float *out, struct err *e);

#endif
