/* The numbered messages that the daemon has not yet acknowledged, in order of their
 * numbers: first those that were written on this connection, then those still to be.
 *
 * In memory (a daemon on this machine has the run's files as well) there are at most
 * OUTBOX_MEMORY: then the oldest metric makes room, and a gap marker says how many went.
 * With a journal every message is appended to a file as a frame,
 *
 *     "HONEUPL1" | instance (8 bytes) | frame ...
 *
 * so that a worker that ends before the daemon has heard everything leaves the rest to the
 * next start of its run: same instance, numbers that go on. What cannot be written is
 * dropped like what has no room. A tail that was cut is cut off. The file goes when all is
 * acknowledged and the outbox closes.
 *
 * Not thread-safe: the link's lock is held around every call. */
#ifndef WORKER_LINK_OUTBOX_H
#define WORKER_LINK_OUTBOX_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "worker.pb-c.h"

enum { OUTBOX_MEMORY = 1024, OUTBOX_JOURNAL = 1 << 20 };

struct outbox_item {
    uint64_t seq;
    int metric;     /* may be dropped when there is no room */
    struct str out; /* the frame; empty where the journal has it: */
    uint64_t at;
    size_t n;
};

struct outbox {
    struct outbox_item *item; /* [first, first + n) */
    size_t first, n, cap, max;
    size_t n_written; /* on this connection */
    uint64_t instance, next_seq;
    uint64_t dropped; /* metrics since the last gap marker */
    int fd;           /* journal, -1: none */
    uint64_t size;
    char *path;
};

/* path NULL: no journal. */
int outbox_open(struct outbox *b, const char *path, struct err *e);
void outbox_close(struct outbox *b); /* total */

void outbox_add(struct outbox *b, Hone__V1__Up *up, int metric); /* gives it its number */
void outbox_acknowledge(struct outbox *b, uint64_t seq);
void outbox_rewind(struct outbox *b); /* a new connection: all are to be written again */
/* Append the next frame to be written: 1; 0: there is none; or an error. */
int outbox_next(struct outbox *b, struct str *out, struct err *e);

#endif
