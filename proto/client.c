/* A client of the control service: see client.h. */
#include "proto/client.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"
#include "proto/frame.h"
#include "proto/message.h"
#include "proto/transport.h"

struct client {
    int fd;
    struct frame_reader in;
    uint32_t next_id;
};

static int send_all(struct client *c, const struct str *out, struct err *e)
{
    size_t sent = 0;

    while (sent < out->len) {
        ssize_t n = send(c->fd, out->s + sent, out->len - sent, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_errno(e, ERR_UNREACHABLE, errno, "send to honed");
        sent += (size_t)n;
    }
    return 0;
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

int client_fill(struct client *c, struct err *e)
{
    char buf[65536];
    ssize_t n = recv(c->fd, buf, sizeof buf, 0);

    if (n == 0)
        return err_set(e, ERR_UNREACHABLE, "honed closed the connection");
    if (n < 0)
        return errno == EINTR ? 0
                              : err_errno(e, ERR_UNREACHABLE, errno, "receive from honed");
    return frame_feed(&c->in, buf, (size_t)n, e);
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

static int greet(struct client *c, const char *program, struct err *e)
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

int client_open(struct client **out, const char *address, const char *program,
                struct err *e)
{
    struct client *c = mem_alloc(sizeof *c);
    int rc;

    *out = NULL;
    if (!c)
        return err_set(e, ERR_NOMEM, "connect to %s: out of memory", address);
    c->next_id = 1;
    frame_reader_init(&c->in, FRAME_CAP);
    rc = transport_connect(address, &c->fd, e);
    if (!rc && (rc = greet(c, program, e)))
        err_wrap(e, "connect to %s", address);
    if (rc) {
        client_close(c);
        return rc;
    }
    *out = c;
    return 0;
}

void client_close(struct client *c)
{
    if (!c)
        return;
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
