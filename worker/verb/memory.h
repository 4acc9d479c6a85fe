/* The memory of a stage, part by part, before it starts: what `hone check` says and what
 * the run's peak_bytes (VmHWM) is held against. Per rank: of several, the one with the
 * heaviest share of a batch. */
#ifndef WORKER_VERB_MEMORY_H
#define WORKER_VERB_MEMORY_H

#include <stddef.h>

#include "worker/data/encode.h"
#include "worker/model/model.h"
#include "worker/spec/spec.h"
#include "worker/stage/stage.h"

/* Bytes. All are needed at the same moment, an evaluation between two steps: they add up to
 * the peak. */
#define MEMORY_PARTS(X)                                                                    \
    X(program) /* code and libraries that are touched, stacks */                           \
    X(data)    /* rows, tokenizer, token sequences */                                      \
    X(weights)                                                                             \
    X(gradients)  /* of embedding tables: rows that occur */                               \
    X(moments)    /* AdamW's two, the same */                                              \
    X(exchange)   /* of several ranks: others' gradients, shared parameters */             \
    X(packed)     /* matrices laid out for products, kept where that pays */               \
    X(step)       /* activations of the heaviest micro-batch, forward and backward */      \
    X(evaluation) /* activations of the heaviest micro-batch of an evaluation */           \
    X(buffers)    /* scratch of operators and threads */

struct memory_plan {
#define X(part) size_t part;
    MEMORY_PARTS(X)
#undef X
    size_t peak;
    const char *when; /* "training", "evaluation", "measuring" */
    long parameters;
};

struct memory_request {
    const struct spec *spec;
    const struct stage_spec *stage;
    const struct stage_shape *shape;
    const struct backend *backend;
    enum op_precision precision;
    int ranks, shard; /* of the job, on one host; shard: ZeRO-1 */
    const struct sequences *train, *validation, *test; /* n 0: none */
    long steps;
    size_t data; /* bytes of rows and tokenizer */
};

/* Opens the model, so ERR_CORRUPT and the like come as from model_open(). */
int memory_plan(const struct memory_request *r, struct memory_plan *out, struct err *e);

/* Memory of this process that no file is behind, and that of files: from /proc. */
size_t memory_anonymous(void);
size_t memory_of_files(void);

#endif
