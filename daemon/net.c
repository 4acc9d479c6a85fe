/* Connections under libuv: see net.h. A connection is freed in its close callback alone;
 * from there the daemon is told, so that nothing calls back from within a call. */
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "daemon/http/server.h"
#include "daemon/net_conn.h"
#include "proto/transport.h"

enum {
    ACCEPT_AT_ONCE = 64,
    DESCRIPTORS_KEPT = 128, /* for files, processes and the store */
    DESCRIPTORS_WANTED = 65536,
    REFUSALS_LOGGED = 10,    /* a second */
    UNSENT_LITTLE = 1 << 14, /* below it the daemon may go on sending */
    SENT_MAX = 64 << 20,     /* unsent replies before a connection is given up */
};

struct net_conn *net_find(struct net *net, uint64_t id)
{
    struct net_conn *c = net->bucket[id % NET_BUCKETS];

    while (c && c->id != id)
        c = c->next;
    return c;
}

static void on_tick(uv_timer_t *t);

static void start_tick(struct net *net)
{
    if (!uv_is_active((uv_handle_t *)&net->tick))
        uv_timer_start(&net->tick, on_tick, 1000, 1000);
}

void net_refusal(struct net *net, const char *name, const char *why)
{
    start_tick(net);
    if (net->refusals++ < REFUSALS_LOGGED)
        log_warn("connection%s%s refused: %s", *name ? " from " : "", name, why);
}

/* ---- those that have not said who they are ---- */

void net_forget_pending(struct net_conn *c)
{
    struct net *net = c->net;

    if (!c->pending)
        return;
    if (c->older)
        c->older->younger = c->younger;
    else
        net->oldest = c->younger;
    if (c->younger)
        c->younger->older = c->older;
    else
        net->newest = c->older;
    c->older = c->younger = NULL;
    c->pending = 0;
    net->n_pending--;
}

static void on_listener(uv_poll_t *poll, int status, int events);

static void on_tick(uv_timer_t *t)
{
    struct net *net = t->data;
    double now = clock_now();

    if (!net->oldest && !net->starved && !net->refusals)
        uv_timer_stop(t);
    net->refusals = 0;
    for (size_t i = 0; net->starved && i < net->n_listeners; i++)
        uv_poll_start(&net->listener[i]->poll, UV_READABLE, on_listener);
    net->starved = 0;
    while (net->oldest && now - net->oldest->since > NET_SETTLE_S) {
        if (!net->oldest->closing)
            net_refusal(net, net->oldest->name, "it has not said who it is");
        net_drop(net->oldest);
    }
}

void net_add_pending(struct net_conn *c)
{
    struct net *net = c->net;

    net_forget_pending(c);
    c->since = clock_now();
    c->older = net->newest;
    if (net->newest)
        net->newest->younger = c;
    else
        net->oldest = c;
    net->newest = c;
    c->pending = 1;
    start_tick(net);
    if (++net->n_pending > NET_PENDING_MAX)
        net_drop(net->oldest);
}

/* ---- the end ---- */

void net_handle_gone(uv_handle_t *h)
{
    struct net_conn *c = h->data;
    struct net *net = c->net;

    if (--c->handles)
        return;
    if (c->announced && !net_is_http(c->kind) && !net->closed)
        net->io->events->closed(net->io->ctx, c->id);
    if (c->tls)
        net->tls_api->close(c->tls);
    mem_free(c);
}

void net_drop(struct net_conn *c)
{
    struct net *net = c->net;
    struct net_conn **p = &net->bucket[c->id % NET_BUCKETS];

    if (uv_is_closing(&c->u.handle))
        return;
    while (*p && *p != c)
        p = &(*p)->next;
    if (*p) {
        *p = c->next;
        net->n_conns--;
    }
    net_forget_pending(c);
    c->closing = 1;
    uv_close(&c->u.handle, net_handle_gone);
    if (c->bridged)
        uv_close((uv_handle_t *)&c->bridge, net_handle_gone);
}

/* ---- writing ---- */

static void on_written(uv_write_t *request, int status)
{
    struct net_write *w = (struct net_write *)request;
    struct net_conn *c = request->handle->data;

    mem_free(w->bytes);
    mem_free(w);
    if (uv_is_closing(&c->u.handle))
        return;
    if (status < 0) {
        net_drop(c);
        return;
    }
    net_resume(c);
    net_http_written(c);
    if (!c->behind || c->closing ||
        uv_stream_get_write_queue_size(&c->u.stream) > UNSENT_LITTLE)
        return;
    c->behind = 0;
    if (!net_is_http(c->kind))
        c->net->io->events->drained(c->net->io->ctx, c->id);
}

