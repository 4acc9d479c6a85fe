/* A golden file: inputs and results recorded from PyTorch (interface.md section 4).
 *
 * Fails with ERR_CORRUPT, naming the tensor and what is wrong with it. */
#ifndef WORKER_VERB_GOLDEN_H
#define WORKER_VERB_GOLDEN_H

#include "base/arena.h"
#include "worker/ckpt/safetensors.h"
#include "worker/tape/tape.h"

struct golden {
    struct safetensors file;
    struct arena arena;
    struct packed in; /* examples are numbered by row */
    long padded;      /* T of input_ids [B,T] */
    int *label;       /* (B), or (tokens) -100 where there is none; NULL */
    int token_labels; /* labels are [B,T] */
};

int golden_open(struct golden *g, const char *path, struct err *e);
void golden_close(struct golden *g); /* total */

/* A tensor of `n` f32 numbers, which the file must have (safetensors_find). Another size
 * or type: NULL, with the reason in *e. */
const float *golden_get(struct golden *g, const char *name, long n, struct err *e);

#endif
