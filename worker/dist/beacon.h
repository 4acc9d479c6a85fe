/* Signs of life between hosts: MPI waits for a host that is gone for ever, whatever it is
 * doing, so the first rank of each host sends a datagram to all others twice a second, from
 * a thread of its own.
 *
 * A host that was heard before and then not for BEACON_SILENCE seconds is lost. One that
 * was never heard (a firewall that lets no UDP through) is not judged here: the
 * communicator's patience is left. Datagrams carry a number that rank 0 drew, so that
 * nobody else's count.
 *
 * Invariant: `lost` is called at most once, from the beacon's thread, and is expected to
 * end the process. */
#ifndef WORKER_DIST_BEACON_H
#define WORKER_DIST_BEACON_H

#include <stdatomic.h>
#include <stdint.h>

#include "worker/dist/watch.h"

enum { BEACON_SILENCE = 10, BEACON_ADDRESSES = 4 };

/* How a host can be reached, as it travels between the ranks. */
struct beacon_host {
    char name[64];
    uint32_t address[BEACON_ADDRESSES]; /* IPv4, network order; 0: none */
    uint16_t port;                      /* network order */
    uint64_t number;                    /* host 0's counts */
    int first_rank, ranks;              /* of its ranks, the first in the world */
};

struct beacon_rank {
    int32_t rank, pid, phase, device;
    int64_t step, joined; /* as in struct window_rank */
};

/* What the ranks of a host are doing, as every beat tells it. */
struct beacon_state {
    int32_t working;         /* ranks that do not wait for others */
    struct beacon_rank one;  /* of them, or else the first */
    struct beacon_rank last; /* has joined the fewest sums from device to device */
    int64_t most;            /* sums that one of them has joined */
};

struct beacon_calls {
    void (*where)(void *arg, char *buf, size_t n); /* a phrase: "at step 12, forward" */
    void (*look)(void *arg, struct beacon_state *out);
    void *arg; /* of those two */
    watch_lost *lost;
    watch_lag *lag; /* called on host 0; NULL: not at all */
    void *told;     /* argument of these */
};

struct beacon;
/* Open the socket and fill *own but for its ranks. ERR_IO: no beacon, go on without. */
int beacon_open(struct beacon **out, struct beacon_host *own, struct err *e);
/* All hosts are known: begin. `host` (hosts) and *calls are copied; own: its index of this
 * one. reported: shared by this host's ranks, or NULL. */
int beacon_start(struct beacon *b, const struct beacon_host *host, int hosts, int own,
                 const struct beacon_calls *calls, _Atomic int *reported, struct err *e);
void beacon_stop(struct beacon *b); /* total */

/* The rank of another host for which sum `number` (from 1) waits, as the newest beats tell
 * it, or with number 0 one that works while others wait. 0: there is none, or it is not
 * known. From any thread. */
int beacon_find(struct beacon *b, long number, struct beacon_rank *out, char *host,
                size_t n);
/* Is this host the first of those with a rank that has joined it: is it the one to speak?
 */
int beacon_speaks(struct beacon *b, long number);

#endif
