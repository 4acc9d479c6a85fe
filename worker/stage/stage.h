/* A training stage: what one algorithm adds to the trainer. One file per algorithm.
 *
 * The trainer owns data order, micro-batches, forward and backward, reduction, clipping,
 * optimizer, schedule, evaluation, checkpoints, resume and signals. A stage says which
 * model and sequences it wants, and turns the model's outputs over one batch into a loss,
 * gradients of the outputs, and metrics: arrays in, arrays out, in double precision. So the
 * result cannot depend on micro-batches, packing or world size. */
#ifndef WORKER_STAGE_STAGE_H
#define WORKER_STAGE_STAGE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/opt.h"
#include "base/rng.h"
#include "worker/data/encode.h"
#include "worker/model/model.h"
#include "worker/spec/spec.h"

enum { METRICS_MAX = 64, STAGE_STATE_MAX = 16 };

struct metric_list { /* ordered name -> value; names are literals */
    const char *name[METRICS_MAX];
    double value[METRICS_MAX];
    int n;
};
void metric_add(struct metric_list *m, const char *name, double value);
double metric_get(const struct metric_list *m, const char *name); /* NAN: absent */

/* The outputs of one batch (or, for a separable stage, a part of it). Example i has S
 * sequences, sequence s at out + (i * S + s) * O. */
struct stage_batch {
    size_t n;        /* examples here */
    size_t n_total;  /* examples of the whole optimizer step: means divide by this */
    size_t n_answer; /* answer tokens of the whole step; 0 where rows have no answers */
    long step;       /* from 0 */
    const uint32_t *example; /* (n) index into the training rows */
    const int *label;        /* (n) */
    const float *out;        /* (n, S, O) logits or scores */
    const float *value;      /* (n) or NULL */
    float *d_out, *d_value;  /* d loss / d out, to be filled; zeroed before */
};

/* What a stage's functions get. Owned by the trainer. */
struct stage_run {
    const struct spec *spec;
    const struct stage_spec *stage;
    const void *config;
    const int *label; /* (n_rows) of the training rows */
    size_t n_rows;
    int K;            /* labels */
    const int *order; /* (K, K) preference order, prefer.h */
    uint64_t seed;
    void *tables; /* what prepare() made (PPO: scores and log p_ref); freed by it */
    double state[STAGE_STATE_MAX]; /* saved in checkpoints (PPO: beta) */
    /* For prepare(): opens a finished stage's output and runs it over sequences, in eval
     * mode, with progress: out (n sequences, O). Cached on disk under the stage's folder
     * and reused on resume when the inputs' hashes agree. */
    const char *dir; /* RUN/<stage> */
    struct trainer *trainer;
    const struct run_context *context; /* worker/train/table.h: table_compute() */
};

/* Model and data a stage wants. */
struct stage_shape {
    enum head_kind head;
    int value_head;
    int sequences_per_example; /* 1, or K */
    int reward_input;          /* encode_reward() instead of encode_policy() */
    int keep_head;             /* start from the checkpoint's head where there is one */
};

struct stage {
    const char *name, *help;
    enum task_kind kind;       /* of the jobs it is for; each kind has its own `sft` */
    const struct opt *options; /* its own keys, beside common_options */
    size_t config_size;
    double default_lr, default_epochs, default_dropout;
    const char *default_metric; /* `select: best` by this, higher is better unless "nll" */
    /* What evaluate() gives and `select_metric` and `stop` may name (NULL-terminated; NULL:
     * any); mae and qwk are for ordinal tasks alone. */
    const char *const *metrics;
    /* Stages whose outputs it takes when the job has them (NULL-terminated, or NULL): the
     * default of `needs`. A stage named by its `init` key is added by itself. */
    const char *const *uses;
    int loss_wanders; /* it need not fall while the stage learns */
    int separable;    /* loss of an example needs that example's outputs alone */
    /* Rules across keys and sections; all problems at once. */
    void (*check)(const void *config, const struct spec *spec, const struct stage_spec *s,
                  struct problems *p);
    void (*shape)(const void *config, const struct spec *spec, struct stage_shape *out);
    /* Which needed stage's output the model starts from: index into s->needs, or -1 for the
     * job's base model. */
    int (*init_from)(const void *config, const struct spec *spec,
                     const struct stage_spec *s);
    int (*prepare)(struct stage_run *run, struct err *e); /* may be NULL */
    void (*release)(struct stage_run *run);               /* may be NULL */
    /* Loss of the batch (sum over its examples / n_total); fills d_out, d_value; adds
     * per-batch metrics (means over n_total, so parts add up). */
    int (*loss)(struct stage_run *run, const struct stage_batch *b, double *loss,
                struct metric_list *m, struct err *e);
    /* After the optimizer step, e.g. the KL controller; m: the step's metrics. NULL: none
     */
    void (*after_step)(struct stage_run *run, const struct metric_list *m);
    /* Metrics over a split from the outputs of all its examples (n, S, O). */
    int (*evaluate)(struct stage_run *run, const int *label, size_t n, const float *out,
                    struct metric_list *m, struct err *e);
};

extern const struct stage *const stage_registry[];
const struct stage *stage_find(const char *name, enum task_kind kind); /* NULL: none */

#endif
