/* Inside the loop of a stage: shared by loop.c, loop_load.c and loop_end.c alone. */
#ifndef WORKER_TRAIN_LOOP_INTERNAL_H
#define WORKER_TRAIN_LOOP_INTERNAL_H

#include "base/arena.h"
#include "base/file.h"
#include "worker/train/curve.h"
#include "worker/train/loop.h"
#include "worker/train/snapshot.h"
#include "worker/train/stall.h"
#include "worker/train/table.h"
#include "worker/train/tfevents.h"
#include "worker/train/trainer.h"

/* An evaluation of this attempt: final/ need not be measured on validation again when it
 * holds that step's weights. */
struct kept {
    long step; /* -1: none */
    float *logits;
    struct metric_list metrics;
};

struct loop_gpu { /* of a rank; -1: not known */
    double busy, used, celsius, watts, throttled, ecc;
};

struct loop {
    struct loop_options o;
    const struct stage *stage;
    const struct common_options *c;
    const struct comm *comm;
    double longest; /* step so far, in seconds */
    struct arena arena;
    char dir[FILE_PATH_MAX];    /* RUN/<stage> */
    char source[FILE_PATH_MAX]; /* the model it starts from */
    const char *extra;          /* for hone.json */
    const char *select;         /* metric that picks the best evaluation */
    struct stage_shape shape;
    struct run_context context;
    struct stage_run run;
    struct model *model;
    enum pooling pooling;
    enum op_precision precision;
    struct trainer *trainer;
    struct sequences train, validation;
    unsigned char *visited;
    struct curve curve;
    struct tfevents events;
    struct progress p;
    struct stall stall;
    int stalled;                /* to be said with the next line of metrics */
    struct health_watch *watch; /* of this rank's GPU, or NULL */
    int device;                 /* its number */
    struct loop_gpu *gpus;      /* (world), for metrics; NULL: there are none */
    struct writer *writer;      /* of checkpoints; rank 0's, opened by the first */

    long micro_tokens; /* as asked for, or chosen to fit; 0: the usual */
    size_t step_bytes; /* of a step's activations, where they were planned */
    int recompute;
    long bucket_mb; /* of gradients between devices; 0: none */
    long batch, steps_per_epoch, total, log_every, eval_every, checkpoint_every;
    uint32_t *order; /* of epoch `epoch` */
    long epoch;
    long saved; /* step of the newest checkpoint, -1: none */
    int want_save, want_best;
    struct kept last, best;
    double started; /* clock_now() at the beginning of this attempt, less earlier ones */
    double told;    /* progress, when last; 0: not yet */
};

/* Rank 0 alone writes files and speaks with the daemon. */
static inline int loop_leads(const struct loop *l)
{
    return l->comm->rank == 0;
}

/* How long another host may be silent while files are read and written, in seconds. */
#define LOOP_PATIENCE 600.0

/* loop_load.c: everything before the first step (or after it, on resume). */
int loop_load(struct loop *l, struct err *e);
void loop_unload(struct loop *l); /* total */
/* The stage's model: to train on from its source, to copy a checkpoint's weights from, or
 * to measure. */
enum loop_use { LOOP_TRAIN, LOOP_RESUME, LOOP_TEST };
int loop_open_model(struct loop *l, const char *dir, enum loop_use use, struct model **out,
                    struct err *e);
int loop_encode(struct loop *l, enum split split, struct sequences *out, struct err *e);

/* loop_end.c: final/, its measurements, stage.json. */
int loop_final(struct loop *l, struct err *e);
int loop_test(struct loop *l, struct err *e);

/* loop_gpu.c. watch: what may go wrong is memory. check: is it still to be trusted? blame:
 * why r came about, collective. metrics: of all ranks' GPUs, collective. */
int loop_gpu_watch(struct loop *l, struct err *e);
void loop_gpu_say(struct loop *l);
int loop_gpu_check(const struct loop *l, struct err *e);
int loop_gpu_blame(const struct loop *l, int r, struct err *e);
int loop_gpu_metrics(const struct loop *l, struct metric_list *m, struct err *e);

/* loop.c */
int loop_measure(struct loop *l, struct model *m, const struct sequences *s,
                 enum split split, float **logits, struct metric_list *out, struct err *e);
int loop_save_model(struct loop *l, const char *name, struct err *e);
int loop_save(struct loop *l, struct err *e);
int loop_record(struct loop *l, const char *split, const struct metric_list *m,
                struct err *e);
double loop_elapsed(const struct loop *l);

#endif
