/* Tables: what a frozen, finished model says about every training row the run will visit,
 * computed once, stored, looked up (PPO: reward of all candidates, log p of the reference).
 *
 * For a stage's prepare(). The result is kept in RUN/<stage>/tables/<name>.safetensors with
 * the hash of the model's files and of the sequences, and read back on resume when they
 * agree. Results do not depend on batch neighbours (row invariance), so a table agrees bit
 * for bit with what a forward in training without dropout gives. */
#ifndef WORKER_TRAIN_TABLE_H
#define WORKER_TRAIN_TABLE_H

#include "worker/dist/comm.h"
#include "worker/link/link.h"
#include "worker/stage/stage.h"
#include "worker/tok/tok.h"

/* What the run lends to its stages. */
struct run_context {
    const char *run_dir; /* RUN: a needed stage's output is RUN/<need>/final */
    const struct backend *backend;
    const struct tok *tok;
    const struct encode_spec *encode;
    const struct dataset *data;   /* training rows */
    const unsigned char *visited; /* (n_rows): training rows the run will see */
    volatile int *stop; /* non-zero: stop with ERR_STOPPED; set by a control word too */
    struct link *link;
    enum op_precision precision; /* of the stage, so of its tables */
    const struct comm *comm;
};

struct table_request {
    const char *name;    /* "reward", "reference": file name and messages */
    const char *need;    /* stage of the job whose output is run: "sft", "rm" */
    enum head_kind head; /* HEAD_CLASSIFY or HEAD_REWARD */
    int reward_input;    /* encode_reward(): K sequences a row; else one */
};

/* *out: (n_rows, O) with O = K in both cases (K logits, or K scores); rows that the run
 * does not visit are NAN. Free with mem_free(). */
/* Collective: the ranks share the work. */
int table_compute(struct stage_run *run, const struct table_request *q, float **out,
                  struct err *e);

#endif
