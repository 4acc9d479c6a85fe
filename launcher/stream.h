/* A stream of replies that survives a daemon's restart: when the connection is lost, the
 * daemon is dialled again for a while and asked to go on from where the caller is. */
#ifndef LAUNCHER_STREAM_H
#define LAUNCHER_STREAM_H

#include "base/err.h"
#include "proto/client.h"

struct stream {
    const char *to;
    void *ctx;
    /* Ask for what is still missing. */
    int (*ask)(void *ctx, struct client *c, uint32_t *id, struct err *e);
    /* A reply; sets *over after the last. */
    int (*take)(void *ctx, const Hone__V1__Reply *reply, int *over, struct err *e);
    /* Between replies: in how many milliseconds to call again, -1: no need. NULL: never. */
    int (*idle)(void *ctx);
    void (*lost)(void *ctx, const char *why); /* NULL: in silence */
};

/* ERR_UNREACHABLE: the daemon was not there, or stayed away for a minute. */
int stream_run(const struct stream *s, struct err *e);

#endif