int net_write(uv_stream_t *s, const char *p, size_t n, uv_write_cb written)
{
    uv_buf_t buf = uv_buf_init((char *)(uintptr_t)p, (unsigned)n);
    size_t waiting = uv_stream_get_write_queue_size(s);
    int sent = waiting ? 0 : uv_try_write(s, &buf, 1);
    struct net_write *w;

    if (sent < 0)
        sent = 0; /* UV_EAGAIN; a broken connection shows below or on reading */
    p += sent;
    n -= (size_t)sent;
    if (!n)
        return 0;
    w = waiting > SENT_MAX ? NULL : mem_alloc(sizeof *w);
    if (w)
        w->bytes = mem_alloc(n);
    if (w && w->bytes) {
        memcpy(w->bytes, p, n);
        buf = uv_buf_init(w->bytes, (unsigned)n);
        if (!uv_write(&w->request, s, &buf, 1, written))
            return 0;
        mem_free(w->bytes);
    }
    mem_free(w);
    return -1;
}

/* A frame with a hole in it would be worse than none. */
static void send_bytes(struct net_conn *c, const char *p, size_t n)
{
    if (net_write(&c->u.stream, p, n, on_written))
        net_drop(c);
    else
        c->behind |= uv_stream_get_write_queue_size(&c->u.stream) > UNSENT_LITTLE;
}

static void flush(struct net_conn *c)
{
    struct net *net = c->net;
    char buf[16384];
    size_t n;

    while (!uv_is_closing(&c->u.handle) &&
           (n = net->tls_api->pull(c->tls, buf, sizeof buf)) > 0)
        send_bytes(c, buf, n);
}

void net_conn_send(struct net_conn *c, const void *p, size_t n)
{
    struct err e;

    if (!c->tls)
        send_bytes(c, p, n);
    else if (c->net->tls_api->write(c->tls, p, n, &e))
        net_drop(c);
    else
        flush(c);
}

void net_send(struct net *net, uint64_t id, const void *p, size_t n)
{
    struct net_conn *c = net_find(net, id);

    if (c && !c->closing && n)
        net_conn_send(c, p, n);
    else if (!c)
        net_http_send(net, id, p, n);
}

size_t net_unsent(struct net *net, uint64_t id)
{
    struct net_conn *c = net_find(net, id);

    if (c)
        return uv_stream_get_write_queue_size(&c->u.stream);
    return net->http ? net->http_api->unsent(net->http, id) : 0;
}

static void on_shutdown(uv_shutdown_t *request, int status)
{
    struct net_conn *c = request->handle->data;

    (void)status;
    mem_free(request);
    net_drop(c);
}

/* Say goodbye once everything has gone out; who does not take it is dropped in time. */
void net_say_goodbye(struct net_conn *c)
{
    uv_shutdown_t *request = mem_alloc(sizeof *request);

    if (c->tls) {
        c->net->tls_api->shutdown(c->tls);
        flush(c);
    }
    c->closing = 1;
    if (uv_is_closing(&c->u.handle) || !request ||
        uv_shutdown(request, &c->u.stream, on_shutdown)) {
        mem_free(request);
        net_drop(c);
        return;
    }
    net_add_pending(c);
}

void net_close(struct net *net, uint64_t id)
{
    struct net_conn *c = net_find(net, id);

    if (c && !c->closing)
        net_say_goodbye(c);
    else if (!c)
        net_http_end(net, id);
}

/* ---- reading ---- */

static void give_buffer(uv_handle_t *h, size_t hint, uv_buf_t *buf)
{
    struct net *net = ((struct net_conn *)h->data)->net;

    (void)hint;
    *buf = uv_buf_init(net->in, sizeof net->in);
}

static void announce(struct net_conn *c)
{
    c->announced = 1;
    if (!net_is_http(c->kind))
        c->net->io->events->connected(c->net->io->ctx, c->id);
    else if (net_http_begin(c))
        net_drop(c);
}

static void deliver(struct net_conn *c, const void *p, size_t n)
{
    struct net *net = c->net;

    if (net_is_http(c->kind))
        net_http_deliver(c, p, n);
    else
        net->io->events->received(net->io->ctx, c->id, p, n);
}

