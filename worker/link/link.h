/* The uplink: what a worker says to a daemon, and the control words that come back.
 *
 * Without an address link_open() gives NULL and every call on NULL is a no-op, so that the
 * trainer has one code path. Sending never blocks training: messages are queued (bounded;
 * the oldest metric points are replaced by a gap marker) and written by a thread. A lost
 * daemon is not a failure: the link reconnects and resends what was not acknowledged;
 * `orphan_stop` asks for a stop as soon as nobody listens at the (private) daemon's address
 * any more, or when it does not answer for 2 s. */
#ifndef WORKER_LINK_LINK_H
#define WORKER_LINK_LINK_H

#include "base/err.h"

struct link;

enum link_control { CONTROL_NONE, CONTROL_STOP, CONTROL_CHECKPOINT, CONTROL_ABORT };

struct link_hello {
    const char *address; /* "unix:PATH", or NULL: no daemon; from HONE_UPLINK */
    const char *token;   /* from HONE_UPLINK_TOKEN */
    const char *job, *stage;
    int attempt, rank, world;
    int orphan_stop;
};

/* What the daemon left in the environment: HONE_UPLINK, HONE_UPLINK_TOKEN, HONE_UPLINK_JOB,
 * HONE_UPLINK_ATTEMPT, HONE_UPLINK_ORPHAN=stop. Sets those fields of *h and leaves stage,
 * rank and world to the caller. */
int link_hello_env(struct link_hello *h, struct err *e);

int link_open(struct link **out, const struct link_hello *h, struct err *e);
void link_close(struct link *l); /* flushes for at most 2 s */

/* A metric line: the JSON object that also went to metrics.jsonl. */
void link_metric(struct link *l, const char *json);
/* Progress of a phase ("load", "table", "train", "eval", "save"), for bars and heartbeats:
 * step of total, and a short line of figures as JSON ({"loss", "tokens_per_second", ...}).
 */
void link_progress(struct link *l, const char *phase, long step, long total,
                   const char *json);
void link_event(struct link *l, const char *level, const char *text);
/* The stage ended: exit status as in interface.md, message of the failure or "". */
void link_done(struct link *l, int status, const char *message);

/* Leave the process's exit status in the file HONE_UPLINK_STATUS, if that is set: for a
 * daemon that was not there to see it. Returns the status. */
int link_leave_status(int status);

enum link_control link_control(struct link *l); /* newest word, cleared by the call */

#endif
