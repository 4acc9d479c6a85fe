/* Checks of jobs under libuv: they are forked by a process that is kept for it,
 * `hone-worker --checks` (worker/link/checks.h), which begins with the first check.
 *
 * None of it can take the daemon down: what a check does, its own process does. Where the
 * kept process ends, talks nonsense or is silent for two times `patience`, another takes
 * its place, and what it had been asked is asked once more, and no more than that. One
 * whose program has been replaced on the disk finishes what it has and is given up. */
#ifndef DAEMON_CHECKERS_H
#define DAEMON_CHECKERS_H

#include <stdint.h>
#include <uv.h>

#include "base/err.h"
#include "daemon/io.h"

struct check_server;

struct checkers {
    uv_loop_t *loop;
    uv_timer_t watchdog;
    double patience; /* seconds */
    void (*ended)(void *ctx, uint64_t id, const struct io_exit *how);
    void *ctx;
    struct check_server *servers; /* the newest first */
    int closed;
};

/* `ended` is never called from within a call. Returns what libuv does. */
int checkers_init(struct checkers *c, uv_loop_t *loop, double patience,
                  void (*ended)(void *ctx, uint64_t id, const struct io_exit *how),
                  void *ctx);
void checkers_fini(struct checkers *c); /* then the loop must run until handles are gone */

int checkers_start(struct checkers *c, uint64_t id, const struct io_command *cmd,
                   struct err *e);
int checkers_kill(struct checkers *c, uint64_t id); /* 1: it was one, and will end */

#endif
