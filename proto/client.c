/* A client of the control service: see client.h. */
#include "proto/client.h"

#include <math.h>

#include "base/mem.h"
#include "proto/channel.h"
#include "proto/message.h"

/* Seconds: for TLS, and for the Welcome. */
static const double open_within = 30.0;

struct client {
    struct channel c;
    uint32_t next_id;
};

int client_open_to(struct client **out, const struct client_target *to, const char *program,
                   struct err *e)
{
    struct channel_target where = {to->address, to->authority, to->certificate, to->key};
    struct client *c = mem_alloc(sizeof *c);
    int rc;

    *out = NULL;
    if (!c)
        return err_set(e, ERR_NOMEM, "connect to %s: out of memory", to->address);
    c->c.fd = -1;
    c->next_id = 1;
    rc = channel_open(&c->c, &where, open_within, e);
    if (!rc && (rc = channel_greet(&c->c, program, to->token, open_within, e)))
        err_wrap(e, "connect to %s", to->address);
    if (rc)
        client_close(c);
    else
        *out = c;
    return rc;
}

int client_open(struct client **out, const char *address, const char *program,
                struct err *e)
{
    struct client_target to = {.address = address};

    return client_open_to(out, &to, program, e);
}

void client_close(struct client *c)
{
    if (!c)
        return;
    channel_close(&c->c);
    mem_free(c);
}

int client_fd(const struct client *c)
{
    return c->c.fd;
}

/* All of it goes out: who waits for the answer waits for that alone. */
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
        rc = channel_put_message(&c->c, &call.base, e);
    if (!rc)
        rc = channel_transmit(&c->c, e);
    while (!rc && channel_unsent(&c->c))
        rc = channel_exchange(&c->c, INFINITY, e);
    str_fini(&body);
    return rc;
}

int client_fill(struct client *c, struct err *e)
{
    return channel_exchange(&c->c, INFINITY, e);
}

int client_next(struct client *c, Hone__V1__Reply **reply, struct err *e)
{
    ProtobufCMessage *m;
    const uint8_t *body;
    size_t len;
    int rc = frame_next(&c->c.in, &body, &len, e);

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
        return channel_error(reply->error, e);
    return message_unpack(d, reply->body.data, reply->body.len, out, e);
}
