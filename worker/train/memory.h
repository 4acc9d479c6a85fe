/* The memory of a stage, part by part, before it starts: what `hone check` says and what
 * the run's peak_bytes (VmHWM) is held against. Per rank: of several, the one with the
 * heaviest share of a batch. */
#ifndef WORKER_TRAIN_MEMORY_H
#define WORKER_TRAIN_MEMORY_H

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

/* The same for a device: program, data and exchange stay in the host's memory; the rest
 * lies on the device and is reserved there before the first step. */

struct memory_plan {
#define X(part) size_t part;
    MEMORY_PARTS(X)
#undef X
    size_t peak;      /* on a device: what lies there */
    size_t host;      /* on a device: what lies on the host */
    size_t scratch;   /* on a device: the operators' share of `buffers` */
    size_t between;   /* on a device: that of sums over the ranks */
    const char *when; /* "training", "evaluation", "measuring" */
    long parameters;
    size_t tokens;     /* of the heaviest micro-batch */
    long micro_tokens; /* that it was made for */
    int recompute;     /* the same */
};

struct memory_request {
    const struct spec *spec;
    const struct stage_spec *stage;
    const struct stage_shape *shape;
    const struct backend *backend;
    int device; /* plan for a device, which `backend` need not be */
    enum op_precision precision;
    long micro_tokens; /* in place of the stage's own; 0: those */
    int recompute;     /* backward runs layers again */
    int ranks, shard;  /* of the job, on one host; shard: ZeRO-1 */
    long bucket_mb;    /* of gradients between devices; 0: not known yet */
    const struct sequences *train, *validation, *test; /* n 0: none */
    long steps;
    size_t data; /* bytes of rows and tokenizer */
};

/* Opens the model, so ERR_CORRUPT and the like come as from model_open(). */
int memory_plan(const struct memory_request *r, struct memory_plan *out, struct err *e);

/* The plan for a device with the largest micro-batch that fits into 9/10 of its memory,
 * where the stage does not say, and with recomputation, where the job leaves that open and
 * nothing of MEMORY_MICRO_GOOD tokens or more fits without. all 0: of unknown size. */
enum { MEMORY_MICRO_GOOD = 2048 };
int memory_plan_device(struct memory_request *r, size_t all, struct memory_plan *out,
                       struct err *e);
/* Why a plan is not possible, and the three cheapest ways to make it so; returns
 * ERR_NOMEM. `left` of `all` bytes are free on `device`. */
int memory_explain(const struct memory_request *r, const struct memory_plan *p,
                   const char *device, size_t left, size_t all, struct err *e);

/* Memory of this process that no file is behind, and that of files: from /proc. */
size_t memory_anonymous(void);
size_t memory_of_files(void);

#endif
