/* Streams of a run folder's files: the log, and metrics.jsonl.
 *
 * A stream is read as the client reads: no more than a bounded amount waits for it. With
 * `follow` it goes on until the job ends, looking for more a few times a second. */
#ifndef DAEMON_TAIL_H
#define DAEMON_TAIL_H

#include "daemon/daemon.h"
#include "daemon/rpc.h"

/* Both take the call. offset below 0: from the end. stage NULL: all. */
void tail_log(struct rpc_call *call, const struct job *j, long long offset, int follow);
void tail_metrics(struct rpc_call *call, const struct job *j, const char *stage);

void tail_tick(struct daemon *d);
double tail_next(const struct daemon *d); /* INFINITY: nobody follows */
void tail_drained(struct daemon *d, uint64_t conn);
void tail_closed(struct daemon *d, uint64_t conn);
void tail_free_all(struct daemon *d);

#endif
