/* What a daemon keeps, and when it is enough (struct limits, daemon.h).
 *
 * Each minute: jobs that ended are forgotten, with their events, when there are more of
 * them than `keep_jobs` or they ended more than `keep_seconds` ago: the oldest first. What
 * has not ended is never forgotten, and run folders are their owners': nothing here touches
 * them. Submits are refused (ERR_DENIED) to an owner who has `open_jobs` of them that have
 * not ended, and to all while the state folder holds more than `state_bytes`.
 *
 * Before a limit bites, at nine tenths of it (or one below it), retain_warnings() says so:
 * in Status, in the answer to a submit and in the log. A private daemon has no limits. */
#ifndef DAEMON_RETAIN_H
#define DAEMON_RETAIN_H

#include "base/arena.h"
#include "daemon/daemon.h"

enum { RETAIN_WARNINGS_MAX = 3 };

void retain_defaults(struct limits *l);
void retain_tick(struct daemon *d);
double retain_next(const struct daemon *d);
/* May this owner have another job that has not ended, besides `arriving` more? */
int retain_check(const struct daemon *d, const char *owner, size_t arriving, struct err *e);
/* Texts in the arena; owner NULL: nobody's own. Returns how many. */
size_t retain_warnings(const struct daemon *d, const char *owner, struct arena *a,
                       char *out[RETAIN_WARNINGS_MAX]);

#endif
