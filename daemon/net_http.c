/* HTTP under libuv: the server of daemon/http/server.h in the loop, and the socket pairs
 * between it and the connections of daemon/net.c.
 *
 *     client <-> (TLS) <-> connection <-> bridge | socket pair | server
 *
 * Each side is read only while little waits on the other, so that a slow client holds some
 * hundred kilobytes and delays nobody. A request must be whole within NET_SETTLE_S seconds
 * of the connection's beginning or of the answer before it. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"
#include "daemon/http/server.h"
#include "daemon/net_conn.h"

enum { WAITING_MAX = 256 << 10, BEAT_MS = 15000 };

int net_is_http(enum address_kind kind)
{
    return kind == ADDRESS_HTTP || kind == ADDRESS_HTTPS;
}

/* ---- the server in the loop ---- */

static void on_time(uv_timer_t *t);

static void run(struct net *net)
{
    long ms = net->http_api->run(net->http);

    if (ms >= 0)
        uv_timer_start(&net->http_timer, on_time, (uint64_t)ms, 0);
    else
        uv_timer_stop(&net->http_timer);
}

static void on_time(uv_timer_t *t)
{
    run(t->data);
}

static void on_ready(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    run(poll->data);
}

static void on_beat(uv_timer_t *t)
{
    struct net *net = t->data;

    net->http_api->beat(net->http);
    run(net);
}

static uint64_t next_id(void *ctx)
{
    struct net *net = ctx;

    return (*net->next_id)++;
}

static void on_request(void *ctx, uint64_t conn, uint64_t id, const struct io_request *r)
{
    struct net *net = ctx;
    struct net_conn *c = net_find(net, conn);
    struct io_request whole = *r;

    if (!c || c->closing || net->closed)
        return;
    net_forget_pending(c);
    net_peer(net, conn, &whole.peer);
    whole.tls = c->tls != NULL;
    net->io->events->requested(net->io->ctx, id, &whole);
}

static void on_finished(void *ctx, uint64_t conn, uint64_t id)
{
    struct net *net = ctx;
    struct net_conn *c = net_find(net, conn);

    if (net->closed)
        return;
    net->io->events->closed(net->io->ctx, id);
    if (c && !c->closing)
        net_add_pending(c);
}

static void on_drained(void *ctx, uint64_t id)
{
    struct net *net = ctx;

    if (!net->closed)
        net->io->events->drained(net->io->ctx, id);
}

int net_http_open(struct net *net, struct err *e)
{
    static const struct http_hooks hooks = {next_id, on_request, on_drained, on_finished};
    static const struct module want = {HTTP_ABI, sizeof(struct http_api)};
    const void *table;
    int rc = 0;

    if (net->http)
        return 0;
    if (module_find("hone-http", "hone_http", &want, &table, e))
        return e->code;
    net->http_api = table;
    if (net->http_api->open(&net->http, &hooks, net, e))
        return e->code;
    rc = uv_timer_init(net->loop, &net->http_timer);
    if (!rc)
        rc = uv_timer_init(net->loop, &net->http_beat);
    if (!rc)
        rc = uv_poll_init(net->loop, &net->http_poll, net->http_api->poll_fd(net->http));
    net->http_timer.data = net->http_beat.data = net->http_poll.data = net;
    if (!rc)
        rc = uv_poll_start(&net->http_poll, UV_READABLE, on_ready);
    if (!rc)
        rc = uv_timer_start(&net->http_beat, on_beat, BEAT_MS, BEAT_MS);
    return rc ? err_set(e, ERR_IO, "HTTP: %s", uv_strerror(rc)) : 0;
}

void net_http_close(struct net *net)
{
    if (!net->http)
        return;
    if (net->http_timer.data) {
        uv_close((uv_handle_t *)&net->http_poll, NULL);
        uv_close((uv_handle_t *)&net->http_timer, NULL);
        uv_close((uv_handle_t *)&net->http_beat, NULL);
    }
    net->http_api->close(net->http);
    net->http = NULL;
}

/* The server has something to do: soon, once for all that is said until then. */
static void kick(struct net *net)
{
    uv_timer_start(&net->http_timer, on_time, 0, 0);
}

void net_respond(struct net *net, uint64_t request, const struct io_response *r)
{
    if (!net->http)
        return;
    net->http_api->respond(net->http, request, r);
    kick(net);
}

void net_http_send(struct net *net, uint64_t request, const void *p, size_t n)
{
    if (!net->http)
        return;
    net->http_api->send(net->http, request, p, n);
    kick(net);
}

void net_http_end(struct net *net, uint64_t request)
{
    if (!net->http)
        return;
    net->http_api->end(net->http, request);
    kick(net);
}

/* ---- bridges ---- */

static struct net_conn *of_bridge(uv_stream_t *s)
{
    return s->data;
}

static void give_buffer(uv_handle_t *h, size_t hint, uv_buf_t *buf)
{
    struct net_conn *c = h->data;

    (void)hint;
    *buf = uv_buf_init(c->net->in, sizeof c->net->in);
}

/* What the server says goes to the client. */
static void on_server(uv_stream_t *s, ssize_t n, const uv_buf_t *buf)
{
    struct net_conn *c = of_bridge(s);

    if (c->closing || n == 0)
        return;
    if (n < 0) {
        net_say_goodbye(c);
        return;
    }
    net_conn_send(c, buf->base, (size_t)n);
    if (!c->closing && uv_stream_get_write_queue_size(&c->u.stream) > WAITING_MAX) {
        uv_read_stop(s);
        c->bridge_paused = 1;
    }
}

void net_http_written(struct net_conn *c)
{
    if (!c->bridge_paused || uv_stream_get_write_queue_size(&c->u.stream) > WAITING_MAX / 2)
        return;
    c->bridge_paused = 0;
    uv_read_start((uv_stream_t *)&c->bridge, give_buffer, on_server);
}

static void on_delivered(uv_write_t *request, int status)
{
    struct net_write *w = (struct net_write *)request;
    struct net_conn *c = of_bridge(request->handle);

    (void)status; /* the server has gone: on_server() hears of it */
    mem_free(w->bytes);
    mem_free(w);
    if (!uv_is_closing(&c->u.handle))
        net_resume(c);
}

void net_http_deliver(struct net_conn *c, const void *p, size_t n)
{
    if (net_write((uv_stream_t *)&c->bridge, p, n, on_delivered)) {
        net_drop(c);
        return;
    }
    if (uv_stream_get_write_queue_size((uv_stream_t *)&c->bridge) > WAITING_MAX) {
        uv_read_stop(&c->u.stream);
        c->paused = 1;
    }
}

int net_http_begin(struct net_conn *c)
{
    struct net *net = c->net;
    int pair[2];
    struct err e;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair)) {
        net_refusal(net, c->name, strerror(errno));
        return -1;
    }
    if (uv_pipe_init(net->loop, &c->bridge, 0)) {
        close(pair[0]);
        close(pair[1]);
        return -1;
    }
    c->bridged = 1;
    c->handles++;
    c->bridge.data = c;
    if (uv_pipe_open(&c->bridge, pair[0])) {
        close(pair[0]);
        close(pair[1]);
        return -1;
    }
    if (net->http_api->add(net->http, pair[1], c->id, &e)) {
        net_refusal(net, c->name, e.msg);
        return -1;
    }
    run(net);
    return uv_read_start((uv_stream_t *)&c->bridge, give_buffer, on_server);
}
