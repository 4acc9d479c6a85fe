/* The uplink: what a worker says to a daemon, and the control words that come back.
 *
 * Without an address link_open() gives NULL and every call on NULL is a no-op, so that the
 * trainer has one code path. Sending never blocks training: messages are queued (outbox.h)
 * and written by a thread. A lost daemon is not a failure: the link reconnects and resends
 * what was not acknowledged; `orphan_stop` asks for a stop as soon as nobody listens at the
 * (private) daemon's address any more, or when it does not answer for 2 s. A daemon
 * elsewhere that refuses us, or is not the one we trust, is said once and asked again each
 * minute: training does not depend on it. */
#ifndef WORKER_LINK_LINK_H
#define WORKER_LINK_LINK_H

#include "base/err.h"

struct link;

enum link_control { CONTROL_NONE, CONTROL_STOP, CONTROL_CHECKPOINT, CONTROL_ABORT };

struct report;

struct link_hello {
    const char *address; /* unix:PATH, HOST:PORT; NULL: no daemon; from HONE_UPLINK */
    const char *far;     /* HOST:PORT where `address` is not on this host; or NULL */
    const char *authority, *certificate, *key; /* files, for TCP; NULL: none */
    const char *token;                         /* from HONE_UPLINK_TOKEN */
    const char *job, *stage;
    int attempt, rank, world;
    int orphan_stop;
    const char *journal; /* file for what the daemon has not heard, outbox.h; or NULL */
    /* Instead of job, token and attempt, where no daemon started us: */
    const struct report *run; /* worker/link/report.h, must outlive the link */
    const char *credential;   /* token of a user; NULL: a certificate, or a Unix socket */
    char secret[128];         /* where link_hello_env() keeps it */
};

/* What the environment says of the daemon. From one that started us: HONE_UPLINK and
 * HONE_UPLINK_FAR, _AUTHORITY, _TOKEN, _JOB, _ATTEMPT, _ORPHAN=stop. From a user, without
 * HONE_UPLINK_JOB: HONE_UPLINK, HONE_TOKEN or HONE_TOKEN_FILE (which nobody else may read),
 * HONE_AUTHORITY, HONE_CERTIFICATE and HONE_KEY. Sets those fields of *h, which must stay
 * where it is, and leaves the others. ERR_CONFIG, ERR_USAGE: these cannot be right. */
int link_hello_env(struct link_hello *h, struct err *e);

int link_open(struct link **out, const struct link_hello *h, struct err *e);
/* Flushes for at most 2 s, 10 s to another host. Where no daemon started us the link stays
 * behind instead, until it has told everything or links_end() has waited 10 s. */
void link_close(struct link *l);
void links_end(void);

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

enum link_control link_control(struct link *l);
/* Was it said that this stage trains no further? */
int link_finish(struct link *l); /* newest word, cleared by the call */

#endif
