/* Communication between the ranks of one stage: a table that each transport fills.
 *
 * `self` (one rank): every collective is the identity. `cluster` (cluster.h): ranks that
 * MPI started, through shared memory inside a host and MPI between hosts. `device`
 * (device.h) is a cluster whose gradients are summed from device to device. All functions
 * but grad_start() are collective (every rank calls them in the same order) and return 0 or
 * a negative ERR_ code.
 *
 * Invariants: comm_agree() comes before any collective that a local failure would skip, so
 * no rank is left waiting. Sums go in order of rank: the same world gives the same bits. A
 * rank that dies or stops is noticed by `watch`, not by the collectives that wait for it.
 */
#ifndef WORKER_DIST_COMM_H
#define WORKER_DIST_COMM_H

#include <stddef.h>

#include "base/err.h"

/* What a rank is doing, for the message when it is lost. */
enum comm_phase {
    COMM_LOAD,
    COMM_FORWARD,
    COMM_BACKWARD,
    COMM_REDUCE,
    COMM_UPDATE,
    COMM_EVAL,
    COMM_SAVE,
    COMM_PHASES
};
extern const char *const comm_phase_names[COMM_PHASES];
static inline const char *comm_phase_name(int phase)
{
    return phase >= 0 && phase < COMM_PHASES ? comm_phase_names[phase] : "working";
}

/* Gradients of n elements in one row of memory, summed over the ranks in buckets while
 * backward goes on. Where the optimizer is sharded (ZeRO-1: Rajbhandari et al. 2020, stage
 * 1) a rank gets the sums of the part it owns, updates that part of the parameters, and
 * param_gather() makes all of them whole everywhere; else every rank owns everything. */
struct comm_grad {
    size_t n;            /* elements */
    const size_t *bound; /* (buckets + 1): bucket b is [bound[b], bound[b + 1]) */
    int buckets, shard;
    const unsigned char *gap; /* (buckets) what holds no gradients; NULL: all do */
    /* Set by grad_open(), but grad and param where these lie on devices: those are given.
     */
    float *grad;       /* (n), zeroed */
    float *param;      /* (n) shared by the ranks of a host; NULL: parameters stay put */
    size_t *from, *to; /* (buckets): what this rank owns */
    void *state;       /* the transport's */
};

/* Elements of a bucket of gradients between devices where nothing else is said, and of
 * embedding rows that travel together (8 MiB). */
enum { COMM_DEVICE_BUCKET = 2 << 20 };

struct comm {
    const char *name;
    int rank, world;
    const char *host; /* of this rank */
    void *state;
    int (*all_reduce)(const struct comm *c, float *x, size_t n, struct err *e); /* sum */
    /* out: world * bytes, in order of rank. */
    int (*all_gather)(const struct comm *c, const void *in, size_t bytes, void *out,
                      struct err *e);
    int (*broadcast)(const struct comm *c, void *p, size_t bytes, int root, struct err *e);
    int (*barrier)(const struct comm *c, struct err *e);

    int *verdict; /* the failure that comm_agree() last found; NULL: not kept */

    /* NULL where there is one rank. */
    int (*grad_open)(const struct comm *c, struct comm_grad *g, struct err *e);
    void (*grad_close)(const struct comm *c, struct comm_grad *g); /* total */
    /* This rank's gradients of a bucket are complete. Never waits; in any order. */
    void (*grad_start)(const struct comm *c, struct comm_grad *g, int bucket);
    /* All buckets have been started here: wait until the owned parts hold the sums and no
     * rank reads gradients any more. */
    int (*grad_wait)(const struct comm *c, struct comm_grad *g, struct err *e);
    /* The owned parts of g->param (or `param`, where that is NULL) are new. */
    int (*param_gather)(const struct comm *c, struct comm_grad *g, struct err *e);

    /* NULL, or grad and param of comm_grad are memory of the devices, and so is x here: its
     * sum. row_copy: packed (rows, cols) = table[id[i]], or back, all on the device; not
     * collective. */
    void *device;
    int (*device_sum)(const struct comm *c, float *x, size_t n, struct err *e);
    int (*row_copy)(const struct comm *c, float *packed, float *table, const int *id,
                    long rows, long cols, int back, struct err *e);
    /* A failure was agreed on: sums that are under way may have nobody to complete them. */
    void (*give_up)(const struct comm *c);

    void (*note)(const struct comm *c, enum comm_phase phase, long step);
    /* Longest time that another host may be silent within a collective, in seconds. */
    void (*patience)(const struct comm *c, double seconds);
};

const struct comm *comm_self(void);

/* r: what this rank's part of the work returned, with *e filled where it failed. Returns
 * the same on every rank: 0, or the most severe code of all with the message of the lowest
 * rank that has it ("rank 1 on node-b: ..." when that is another). */
int comm_agree(const struct comm *c, int r, struct err *e);

/* *flags of all ranks, or-ed. */
int comm_any(const struct comm *c, unsigned *flags, struct err *e);

/* Do all ranks hold the same n bytes? ERR_CONFIG names the rank that differs and `what`. */
int comm_same(const struct comm *c, const char *what, const void *p, size_t n,
              struct err *e);

static inline void comm_note(const struct comm *c, enum comm_phase phase, long step)
{
    if (c->note)
        c->note(c, phase, step);
}

static inline void comm_patience(const struct comm *c, double seconds)
{
    if (c->patience)
        c->patience(c, seconds);
}

#endif
