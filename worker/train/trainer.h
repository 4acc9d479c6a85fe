/* The trainer: one optimizer step over one batch, for any stage.
 *
 *     batch -> this rank's shard -> micro-batches (packed, no padding) -> forward ->
 *     stage->loss over the WHOLE batch -> backward of each micro-batch, gradients reduced
 *     meanwhile -> norm -> clip -> AdamW
 *
 * The loss of a stage that is `separable` is taken per micro-batch (means divide by the
 * size of the batch, so parts add up). Any other stage that needs several micro-batches
 * runs forward twice: first to get the outputs of the whole batch, then again, with the
 * same dropout keys and so the same bits, for backward.
 *
 * Over several ranks every rank calls trainer_step() with the same batch. A separable loss
 * is taken of the shard alone; for any other the outputs of all ranks are gathered and each
 * computes the loss of the whole batch. A rank that fails takes the others with it, at the
 * same point of the step.
 *
 * Dropout is keyed by (seed, step) and the sequence's number in the training set, never by
 * its place in a batch. A step whose loss or gradient is not finite changes nothing but the
 * counters: it is reported with the name of the tensor in which it began. */
#ifndef WORKER_TRAIN_TRAINER_H
#define WORKER_TRAIN_TRAINER_H

#include "worker/dist/comm.h"
#include "worker/stage/stage.h"
#include "worker/train/optim.h"
#include "worker/train/sched.h"

enum { TRAINER_MICRO_TOKENS = 2048 };

/* The parts of a step's time. `reduce` is what backward does not hide of the sums, and
 * waiting for the other ranks. */
enum trainer_part {
    PART_DATA = BACKEND_LOAD,
    PART_FORWARD = BACKEND_FORWARD, /* with the loss */
    PART_BACKWARD = BACKEND_BACKWARD,
    PART_REDUCE = BACKEND_REDUCE,
    PART_OPTIMIZER = BACKEND_UPDATE,
    TRAINER_PARTS = BACKEND_STEP_PARTS
};

/* What random keys are for: second argument of rng_key(). */
enum rng_purpose { RNG_DROPOUT = 1 };

struct trainer_setup {
    struct model *model;
    const struct comm *comm;
    const struct stage *stage;
    struct stage_run *run;             /* rows, config, seed, state */
    const struct sequences *sequences; /* of the training rows */
    struct optim_options optim;
    struct sched sched;
    double clip;       /* 0: off */
    int dropout;       /* the model was opened with dropout: forward passes must agree */
    long micro_tokens; /* 0: TRAINER_MICRO_TOKENS */
    size_t step_bytes; /* step memory to take at once; 0: as it is needed */
    int recompute;     /* layers, in backward; no bit depends on it */
};

struct step_result {
    double loss, grad_norm, lr;
    size_t tokens; /* real ones, specials included */
    struct metric_list metrics;
    const char *bad; /* not NULL: the step was skipped, it began in this tensor */
    double seconds[TRAINER_PARTS]; /* where this rank's time went; a device's: of the step
                                    * before */
};

/* Dynamic loss scaling, for f16 alone (Micikevicius et al. 2018; values of PyTorch's
 * GradScaler): gradients of the outputs are multiplied by `factor`, gradients of parameters
 * divided by it. A step that overflows is skipped and halves it; 2,000 steps in a row that
 * do not, `good` of which have been counted, double it. */
struct loss_scale {
    double factor; /* 1: off */
    long good;
};

struct trainer;
extern const char *const trainer_part_names[TRAINER_PARTS]; /* of metrics: "time_data" */

/* Opening and steps are collective. */
int trainer_open(struct trainer **out, const struct trainer_setup *s, struct err *e);
void trainer_close(struct trainer *t); /* total; the model is the caller's */

/* Train on the n training rows `example` as step `step` (from 0). */
int trainer_step(struct trainer *t, long step, const uint32_t *example, size_t n,
                 struct step_result *out, struct err *e);

/* The rows of the step after the next trainer_step(), during which their micro-batches are
 * then packed; borrowed until that call returns. A hint: another batch may come. */
void trainer_expect(struct trainer *t, const uint32_t *example, size_t n);

struct optim *trainer_optim(struct trainer *t);
struct loss_scale *trainer_scale(struct trainer *t);

#endif
