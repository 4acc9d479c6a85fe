/* What daemon/net.c and daemon/net_http.c share: a connection. */
#ifndef DAEMON_NET_CONN_H
#define DAEMON_NET_CONN_H

#include "daemon/net.h"

struct net_conn {
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_pipe_t pipe;
        uv_tcp_t tcp;
    } u; /* first: the handle is the connection */
    struct net *net;
    uint64_t id;
    enum address_kind kind;
    struct net_conn *next; /* in its bucket */
    struct net_conn *younger, *older;
    double since;
    struct tls *tls; /* NULL: plain */
    char name[80];   /* "127.0.0.1:51234", for logs */
    int pending, announced, paused;
    int behind;  /* much is unsent: say when it is not any more */
    int closing; /* we have said goodbye: what comes is ignored */

    uv_pipe_t bridge; /* HTTP: our end of the pair whose other end the server has */
    int bridged, bridge_paused;
    int handles; /* not yet closed */
};

struct net_conn *net_find(struct net *net, uint64_t id);
void net_drop(struct net_conn *c);
void net_say_goodbye(struct net_conn *c);
void net_add_pending(struct net_conn *c);
void net_forget_pending(struct net_conn *c);
void net_resume(struct net_conn *c); /* read again, when little enough waits */
void net_conn_send(struct net_conn *c, const void *p, size_t n);
void net_refusal(struct net *net, const char *name, const char *why);
void net_handle_gone(uv_handle_t *h); /* data: the connection */

/* Bytes to a stream: at once as far as it takes them, the rest when it does; `written` then
 * gets a struct net_write. -1: the stream is to be given up. */
struct net_write {
    uv_write_t request;
    char *bytes;
};
int net_write(uv_stream_t *s, const char *p, size_t n, uv_write_cb written);

/* HTTP: a connection is handed to the server; bytes of the client for it; more of the
 * client's reply has gone out. */
int net_http_begin(struct net_conn *c);
void net_http_deliver(struct net_conn *c, const void *p, size_t n);
void net_http_written(struct net_conn *c);

int net_http_open(struct net *net, struct err *e);
void net_http_close(struct net *net);
/* A stream's body, by the request's id; an id that has gone is ignored. */
void net_http_send(struct net *net, uint64_t request, const void *p, size_t n);
void net_http_end(struct net *net, uint64_t request);
int net_is_http(enum address_kind kind);

#endif
