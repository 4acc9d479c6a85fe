/* Checkpoints of a stage in training: RUN/<stage>/checkpoint-<step>/.
 *
 *     config.json, model.safetensors, ...   the model, as a Hugging Face folder
 *     state/trainer.json                    counters, best so far, stage state, hashes
 *     state/optimizer.safetensors           AdamW moments (embeddings: rows in use alone)
 *     state/weights.safetensors             f32 weights, where the model's file is narrower
 *     manifest.json                         XXH3-128 of every file
 *
 * Invariant: training on from a loaded snapshot gives the same bits as training on without
 * having stopped, with the same number of ranks; any other number goes on from it as well.
 * Numbers in trainer.json are hexadecimal floats: exact. Fails with ERR_CORRUPT when a part
 * does not fit the model, ERR_CONFIG when it belongs to another job. */
#ifndef WORKER_TRAIN_SNAPSHOT_H
#define WORKER_TRAIN_SNAPSHOT_H

#include "base/arena.h"
#include "worker/stage/stage.h"
#include "worker/train/trainer.h"

/* Sums since the last line of metrics.jsonl. */
struct interval {
    long steps, skipped;
    double loss, grad_norm, tokens, seconds;
    struct metric_list sum;
};

/* Everything of a stage's run that is neither weights nor moments. */
struct progress {
    long step;                        /* steps taken */
    long evaluated;                   /* step of the newest evaluation, -1: none */
    long skipped, streak;             /* steps that were not finite, in all and in a row */
    long streak_step;                 /* where the newest such row began, */
    char streak_tensor[96];           /* ... and in what */
    double tokens, seconds;           /* of training steps */
    double elapsed;                   /* of the stage, all its attempts together */
    long metrics_bytes, events_bytes; /* lengths of the two files */
    long best_step;                   /* -1: none */
    double best_value, best_nll;
    double stop_value; /* early stop: best so far, and evaluations since */
    long stop_count;
    int finished; /* early stop has spoken */
    struct interval interval;
};

struct snapshot {
    const char *dir; /* RUN/<stage> */
    const char *job_hash, *data_hash;
    struct model *model;
    struct trainer *trainer;
    struct stage_run *run;
    struct progress *progress;
    const char *extra; /* for model_save() */
    const struct comm *comm;
};

/* Collective: rank 0 writes, the others hand it their parts of the optimizer's state. The
 * files lie in the folder `tmp` then (rank 0's; not yet synced); snapshot_commit() makes
 * the checkpoint of it, and may run on another thread. */
int snapshot_fill(const struct snapshot *s, char tmp[FILE_PATH_MAX], struct err *e);
int snapshot_commit(const char *dir, long step, const char *tmp, struct err *e);

/* Load checkpoint-<step> into a model and trainer fresh from their source. saved: the
 * checkpoint's own model, opened by the caller; names of metrics go to the arena. */
int snapshot_load(const struct snapshot *s, long step, struct model *saved, struct arena *a,
                  struct err *e);

#endif
