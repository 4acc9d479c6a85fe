/* A private honed: started for one command, ended with it.
 *
 * It listens on a Unix socket in a fresh 0700 folder. A socket pair ties it to us: it says
 * "ready" over it, and sees its end of file when we are gone, even by SIGKILL. */
#ifndef LAUNCHER_SESSION_H
#define LAUNCHER_SESSION_H

#include <sys/types.h>

#include "base/err.h"
#include "proto/client.h"

struct session {
    char folder[108]; /* 0700, "" when there is none */
    int owner;        /* our end of the pair, -1: none */
    pid_t honed;      /* 0: none */
    struct client *client;
};

int session_open(struct session *s, struct err *e);

/* The connection is gone although we did not end it: say how honed ended. */
int session_lost(struct session *s, struct err *e);

/* Let honed end (it stops its workers, within 2 s), and tidy up. Total. */
void session_close(struct session *s);

#endif
