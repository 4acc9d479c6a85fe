/* What all stages of a job share, loaded and checked once before step 0: the splits, the
 * tokenizer, the back end, the preference order.
 *
 * Fails as its parts do; every message names file and row. Warnings go to the log. */
#ifndef WORKER_TRAIN_JOB_H
#define WORKER_TRAIN_JOB_H

#include <stdint.h>

#include "base/err.h"
#include "kernels/backend.h"
#include "worker/data/dataset.h"
#include "worker/data/encode.h"
#include "worker/dist/comm.h"
#include "worker/spec/spec.h"
#include "worker/tok/tok.h"

struct job {
    const struct spec *spec;
    const struct backend *backend;
    const struct comm *comm; /* the run's, or `sums` */
    struct comm *sums;       /* over the ranks' devices; NULL: none */
    long bucket_mb;          /* of gradients that go between them; 0: none do */
    struct tok *tok;
    struct encode_spec encode;
    struct dataset data[SPLITS];
    int K;
    int *order;         /* (K, K), worker/data/prefer.h */
    char data_hash[33]; /* of the training rows: text and label */
};

/* threads: of this rank; 0: all it may use. */
int job_open(struct job *j, const struct spec *spec, const struct comm *comm, int threads,
             struct err *e);
/* From device to device, where that can be had. Collective. */
int job_connect(struct job *j, struct err *e);
void job_close(struct job *j); /* total; collective where the ranks are connected */

/* How the job's rows become tokens, by one thread. Fails where its model cannot do what the
 * task asks. */
int job_encode_spec(const struct spec *s, const struct tok *tok, struct encode_spec *out,
                    struct err *e);

#endif
