/* Inside the tape: what the rules (rule/<op>.c) share, and the rules the model calls.
 *
 * A rule checks shapes, runs the operator and, when a gradient can flow, records a node
 * with its backward. Step memory comes in reference-counted blocks, so that an operator
 * that works in place, or hands one gradient to two inputs, shares instead of copying.
 *
 * Invariant: a rule returns NULL only when the tape has failed, and does nothing when it
 * has; a block shared by several holders is never written (tape_grad_add copies first).
 * After a node's backward its outputs' data and gradients and its kept blocks are given
 * back. */
#ifndef WORKER_TAPE_RULE_H
#define WORKER_TAPE_RULE_H

#include "base/arena.h"
#include "worker/tape/tape.h"

struct tape_block {
    size_t offset, bytes;
    float *p;
    int refs;
};

enum { NODE_OUT_MAX = 2, NODE_KEEP_MAX = 4, NODE_PARAM_MAX = 3, TAPE_STREAMS_MAX = 2 };

struct tape_node {
    /* Runs when at least one output has a gradient. */
    int (*backward)(struct tape *t, struct tape_node *node);
    struct tape_node *before;
    struct tensor *out[NODE_OUT_MAX];
    struct tape_block *keep[NODE_KEEP_MAX]; /* forward's by-products */
    struct param *param[NODE_PARAM_MAX];    /* whose gradients it adds to */
};

/* The micro-batch in the back end's memory. */
struct tape_batch {
    long B, T;
    const int *cu_seqlens;                      /* (B + 1) */
    const uint32_t *position, *example;         /* (T) */
    long rows;                                  /* pooled */
    const uint32_t *row_position, *row_example; /* (rows) the pooled token's, for dropout */
    const int *pool_seqlens; /* (rows + 1) bounds whose last rows are the pooled tokens */
};

/* The step memory of step.c: best fit with coalescing in few large chunks. */
struct step_span {
    size_t offset, bytes;
};
struct step_chunk {
    char *memory; /* NULL in a plan */
    size_t base, bytes, top;
};
enum { STEP_CHUNKS_MAX = 24 };
struct step_memory {
    const struct backend *be;
    struct step_chunk chunk[STEP_CHUNKS_MAX];
    int n_chunks;
    struct step_span *free; /* sorted by offset */
    size_t n_free, cap_free;
    int planning;
    size_t plan_top, planned; /* bytes of the running plan; of the largest one so far */
};
int step_reset(struct step_memory *m, int planning);
int step_take(struct step_memory *m, size_t bytes, size_t *offset, float **p);
int step_give(struct step_memory *m, size_t offset, size_t bytes);
size_t step_peak(const struct step_memory *m);
void step_fini(struct step_memory *m);

struct tape {
    const struct backend *be;
    enum tape_mode mode;
    struct err err;
    struct arena arena; /* nodes, tensors, blocks: host */
    struct step_memory memory;
    struct tape_node *last;
    int quiet; /* within a block whose backward will run it again */
    int prepares;
    struct tape_batch batch;
    int dropout;
    uint64_t key;
    uint32_t site;
    void (*param_done)(void *arg, struct param *p); /* or NULL */
    void *param_arg;
    int *count; /* scratch of the counting sort; grows */
    size_t cap_count;
};

/* 1 when bytes are counted and nothing else. */
static inline int tape_plans(const struct tape *t)
{
    return t->mode == TAPE_PLAN || t->mode == TAPE_PLAN_INFER;
}

/* 1 when operators run: no failure yet and not planning. */
static inline int tape_runs(const struct tape *t)
{
    return !t->err.code && !tape_plans(t);
}

/* 1 when there will be no backward. */
static inline int tape_infers(const struct tape *t)
{
    return t->mode == TAPE_INFER || t->mode == TAPE_PLAN_INFER;
}

/* 1 when operators are recorded. */
static inline int tape_records(const struct tape *t)
{
    return !tape_infers(t) && !t->quiet;
}

