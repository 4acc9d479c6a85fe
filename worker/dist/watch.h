/* Watching the other ranks of this host: a thread that looks ten times a second.
 *
 * A rank is lost when its process is gone without having said so (window_rank.left), or
 * when its own watch has not counted on for WATCH_SILENCE looks of ours: a stopped process
 * (SIGSTOP) counts no more, nor do we while the whole machine sleeps. The lowest rank that
 * is left on the host reports; who cannot be seen in /proc (another pid namespace) is
 * judged by silence alone.
 *
 * A rank that lives but does not come on while all others wait for it (a call of its
 * device's that never returns) is lost as well, after the patience (window_head): the first
 * rank of a single host judges that.
 *
 * Invariant: `lost` is called at most once, from the watch's thread, while other threads
 * may wait for the lost rank for ever: it is expected to end the process. */
#ifndef WORKER_DIST_WATCH_H
#define WORKER_DIST_WATCH_H

#include "worker/dist/window.h"

enum { WATCH_LOOK_MS = 100, WATCH_SILENCE = 100 }; /* 10 s */

/* report: this rank is the one to say it; the others end silently. far: a whole host is
 * lost, with which what started the ranks cannot speak either. */
typedef void watch_lost(void *arg, const char *message, int report, int far);

/* A rank lags behind the others (lag.h): called on the first rank, from a thread. */
typedef void watch_lag(void *arg, const char *message);

struct watch;
/* lag: NULL where it is not to be judged here. */
int watch_start(struct watch **out, const struct window *w, const char *host,
                watch_lost *lost, watch_lag *lag, void *arg, struct err *e);
void watch_stop(struct watch *t); /* total */

/* Start time of a process in clock ticks since boot; 0: there is none, or it is dead. */
uint64_t watch_born(int pid);

#endif
