/* Memory that the ranks of one host share: barrier, small collectives, segments, notes.
 *
 *     head | one page a rank (who it is, what it does) | one stage a rank (STAGE_BYTES)
 *
 * It is a memfd that the first rank makes and the others open through /proc: no name that a
 * killed process could leave behind, no /dev/shm that could be too small; its pages appear
 * when touched. A barrier spins briefly where every rank has a core of its own, and sleeps
 * in the kernel else.
 *
 * Invariant: a stage is written by its rank alone and read by others only between two
 * barriers. Waiting has no limit here: a rank that is lost is the business of watch.h. */
#ifndef WORKER_DIST_WINDOW_H
#define WORKER_DIST_WINDOW_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum { WINDOW_RANKS_MAX = 1024, WINDOW_STAGE_BYTES = 1 << 20, WINDOW_PATH_MAX = 64 };

/* What the others may know of a rank. */
struct window_rank {
    _Atomic int pid, rank; /* rank: of the whole world */
    _Atomic uint64_t born; /* start time of the process, as /proc says it */
    _Atomic uint32_t beat; /* counts on while the process lives */
    _Atomic int left;      /* it has gone in good order */
    _Atomic int phase;     /* enum comm_phase */
    _Atomic int waits;     /* in a collective, for others */
    _Atomic long step;
    _Atomic int device, unconnected; /* its index; it has failed to reach the others */
    _Atomic long joined;             /* sums from device to device that it takes part in */
};

struct window_head {
    _Atomic uint32_t arrived, generation; /* of the barrier */
    _Atomic int reported;                 /* a lost rank has been spoken of */
    _Atomic int patience;                 /* seconds; 0: none */
};
struct window {
    int local, ranks; /* this rank's number on the host, and how many there are */
    int spins;
    struct window_head *head;
    size_t bytes;
    int fd; /* of the maker, else -1 */
};

/* The maker's half, then the others': path from the maker. Fails with ERR_IO where the
 * system gives no such memory or does not let another process open it. */
int window_create(struct window *w, int ranks, char path[WINDOW_PATH_MAX], struct err *e);
int window_attach(struct window *w, const char *path, int local, int ranks, struct err *e);
void window_close(struct window *w); /* total */

struct window_rank *window_rank(const struct window *w, int local);
void *window_stage(const struct window *w, int local); /* WINDOW_STAGE_BYTES */

/* Collective among the ranks of the window. */
void window_barrier(struct window *w);
void window_all_gather(struct window *w, const void *in, size_t bytes, void *out);
void window_broadcast(struct window *w, void *p, size_t bytes, int root);
void window_sum(struct window *w, float *x, size_t n); /* in order of rank */

/* Wait until *word is no longer `old`; window_wake() after a change. */
void window_wait(const struct window *w, _Atomic uint32_t *word, uint32_t old);
void window_wake(_Atomic uint32_t *word);

/* More memory: `bytes` of zeros that all ranks of the window map. Collective. */
struct window_segment {
    void *p;
    size_t bytes;
};
int window_segment_open(struct window *w, struct window_segment *s, size_t bytes,
                        struct err *e);
void window_segment_close(struct window_segment *s); /* total */

#endif
