/* The tape: operators run eagerly and record themselves; backward walks the record.
 *
 * A tensor is a matrix (rows, cols) of f32 in the step's memory, or a parameter. Nodes and
 * activations live in the tape's memory until tape_reset(). Gradients of activations are
 * made when first needed and given back once their producer has run backward.
 *
 * Modes: TAPE_TRAIN records; TAPE_INFER does not (activations are given back by
 * tape_release() marks as the forward goes on); TAPE_PLAN and TAPE_PLAN_INFER are these two
 * without running an operator or touching memory, they count bytes: tape_peak() is the dry
 * run of `hone check`.
 *
 * Invariant: an operator's failure is kept in the tape (tape_result) and turns the calls
 * after it into no-ops, so a forward is a straight line with one check at its end. */
#ifndef WORKER_TAPE_TAPE_H
#define WORKER_TAPE_TAPE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "kernels/backend.h"

enum tape_mode { TAPE_TRAIN, TAPE_INFER, TAPE_PLAN, TAPE_PLAN_INFER };

/* A trainable (or frozen) tensor of a model. `grad` exists when trainable. */
struct param {
    const char *name; /* slot name, e.g. "layer.3.attn.qkv.w" */
    long rows, cols;  /* vectors: rows = 1 */
    float *data, *grad;
    int trainable;
    int decay;              /* weight decay applies (not to biases and norms) */
    int new_head;           /* made by us, not in the checkpoint */
    int pending;            /* nodes of the tape that will still add to the gradient */
    unsigned char *touched; /* embeddings: rows met since gradients were zeroed; host */
    unsigned char *live;    /* embeddings: rows that ever had a gradient; host */
    enum op_precision precision; /* of products with it */
    struct op_pack pack[2];      /* of W for x W^T, and for dy W */
};

struct tensor {
    long rows, cols;
    float *data;
    float *grad; /* NULL until backward reaches it */
    struct tape_node *producer;
    int needs_grad;
    struct tape_block *data_block, *grad_block; /* the step memory behind data and grad */
};

/* A micro-batch: B sequences of T tokens in all, concatenated. */
struct packed {
    long B, T, max_len;
    int *ids;           /* (T) */
    int *types;         /* (T) token types, all 0 where there are none */
    uint32_t *position; /* (T) 0.. within the sequence */
    uint32_t *example;  /* (T) dropout key of the sequence */
    int *cu_seqlens;    /* (B + 1) */
    int *answer;        /* (B) tokens before the answer, 1 at least; NULL: 1 everywhere */
};

/* Of the vocabulary, in a fragment of logits (rule/logprob.c). */
enum { TAPE_FRAGMENT_COLUMNS = 2048 };

struct tape;
struct tape *tape_new(const struct backend *be, struct err *e);
void tape_free(struct tape *t);
void tape_reset(struct tape *t, enum tape_mode mode);
int tape_result(const struct tape *t, struct err *e);

/* What a plan of this tape would have counted: its memory is then taken at the next reset,
 * in one piece. */
void tape_reserve(struct tape *t, size_t bytes);

/* Until the next reset, in mode PLAN or PLAN_INFER: of each product that is met the back
 * end chooses now how to compute it (struct backend_choices, prepare). Parameters have
 * their memory. */
void tape_prepare(struct tape *t);

/* Dropout of this step: key as in op.h; every call site takes the next site number, in
 * program order, so training and recomputation agree. Off until this is called after
 * tape_reset(), and in mode INFER. A plan calls it too: dropout needs memory. */
void tape_set_dropout(struct tape *t, uint64_t key);

/* Set d loss / d tensor (host pointer, rows * cols; one seed a tensor), then run backward:
 * fills params' grad (+=). Backward gives memory back as it goes, so it consumes the tape:
 * only tape_peak() and tape_reset() may follow. In mode PLAN `grad` is not read. */
int tape_seed(struct tape *t, struct tensor *x, const float *grad);
int tape_backward(struct tape *t, struct err *e);

/* Until the next reset: call `done` within tape_backward() for each parameter whose
 * gradient this micro-batch will not change any more. */
void tape_on_param(struct tape *t, void (*done)(void *arg, struct param *p), void *arg);

/* Bytes of step memory needed since the last reset (the highest address in use). */
size_t tape_peak(const struct tape *t);

#endif
