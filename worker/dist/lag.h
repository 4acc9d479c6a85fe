/* Stragglers: a rank for which the others wait, step after step.
 *
 * The ranks are looked at many times; a look in which one rank works and all others wait
 * in a collective counts against that one. Whoever has LAG_SHARE of a window of looks
 * against it takes at least 1 / (1 - LAG_SHARE) times as long as the next slowest: it is
 * named, and again only once it was faster in between. Looks at anything but training do
 * not count (rank 0 alone saves). */
#ifndef WORKER_DIST_LAG_H
#define WORKER_DIST_LAG_H

enum { LAG_SECONDS = 20 };
#define LAG_SHARE 0.35

struct lag {
    int ranks, window, looks;
    int *alone; /* (ranks) looks against each */
    int said;   /* rank that was named, -1 */
};

/* window: looks in LAG_SECONDS. -1: out of memory. */
int lag_open(struct lag *l, int ranks, int window);
void lag_close(struct lag *l); /* total */

/* One look; who: the only rank at work, -1: several, or none. Returns the rank that is to
 * be named now, and the share of looks against it, or -1. */
int lag_look(struct lag *l, int who, double *share);

/* "rank 1 on h2 (pid 7) lags: the others waited for it 62 % of 20 s, ... step 12, forward"
 */
void lag_say(char *buf, unsigned n, int rank, const char *host, int pid, double share,
             long step, int phase);

#endif