/* Run one operator of the back end; a failure stays in the tape. */
#define TAPE_RUN(t, op, args)                                                              \
    (tape_runs(t) ? tape_check(t, (t)->be->op(args), #op) : (t)->err.code)
int tape_check(struct tape *t, int rc, const char *op);
/* A matrix product: TAPE_RUN, or what tape_prepare() says. */
int tape_matmul(struct tape *t, const struct matmul_args *a);
int tape_fail(struct tape *t, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Memory. */
struct tape_block *tape_take(struct tape *t, size_t bytes); /* refs 1; NULL: failed */
void tape_give(struct tape *t, struct tape_block *b);       /* NULL is allowed */
const void *tape_copy(struct tape *t, const void *host, size_t bytes);

/* Tensors. tape_alias: another tensor over x's data. */
struct tensor *tape_tensor(struct tape *t, long rows, long cols, int needs_grad);
struct tensor *tape_alias(struct tape *t, struct tensor *x, int needs_grad);

/* A node of `size` bytes (struct tape_node first) that produces y (and z), or NULL when
 * nothing needs to be recorded or the tape failed. */
void *tape_record(struct tape *t, size_t size,
                  int (*backward)(struct tape *, struct tape_node *), struct tensor *y,
                  struct tensor *z);

/* Backward of the recorded nodes, from the last one to the one behind `end`. */
void tape_walk(struct tape *t, const struct tape_node *end);

/* The node's backward adds to p's gradient (where p trains). */
void tape_adds_to(struct tape_node *node, struct param *p);

/* Gradients. tape_grad_new: a fresh, unset gradient block for an operator to fill, to be
 * handed over with tape_grad_put(), which adds when x has one already. tape_grad_own: x's
 * own gradient, writable in place. tape_grad_target: for operators that can accumulate. */
struct tape_block *tape_grad_new(struct tape *t, const struct tensor *x);
int tape_grad_put(struct tape *t, struct tensor *x, struct tape_block *b);
float *tape_grad_own(struct tape *t, struct tensor *x);
float *tape_grad_target(struct tape *t, struct tensor *x, int *accumulate);
struct tape_block *tape_grad_pass(struct tape *t, struct tensor *x); /* take it from x */

static inline int param_trains(const struct param *p)
{
    return p && p->trainable && p->grad;
}

/* A product has added to every row of w's gradient, where w is also a table (tied). */
void tape_touch_rows(struct tape *t, struct param *w);

/* Dropout of the next site; rows_are_sequences: keys per sequence, not per token. */
struct op_dropout tape_next_dropout(struct tape *t, double p, int rows_are_sequences);

/* ---- what the model calls -------------------------------------------------------------
 */

/* Puts the micro-batch into the back end's memory; pooled: n rows (0 .. T-1), ascending,
 * that POOL_LAST picks: one that stands for each sequence, or those that a loss reads. */
int tape_set_batch(struct tape *t, const struct packed *in, const int *pooled, long n);

/* Give x's data back where nothing is recorded. NULL is allowed. */
void tape_release(struct tape *t, struct tensor *x);

/* y (T,D) = sum of rows of n tables; index[i] are host arrays (T), checked by the caller.
 */
struct tensor *tape_embedding(struct tape *t, int n, struct param *const *table,
                              const int *const *index);

/* y = act(x w^T + b). */
struct tensor *tape_linear(struct tape *t, struct tensor *x, struct param *w,
                           struct param *b, enum op_act act);

/* s = dropout(x) + residual; y = norm(s). x is consumed (s lies in its memory); residual
 * may be NULL (then s is x, unchanged). *sum, when not NULL, receives s. */
struct norm_spec {
    enum op_norm kind;
    float eps;
    struct param *w, *b;
};
struct tensor *tape_norm(struct tape *t, struct tensor *x, struct tensor *residual,
                         const struct norm_spec *n, double dropout, struct tensor **sum);

/* RMS norm of each of the H heads of q with w[0] and of the K heads of k with w[1], on the
 * first (H + K) d columns of x; x is consumed. */
struct head_norm_spec {
    int H, K, d;
    float eps;
    struct param *w[2];
};
struct tensor *tape_head_norm(struct tape *t, struct tensor *x,
                              const struct head_norm_spec *s);

/* Turns the first `heads` heads of d columns of x by position; x is consumed. freq (rot /
 * 2) is on the device. */
struct tensor *tape_rotary(struct tape *t, struct tensor *x, int heads, int d, int rot,
                           int interleaved, const float *freq);

/* A block of the network with recomputation, in mode TRAIN or PLAN: run() puts its outputs
 * in place of its n inputs x, and keeps to the order of its operators when it is run again;
 * `arg` stays until backward. Its parameters are used by nothing else. */
void tape_recompute(struct tape *t,
                    void (*run)(struct tape *t, void *arg, struct tensor **x), void *arg,
                    struct tensor **x, int n);

/* o (T, H d) from qkv (T, (H + 2K) d). */
struct attention_spec {
    int H, K, d, causal, window;
    double dropout;
    enum op_precision precision;
};
struct tensor *tape_attention(struct tape *t, struct tensor *qkv,
                              const struct attention_spec *a);

/* y (T,F) = act(gate) * up of gate_up (T, 2F). */
struct tensor *tape_glu(struct tape *t, struct tensor *gate_up, enum op_act act);

/* (B,D) from (T,D). POOL_LAST means the pooled rows given to tape_set_batch(). */
struct tensor *tape_pool(struct tape *t, struct tensor *x, enum op_pool kind);
/* The same by other bounds (n + 1), in the back end's memory until tape_reset(). */
struct tensor *tape_pool_by(struct tape *t, struct tensor *x, enum op_pool kind,
                            const int *bounds, long n);

/* y (N, LOGPROB_OUT) = what op.h says of logits (x w^T + b) / temperature and `target` (N),
 * host memory, checked by the caller. The logits are made in fragments of at most
 * LOGPROB_FRAGMENT bytes; backward makes them again. */
enum { LOGPROB_FRAGMENT = 32 << 20 };
struct tensor *tape_logprob(struct tape *t, struct tensor *x, struct param *w,
                            struct param *b, const int *target, double temperature);

/* dropout(x); x itself when off. in_place: x is consumed. */
struct tensor *tape_dropout(struct tape *t, struct tensor *x, double p, int in_place);

#endif
