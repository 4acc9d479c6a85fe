/* The HTTP server as a table: libmicrohttpd behind the module hone-http, so that a daemon
 * without HTTP does not load it (nor GnuTLS, which comes with it and is not used: TLS ends
 * in daemon/net.c, and the server gets plain text over a socket pair).
 *
 * One thread, one epoll descriptor: whenever it is readable, the time that run() gave has
 * passed, or something was said to it, call run(). Requests and answers are told apart by
 * ids that next_id() gives; an id that has gone is ignored. The hooks are called from
 * within run() alone.
 *
 * The server bounds heads (32 KiB) and bodies (1 MiB); whatever is malformed it answers
 * itself. Slow clients are net.c's to end. */
#ifndef DAEMON_HTTP_SERVER_H
#define DAEMON_HTTP_SERVER_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/module.h"
#include "daemon/io.h"

enum { HTTP_ABI = 1 };

struct http_server;

struct http_hooks {
    uint64_t (*next_id)(void *ctx);
    /* A whole request of connection `conn`. */
    void (*requested)(void *ctx, uint64_t conn, uint64_t id, const struct io_request *r);
    /* Much of a stream was unsent, now little is. */
    void (*drained)(void *ctx, uint64_t id);
    /* Its answer has gone out, or the client has gone. */
    void (*finished)(void *ctx, uint64_t conn, uint64_t id);
};

struct http_api {
    struct module module;
    int (*open)(struct http_server **out, const struct http_hooks *hooks, void *ctx,
                struct err *e);
    void (*close)(struct http_server *s);
    int (*add)(struct http_server *s, int fd, uint64_t conn, struct err *e); /* takes fd */
    int (*poll_fd)(const struct http_server *s);
    long (*run)(struct http_server *s); /* ms until it wants to run again, -1: no need */

    void (*respond)(struct http_server *s, uint64_t id, const struct io_response *r);
    /* Streams: more of the body (it is copied), and its end. */
    void (*send)(struct http_server *s, uint64_t id, const void *p, size_t n);
    size_t (*unsent)(const struct http_server *s, uint64_t id);
    void (*end)(struct http_server *s, uint64_t id);
    void (*beat)(struct http_server *s); /* a sign of life on streams that are silent */
};

#endif
