/* A client of the control service: see client.h. */
#include "proto/client.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"
#include "proto/frame.h"
#include "proto/message.h"
#include "proto/tls.h"
#include "proto/transport.h"

struct client {
    int fd;
    const struct tls_api *api;
    struct tls_context *context;
    struct tls *tls; /* NULL: a Unix socket */
    struct frame_reader in;
    uint32_t next_id;
};

static int send_bytes(struct client *c, const char *p, size_t len, struct err *e)
{
    size_t sent = 0;

    while (sent < len) {
        ssize_t n = send(c->fd, p + sent, len - sent, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_errno(e, ERR_UNREACHABLE, errno, "send to honed");
        sent += (size_t)n;
    }
    return 0;
}

/* Send what TLS has for the wire. */
static int flush(struct client *c, struct err *e)
{
    char buf[16384];
    size_t n;
    int rc = 0;

    while (!rc && (n = c->api->pull(c->tls, buf, sizeof buf)) > 0)
        rc = send_bytes(c, buf, n, e);
    return rc;
}

static int send_all(struct client *c, const struct str *out, struct err *e)
{
    int rc;

    if (!c->tls)
        return send_bytes(c, out->s, out->len, e);
    rc = c->api->write(c->tls, out->s, out->len, e);
    return rc ? rc : flush(c, e);
}

static int send_message(struct client *c, const ProtobufCMessage *m, struct err *e)
{
    struct str out = {0};
    int rc = message_frame(m, &out, e);

    if (!rc)
        rc = send_all(c, &out, e);
    str_fini(&out);
    return rc;
}

/* Bytes from the wire: n > 0, or an error. */
static long receive(struct client *c, char *buf, size_t size, struct err *e)
{
    ssize_t n;

    do
        n = recv(c->fd, buf, size, 0);
    while (n < 0 && errno == EINTR);
    if (n == 0)
        return err_set(e, ERR_UNREACHABLE, "honed closed the connection");
    if (n < 0)
        return err_errno(e, ERR_UNREACHABLE, errno, "receive from honed");
    return n;
}

/* What TLS makes of the bytes; its own answers go out also when it fails (an alert). An end
 * that comes with the last words is told after them: by the next receive(). */
static int decrypt(struct client *c, const char *p, size_t len, struct err *e)
{
    char buf[16384];
    struct err ignored;
    long n;
    int rc = c->api->feed(c->tls, p, len, e), heard = 0;

    while (!rc && (n = c->api->read(c->tls, buf, sizeof buf, e)) != 0) {
        if (heard && n == ERR_UNREACHABLE)
            break;
        heard |= n > 0;
        rc = n < 0 ? (int)n : frame_feed(&c->in, buf, (size_t)n, e);
    }
    if (rc)
        flush(c, &ignored);
    else
        rc = flush(c, e);
    return rc;
}

int client_fill(struct client *c, struct err *e)
{
    char buf[65536];
    long n = receive(c, buf, sizeof buf, e);

    if (n < 0)
        return (int)n;
    return c->tls ? decrypt(c, buf, (size_t)n, e) : frame_feed(&c->in, buf, (size_t)n, e);
}

static int open_tls(struct client *c, const struct client_target *to, struct err *e)
{
    struct tls_files files = {to->authority, to->certificate, to->key};
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
        rc = client_fill(c, e);
    return rc;
}

static int error_of(const Hone__V1__Error *error, struct err *e)
{
    static const int code[] = {ERR_FAILED,  ERR_FAILED,      ERR_CONFIG,
                               ERR_STOPPED, ERR_UNREACHABLE, ERR_DENIED};

    err_set(e,
            error->status < sizeof code / sizeof *code ? code[error->status] : ERR_FAILED,
            "%s", error->message);
    return error->mend ? err_mend(e, "%s", error->mend) : e->code;
}

static int greet(struct client *c, const char *program, const char *token, struct err *e)
{
    Hone__V1__Hello h = HONE__V1__HELLO__INIT;
    Hone__V1__Welcome *w;
    ProtobufCMessage *m;
    const uint8_t *body;
    size_t len;
    int rc;

    h.magic = PROTO_MAGIC;
    h.version = PROTO_VERSION;
    h.role = HONE__V1__ROLE__CLIENT;
    h.program = (char *)(uintptr_t)program;
    h.token = (char *)(uintptr_t)token;
    rc = send_message(c, &h.base, e);
    while (!rc && !(rc = frame_next(&c->in, &body, &len, e)))
        rc = client_fill(c, e);
    if (rc < 0)
        return rc;
    rc = message_unpack(&hone__v1__welcome__descriptor, body, len, &m, e);
    if (rc)
        return rc;
    w = (Hone__V1__Welcome *)m;
    rc = w->refused ? error_of(w->refused, e) : 0;
    message_free(m);
    return rc;
}

int client_open_to(struct client **out, const struct client_target *to, const char *program,
                   struct err *e)
{
    struct client *c = mem_alloc(sizeof *c);
    int rc;

    *out = NULL;
    if (!c)
        return err_set(e, ERR_NOMEM, "connect to %s: out of memory", to->address);
    c->next_id = 1;
    frame_reader_init(&c->in, FRAME_CAP);
    rc = transport_connect(to->address, &c->fd, e);
    if (!rc) {
        if (!str_starts(to->address, "unix:"))
            rc = open_tls(c, to, e);
        if (!rc)
            rc = greet(c, program, to->token, e);
        if (rc)
            err_wrap(e, "connect to %s", to->address);
    }
    if (rc) {
        client_close(c);
        return rc;
    }
    *out = c;
    return 0;
}

int client_open(struct client **out, const char *address, const char *program,
                struct err *e)
{
    struct client_target to = {.address = address};

    return client_open_to(out, &to, program, e);
}

void client_close(struct client *c)
{
    struct err ignored;

    if (!c)
        return;
    if (c->tls) {
        c->api->shutdown(c->tls);
        flush(c, &ignored);
        c->api->close(c->tls);
    }
    if (c->api)
        c->api->context_close(c->context);
    if (c->fd >= 0)
        close(c->fd);
    frame_reader_fini(&c->in);
    mem_free(c);
}

int client_fd(const struct client *c)
{
    return c->fd;
}

int client_send(struct client *c, const char *method, const ProtobufCMessage *request,
                uint32_t *id, struct err *e)
{
    Hone__V1__Call call = HONE__V1__CALL__INIT;
    struct str body = {0};
    int rc = message_pack(request, &body, e);

    *id = c->next_id++;
    call.id = *id;
    call.method = (char *)(uintptr_t)method;
    call.has_request = 1;
    call.request.data = (uint8_t *)body.s;
    call.request.len = body.len;
    if (!rc)
        rc = send_message(c, &call.base, e);
    str_fini(&body);
    return rc;
}

int client_next(struct client *c, Hone__V1__Reply **reply, struct err *e)
{
    ProtobufCMessage *m;
    const uint8_t *body;
    size_t len;
    int rc = frame_next(&c->in, &body, &len, e);

    if (rc <= 0)
        return rc;
    rc = message_unpack(&hone__v1__reply__descriptor, body, len, &m, e);
    if (rc)
        return rc;
    *reply = (Hone__V1__Reply *)m;
    return 1;
}

int client_body(const Hone__V1__Reply *reply, const ProtobufCMessageDescriptor *d,
                ProtobufCMessage **out, struct err *e)
{
    *out = NULL;
    if (reply->error)
        return error_of(reply->error, e);
    return message_unpack(d, reply->body.data, reply->body.len, out, e);
}