/* Bytes through TLS; its own answers go out also when it gives up (an alert). */
static void decrypt(struct net_conn *c, const void *p, size_t n)
{
    struct net *net = c->net;
    struct err e = {0};
    int rc = net->tls_api->feed(c->tls, p, n, &e);
    long got = 0;

    while (!rc && !c->closing &&
           (got = net->tls_api->read(c->tls, net->plain, sizeof net->plain, &e)) > 0) {
        if (!c->announced)
            announce(c);
        if (!c->closing)
            deliver(c, net->plain, (size_t)got);
    }
    if (!rc && got < 0)
        rc = (int)got;
    if (!uv_is_closing(&c->u.handle))
        flush(c);
    if (rc && !uv_is_closing(&c->u.handle)) {
        if (rc != ERR_UNREACHABLE)
            net_refusal(net, c->name, e.msg);
        net_drop(c);
    } else if (!c->closing && !c->announced && net->tls_api->established(c->tls)) {
        announce(c);
    }
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *buf)
{
    struct net_conn *c = s->data;

    if (n < 0) {
        net_drop(c);
        return;
    }
    if (c->closing || n == 0)
        return;
    if (c->tls)
        decrypt(c, buf->base, (size_t)n);
    else
        deliver(c, buf->base, (size_t)n);
    if (!c->closing && uv_stream_get_write_queue_size(s) > NET_UNSENT_MAX) {
        uv_read_stop(s);
        c->paused = 1;
    }
}

void net_resume(struct net_conn *c)
{
    if (!c->paused || uv_stream_get_write_queue_size(&c->u.stream) > NET_UNSENT_MAX / 2 ||
        (c->bridged && uv_stream_get_write_queue_size((uv_stream_t *)&c->bridge)))
        return;
    c->paused = 0;
    uv_read_start(&c->u.stream, give_buffer, on_read);
}

/* ---- accepting ---- */

static void name_peer(struct net_conn *c, int fd)
{
    struct sockaddr_storage sa;
    socklen_t len = sizeof sa;
    char host[64], port[16];

    if (c->kind != ADDRESS_UNIX && !getpeername(fd, (struct sockaddr *)&sa, &len) &&
        !getnameinfo((struct sockaddr *)&sa, len, host, sizeof host, port, sizeof port,
                     NI_NUMERICHOST | NI_NUMERICSERV))
        snprintf(c->name, sizeof c->name, "%s:%s", host, port);
}

/* A handle for the descriptor, which is closed when that fails. */
static int adopt(struct net *net, struct net_conn *c, int fd)
{
    int rc;

    c->handles = 1;
    if (c->kind == ADDRESS_UNIX) {
        rc = uv_pipe_init(net->loop, &c->u.pipe, 0);
        if (!rc)
            rc = uv_pipe_open(&c->u.pipe, fd);
    } else {
        transport_tune(fd);
        rc = uv_tcp_init(net->loop, &c->u.tcp);
        if (!rc)
            rc = uv_tcp_open(&c->u.tcp, fd);
    }
    c->u.handle.data = c;
    if (rc) {
        close(fd);
        uv_close(&c->u.handle, net_handle_gone);
    }
    return rc;
}

static int in_tls(enum address_kind kind)
{
    return kind == ADDRESS_TCP || kind == ADDRESS_HTTPS;
}

static void take(struct net *net, int fd, enum address_kind kind)
{
    struct net_conn *c = mem_alloc(sizeof *c);
    struct err e = {0};

    if (!c) {
        net_refusal(net, "", "out of memory");
        close(fd);
        return;
    }
    c->net = net;
    c->kind = kind;
    name_peer(c, fd);
    if (net->n_conns >= net->max_conns ||
        (kind == ADDRESS_UNIX && transport_peer_allowed(fd, &e)) ||
        (in_tls(kind) && net->tls_api->open(&c->tls, certs_now(net->certs), NULL, &e))) {
        net_refusal(net, c->name, e.code ? e.msg : "too many connections");
        close(fd);
        mem_free(c);
        return;
    }
    if (adopt(net, c, fd))
        return;
    c->id = (*net->next_id)++;
    c->next = net->bucket[c->id % NET_BUCKETS];
    net->bucket[c->id % NET_BUCKETS] = c;
    net->n_conns++;
    net_add_pending(c);
    if (uv_read_start(&c->u.stream, give_buffer, on_read))
        net_drop(c);
    else if (!c->tls)
        announce(c);
}

