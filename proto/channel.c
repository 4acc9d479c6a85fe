/* One connection to a daemon: see channel.h. */
#include "proto/channel.h"

#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "proto/message.h"
#include "proto/transport.h"

/* A peer on the wire waits at most so long in one poll(2). */
static const double poll_most = 3600;

/* What TLS has for the wire. */
static int pull(struct channel *c, struct err *e)
{
    char buf[16384];
    size_t n;

    while ((n = c->api->pull(c->tls, buf, sizeof buf)) > 0)
        str_add_bytes(&c->out, buf, n);
    return str_failed(&c->out) ? err_set(e, ERR_NOMEM, "out of memory for a message") : 0;
}

int channel_put(struct channel *c, const void *frames, size_t n, struct err *e)
{
    int rc;

    if (c->tls) {
        rc = c->api->write(c->tls, frames, n, e);
        return rc ? rc : pull(c, e);
    }
    str_add_bytes(&c->out, frames, n);
    return str_failed(&c->out) ? err_set(e, ERR_NOMEM, "out of memory for a message") : 0;
}

int channel_put_message(struct channel *c, const ProtobufCMessage *m, struct err *e)
{
    struct str frame = {0};
    int rc = message_frame(m, &frame, e);

    if (!rc)
        rc = channel_put(c, frame.s, frame.len, e);
    str_fini(&frame);
    return rc;
}

size_t channel_unsent(const struct channel *c)
{
    return c->out.len - c->out_start;
}

int channel_transmit(struct channel *c, struct err *e)
{
    while (c->out_start < c->out.len) {
        ssize_t n = send(c->fd, c->out.s + c->out_start, c->out.len - c->out_start,
                         MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN ? 0 : err_errno(e, ERR_UNREACHABLE, errno, "send");
        c->out_start += (size_t)n;
    }
    str_clear(&c->out);
    c->out_start = 0;
    return 0;
}

/* Bytes through TLS; its own answers go out also when it gives up (an alert). An end that
 * comes with the last words (why we are refused, say) is told by the next receive. */
static int decrypt(struct channel *c, const void *p, size_t n, struct err *e)
{
    char plain[16384];
    struct err second;
    long got = 0;
    int rc = c->api->feed(c->tls, p, n, e), heard = 0;

    while (!rc && (got = c->api->read(c->tls, plain, sizeof plain, e)) != 0) {
        if (heard && got == ERR_UNREACHABLE)
            break;
        heard |= got > 0;
        rc = got < 0 ? (int)got : frame_feed(&c->in, plain, (size_t)got, e);
    }
    if (pull(c, &second) && !rc) {
        *e = second;
        rc = e->code;
    }
    if (rc)
        channel_transmit(c, &second);
    return rc ? rc : channel_transmit(c, e);
}

int channel_receive(struct channel *c, struct err *e)
{
    char buf[16384];
    ssize_t got = recv(c->fd, buf, sizeof buf, MSG_DONTWAIT);

    if (got == 0)
        return err_set(e, ERR_UNREACHABLE, "the daemon closed the connection");
    if (got < 0)
        return errno == EAGAIN || errno == EINTR
                   ? 0
                   : err_errno(e, ERR_UNREACHABLE, errno, "receive");
    return c->tls ? decrypt(c, buf, (size_t)got, e)
                  : frame_feed(&c->in, buf, (size_t)got, e);
}

int channel_exchange(struct channel *c, double until, struct err *e)
{
    struct pollfd p = {c->fd, POLLIN, 0};
    double left = fmin(until - clock_now(), poll_most);
    int rc;

    if (left <= 0)
        return err_set(e, ERR_UNREACHABLE, "the daemon does not answer");
    if (channel_unsent(c))
        p.events |= POLLOUT;
    if (poll(&p, 1, (int)(left * 1000) + 1) <= 0)
        return 0;
    rc = channel_transmit(c, e);
    return !rc && p.revents & (POLLIN | POLLHUP | POLLERR) ? channel_receive(c, e) : rc;
}

int channel_await(struct channel *c, double within, const uint8_t **body, size_t *len,
                  struct err *e)
{
    double until = clock_now() + within;
    int rc;

    while (!(rc = frame_next(&c->in, body, len, e))) {
        rc = channel_exchange(c, until, e);
        if (rc)
            return rc;
    }
    return rc < 0 ? rc : 0;
}

static int open_tls(struct channel *c, const struct channel_target *to, double within,
                    struct err *e)
{
    struct tls_files files = {to->authority, to->certificate, to->key};
    double until = clock_now() + within;
    struct address a;
    int rc = address_parse(to->address, &a, e);

    if (!rc)
        rc = tls_load(&c->api, e);
    if (!rc)
        rc = c->api->context_open(&c->context, &files, 0, e);
    if (!rc)
        rc = c->api->open(&c->tls, c->context, a.host, e);
    if (!rc)
        rc = decrypt(c, "", 0, e); /* says hello */
    while (!rc && !c->api->established(c->tls))
        rc = channel_exchange(c, until, e);
    return rc;
}

int channel_open(struct channel *c, const struct channel_target *to, double within,
                 struct err *e)
{
    int rc = transport_connect(to->address, &c->fd, e);

    frame_reader_init(&c->in, FRAME_CAP);
    if (!rc && !str_starts(to->address, "unix:") && (rc = open_tls(c, to, within, e)))
        err_wrap(e, "connect to %s", to->address);
    if (rc)
        channel_close(c);
    return rc;
}

void channel_limit_silence(struct channel *c, unsigned ms)
{
    if (c->tls)
        setsockopt(c->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof ms);
}

int channel_error(const Hone__V1__Error *error, struct err *e)
{
    static const int code[] = {ERR_FAILED,  ERR_FAILED,      ERR_CONFIG,
                               ERR_STOPPED, ERR_UNREACHABLE, ERR_DENIED};

    err_set(e,
            error->status < sizeof code / sizeof *code ? code[error->status] : ERR_FAILED,
            "%s", error->message);
    if (error->field)
        err_field(e, error->field);
    return error->mend ? err_mend(e, "%s", error->mend) : e->code;
}

int channel_greet(struct channel *c, const char *program, const char *token, double within,
                  struct err *e)
{
    Hone__V1__Hello h = HONE__V1__HELLO__INIT;
    const Hone__V1__Welcome *w;
    ProtobufCMessage *m;
    const uint8_t *body;
    size_t n;
    int rc;

    h.magic = PROTO_MAGIC;
    h.version = PROTO_VERSION;
    h.role = HONE__V1__ROLE__CLIENT;
    h.program = (char *)(uintptr_t)program;
    h.token = (char *)(uintptr_t)token;
    rc = channel_put_message(c, &h.base, e);
    if (!rc)
        rc = channel_await(c, within, &body, &n, e);
    if (!rc)
        rc = message_unpack(&hone__v1__welcome__descriptor, body, n, &m, e);
    if (rc)
        return rc;
    w = (Hone__V1__Welcome *)m;
    rc = w->refused ? channel_error(w->refused, e) : 0;
    message_free(m);
    return rc;
}

void channel_close(struct channel *c)
{
    struct err ignored;

    if (c->tls) {
        c->api->shutdown(c->tls);
        if (!pull(c, &ignored))
            channel_transmit(c, &ignored);
        c->api->close(c->tls);
    }
    if (c->api)
        c->api->context_close(c->context);
    if (c->fd >= 0)
        close(c->fd);
    frame_reader_fini(&c->in);
    str_fini(&c->out);
    memset(c, 0, sizeof *c);
    c->fd = -1;
}
