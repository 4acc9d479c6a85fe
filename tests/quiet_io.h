/* An outside world in which nothing happens by itself, for tests and fuzzers of the daemon:
 * what is sent to connection or request QUIET_ID is kept, processes do not start. */
#ifndef TESTS_QUIET_IO_H
#define TESTS_QUIET_IO_H

#include <string.h>

#include "base/str.h"
#include "daemon/io.h"

enum { QUIET_ID = 7 };

struct quiet {
    struct io io; /* first */
    struct io_peer peer;
    struct str out;  /* bytes sent */
    struct str body; /* of the response */
    char type[128];  /* its content type */
    int status, asks_token, stream;
    int responses, closed, settled;
};

static inline struct quiet *quiet_of(struct io *io)
{
    return (struct quiet *)io;
}

static inline double quiet_now(struct io *io)
{
    (void)io;
    return 1;
}

static inline void quiet_send(struct io *io, uint64_t conn, const void *p, size_t n)
{
    if (conn == QUIET_ID)
        str_add_bytes(&quiet_of(io)->out, p, n);
}

static inline size_t quiet_unsent(struct io *io, uint64_t conn)
{
    (void)io;
    (void)conn;
    return 0;
}

static inline void quiet_close(struct io *io, uint64_t conn)
{
    quiet_of(io)->closed += conn == QUIET_ID;
}

static inline int quiet_spawn(struct io *io, const struct io_command *c, uint64_t *child,
                              struct err *e)
{
    (void)io;
    (void)c;
    *child = 0;
    return err_set(e, ERR_FAILED, "nothing starts here");
}

static inline void quiet_kill(struct io *io, uint64_t child, int signal, int whole)
{
    (void)whole;
    (void)io;
    (void)child;
    (void)signal;
}

static inline void quiet_wake_at(struct io *io, double when)
{
    (void)io;
    (void)when;
}

static inline void quiet_stop(struct io *io)
{
    (void)io;
}

static inline int quiet_peer(struct io *io, uint64_t conn, struct io_peer *out)
{
    *out = quiet_of(io)->peer;
    return conn == QUIET_ID ? 0 : -1;
}

static inline void quiet_settle(struct io *io, uint64_t conn)
{
    quiet_of(io)->settled += conn == QUIET_ID;
}

static inline void quiet_respond(struct io *io, uint64_t request,
                                 const struct io_response *r)
{
    struct quiet *q = quiet_of(io);

    if (request != QUIET_ID)
        return;
    q->responses++;
    q->status = r->status;
    q->asks_token = r->ask_token;
    q->stream = r->stream;
    strncpy(q->type, r->content_type, sizeof q->type - 1);
    str_clear(&q->body);
    if (!r->stream)
        str_add_bytes(&q->body, r->body, r->n);
}

static inline void quiet_open(struct quiet *q)
{
    static const struct io_ops ops = {.now = quiet_now,
                                      .send = quiet_send,
                                      .unsent = quiet_unsent,
                                      .close = quiet_close,
                                      .spawn = quiet_spawn,
                                      .kill = quiet_kill,
                                      .wake_at = quiet_wake_at,
                                      .stop = quiet_stop,
                                      .peer = quiet_peer,
                                      .settle = quiet_settle,
                                      .respond = quiet_respond};

    memset(q, 0, sizeof *q);
    q->io.ops = &ops;
}

static inline void quiet_close_all(struct quiet *q)
{
    str_fini(&q->out);
    str_fini(&q->body);
}

#endif