static void on_listener(uv_poll_t *poll, int status, int events)
{
    struct net_listener *l = (struct net_listener *)poll;

    (void)events;
    if (status < 0)
        return;
    for (int i = 0; i < ACCEPT_AT_ONCE; i++) {
        int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd >= 0) {
            take(l->net, fd, l->kind);
        } else if (errno == EMFILE || errno == ENFILE) {
            net_refusal(l->net, "", "no descriptor is free");
            l->net->starved = 1; /* the next tick looks again */
            uv_poll_stop(poll);
            if (l->net->oldest)
                net_drop(l->net->oldest);
            return;
        } else if (errno != EINTR && errno != ECONNABORTED) {
            return;
        }
    }
}

static void listener_gone(uv_handle_t *h)
{
    struct net_listener *l = (struct net_listener *)h;

    close(l->fd);
    mem_free(l);
}

int net_listen(struct net *net, int fd, enum address_kind kind, struct err *e)
{
    struct net_listener *l = mem_alloc(sizeof *l);
    int rc = net_is_http(kind) ? net_http_open(net, e) : 0;

    if (rc) {
        close(fd);
        mem_free(l);
        return rc;
    }
    if (!l || net->n_listeners == NET_LISTENERS) {
        close(fd);
        mem_free(l);
        return l ? err_set(e, ERR_CONFIG, "more than %d listening sockets", NET_LISTENERS)
                 : err_set(e, ERR_NOMEM, "listen: out of memory");
    }
    l->net = net;
    l->kind = kind;
    l->fd = fd;
    rc = uv_poll_init(net->loop, &l->poll, fd);
    if (rc) {
        close(fd);
        mem_free(l);
        return err_set(e, ERR_IO, "listen: %s", uv_strerror(rc));
    }
    net->listener[net->n_listeners++] = l;
    rc = uv_poll_start(&l->poll, UV_READABLE, on_listener);
    return rc ? err_set(e, ERR_IO, "listen: %s", uv_strerror(rc)) : 0;
}

void net_use_tls(struct net *net, struct certs *certs)
{
    net->tls_api = certs->api;
    net->certs = certs;
}

/* ---- who is there ---- */

int net_peer(struct net *net, uint64_t id, struct io_peer *peer)
{
    struct net_conn *c = net_find(net, id);

    memset(peer, 0, sizeof *peer);
    if (!c)
        return -1;
    peer->local = c->kind == ADDRESS_UNIX;
    snprintf(peer->name, sizeof peer->name, "%s", c->name);
    if (c->tls)
        net->tls_api->fingerprint(c->tls, peer->certificate);
    return 0;
}

void net_settle(struct net *net, uint64_t id)
{
    struct net_conn *c = net_find(net, id);

    if (c && !c->closing)
        net_forget_pending(c);
}

/* ---- beginning and end ---- */

/* As many descriptors as the system gives; how many of them connections may take. */
static size_t raise_limit(void)
{
    struct rlimit r;

    if (getrlimit(RLIMIT_NOFILE, &r))
        return DESCRIPTORS_KEPT;
    if (r.rlim_cur < DESCRIPTORS_WANTED && r.rlim_cur < r.rlim_max) {
        r.rlim_cur = r.rlim_max < DESCRIPTORS_WANTED ? r.rlim_max : DESCRIPTORS_WANTED;
        if (setrlimit(RLIMIT_NOFILE, &r))
            getrlimit(RLIMIT_NOFILE, &r);
    }
    return r.rlim_cur > 2 * DESCRIPTORS_KEPT ? r.rlim_cur - DESCRIPTORS_KEPT
                                             : DESCRIPTORS_KEPT;
}

int net_init(struct net *net, uv_loop_t *loop, struct io *io, uint64_t *next_id)
{
    int rc;

    net->loop = loop;
    net->io = io;
    net->next_id = next_id;
    net->max_conns = raise_limit();
    rc = uv_timer_init(loop, &net->tick);
    net->tick.data = net;
    return rc;
}

void net_fini(struct net *net)
{
    if (net->closed || !net->loop)
        return;
    net->closed = 1;
    net_http_close(net);
    for (size_t i = 0; i < net->n_listeners; i++)
        uv_close((uv_handle_t *)&net->listener[i]->poll, listener_gone);
    for (size_t i = 0; i < NET_BUCKETS; i++)
        while (net->bucket[i])
            net_drop(net->bucket[i]);
    if (net->tick.data)
        uv_close((uv_handle_t *)&net->tick, NULL);
}
