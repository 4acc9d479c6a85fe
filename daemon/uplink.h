/* The daemon's end of the uplink: what workers report, and words to them. */
#ifndef DAEMON_UPLINK_H
#define DAEMON_UPLINK_H

#include <stdint.h>

#include "daemon/conn.h"
#include "daemon/daemon.h"
#include "hone.pb-c.h"
#include "wire.pb-c.h"
#include "worker.pb-c.h"

/* A worker's Hello: 0 and the connection knows its stage and rank, or ERR_DENIED. */
int uplink_hello(struct daemon *d, struct conn *c, const Hone__V1__Hello *h,
                 uint64_t *received, struct err *e);
void uplink_welcomed(struct daemon *d, struct conn *c); /* words that it may have missed */
int uplink_frame(struct daemon *d, struct conn *c, const uint8_t *p, size_t n,
                 struct err *e);
/* The frames of one reading are through: keep what they brought, then acknowledge it. */
int uplink_settle(struct daemon *d, struct conn *c, struct err *e);
void uplink_closed(struct daemon *d, struct conn *c);

/* Pass a word to the stage's worker: over its link, or as a signal where there is none. */
void uplink_word(struct daemon *d, struct job_stage *s, Hone__V1__Word word);

/* The stage's process has gone: what its link could not tell is taken from its files. */
void uplink_lost(struct daemon *d, struct job *j, struct job_stage *s);
/* What an earlier daemon had taken in of the running attempt, from the journal. */
void uplink_recall(struct daemon *d, struct job *j, struct job_stage *s);

#endif
