/* Listening sockets and connections of the real event loop (daemon/io_uv.c): Unix sockets,
 * TCP inside TLS, and HTTP (daemon/net_http.c). What it hears it tells through io->events,
 * as daemon/io.h says.
 *
 * Nobody can hold the daemon's memory or descriptors without having said who they are:
 *   - a connection that has not settled (net_settle: its Hello was accepted) within
 *     NET_SETTLE_S seconds is closed; TLS handshakes count;
 *   - of more than NET_PENDING_MAX such connections the oldest goes;
 *   - of more connections than descriptors allow, new ones are refused;
 *   - who does not read its replies is not read either, above NET_UNSENT_MAX bytes.
 * A TCP connection is announced when its TLS handshake is complete, not before. */
#ifndef DAEMON_NET_H
#define DAEMON_NET_H

#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/err.h"
#include "daemon/certs.h"
#include "daemon/io.h"

enum {
    NET_SETTLE_S = 10,
    NET_PENDING_MAX = 512,
    NET_UNSENT_MAX = 4 << 20,
    NET_BUCKETS = 1024,
    NET_LISTENERS = 32,
};

struct http_api;
struct http_server;
struct net_conn;
struct net_listener {
    uv_poll_t poll; /* first */
    struct net *net;
    enum address_kind kind;
    int fd;
};

struct net {
    uv_loop_t *loop;
    struct io *io;
    uint64_t *next_id; /* shared with processes */
    struct net_listener *listener[NET_LISTENERS];
    size_t n_listeners;
    struct net_conn *bucket[NET_BUCKETS]; /* by id */
    struct net_conn *oldest, *newest;     /* not settled, by age */
    size_t n_conns, n_pending, max_conns;
    uv_timer_t tick;
    const struct tls_api *tls_api;
    struct certs *certs;
    const struct http_api *http_api; /* NULL: no HTTP */
    struct http_server *http;
    uv_poll_t http_poll;
    uv_timer_t http_timer, http_beat;
    unsigned refusals; /* logged since the last tick */
    int starved;       /* no descriptor was free: listeners wait for the tick */
    int closed;
    char in[65536], plain[65536];
};

int net_init(struct net *net, uv_loop_t *loop, struct io *io, uint64_t *next_id);
void net_fini(struct net *net); /* then the loop must run until its handles are gone */

/* Takes the descriptor. TCP needs net_use_tls() before the first connection. */
int net_listen(struct net *net, int fd, enum address_kind kind, struct err *e);
/* Borrowed: each connection asks for the context anew. */
void net_use_tls(struct net *net, struct certs *certs);

void net_send(struct net *net, uint64_t conn, const void *p, size_t n);
size_t net_unsent(struct net *net, uint64_t conn);
void net_close(struct net *net, uint64_t conn);
int net_peer(struct net *net, uint64_t conn, struct io_peer *peer); /* 0: it is there */
void net_settle(struct net *net, uint64_t conn);
void net_respond(struct net *net, uint64_t request, const struct io_response *r);

#endif
