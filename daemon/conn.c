/* Connections: see conn.h. */
#include "daemon/conn.h"

#include <math.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "daemon/admit.h"
#include "daemon/auth.h"
#include "daemon/daemon.h"
#include "daemon/rpc.h"
#include "daemon/tail.h"
#include "daemon/uplink.h"
#include "daemon/watch.h"
#include "proto/message.h"
#include "wire.pb-c.h"

enum {
    CHECK_EVERY = 5,        /* seconds */
    COMPLAINTS_LOGGED = 10, /* a second */
};

static struct conn *find(struct daemon *d, uint64_t id)
{
    struct conn *c = d->conns;

    while (c && c->id != id)
        c = c->next;
    return c;
}

static void forget(struct daemon *d, struct conn *c)
{
    struct conn **p = &d->conns;

    while (*p != c)
        p = &(*p)->next;
    *p = c->next;
    watch_closed(d, c->id);
    tail_closed(d, c->id);
    admit_closed(d, c->id);
    uplink_closed(d, c);
    frame_reader_fini(&c->in);
    mem_free(c);
}

void conn_opened(struct daemon *d, uint64_t id)
{
    struct conn *c = mem_alloc(sizeof *c);

    if (!c) {
        d->io->ops->close(d->io, id);
        return;
    }
    c->id = id;
    frame_reader_init(&c->in, FRAME_CAP_HELLO);
    c->next = d->conns;
    d->conns = c;
}

void conn_closed(struct daemon *d, uint64_t id)
{
    struct conn *c = find(d, id);

    if (c)
        forget(d, c);
}

void conn_free_all(struct daemon *d)
{
    while (d->conns)
        forget(d, d->conns);
}

void conn_send(struct daemon *d, uint64_t id, const ProtobufCMessage *m)
{
    struct str out = {0};
    struct err e;

    if (message_frame(m, &out, &e)) {
        log_error("%s: %s", m->descriptor->name, e.msg);
        d->io->ops->close(d->io, id);
    } else {
        d->io->ops->send(d->io, id, out.s, out.len);
    }
    str_fini(&out);
}

static void welcome(struct daemon *d, struct conn *c, uint64_t received,
                    const struct err *refused)
{
    Hone__V1__Welcome w = HONE__V1__WELCOME__INIT;
    Hone__V1__Error error = HONE__V1__ERROR__INIT;

    w.version = PROTO_VERSION;
    w.program = (char *)(uintptr_t) "honed " HONE_VERSION;
    w.has_received = c->role == CONN_WORKER;
    w.received = received;
    if (refused) {
        message_error(refused, &error);
        w.refused = &error;
        c->refused = 1;
    }
    conn_send(d, c->id, &w.base);
}

/* Whom the connection belongs to: over a Unix socket ourselves, else whoever has the
 * credential. */
static int identify(struct daemon *d, struct conn *c, const Hone__V1__Hello *h,
                    struct err *e)
{
    struct io_peer peer = {.local = 1};

    if (d->io->ops->peer && d->io->ops->peer(d->io, c->id, &peer))
        return err_set(e, ERR_UNREACHABLE, "the connection has gone");
    if (peer.local) {
        c->who = d->self;
        return 0;
    }
    if (!d->auth)
        return err_set(e, ERR_DENIED, "nobody may come over the network");
    if (auth_who(d->auth, h->token, peer.certificate, &c->who, e))
        return e->code;
    log_info("%s is %s (%s)", peer.name, c->who.user, access_role_name(c->who.role));
    d->io->ops->wake_at(d->io, d->io->ops->now(d->io)); /* asks conn_next() */
    return 0;
}

static int take_hello(struct daemon *d, struct conn *c, const uint8_t *p, size_t n,
                      struct err *e)
{
    ProtobufCMessage *m;
    Hone__V1__Hello *h;
    uint64_t received = 0;
    int rc = message_unpack(&hone__v1__hello__descriptor, p, n, &m, e);

    if (rc)
        return rc;
    h = (Hone__V1__Hello *)m;
    if (h->magic != PROTO_MAGIC)
        rc = err_set(e, ERR_CORRUPT, "this is not Hone's protocol");
    else if (h->version != PROTO_VERSION)
        rc = err_set(e, ERR_UNSUPPORTED, "%.100s speaks version %u, honed version %d",
                     h->program ? h->program : "the other end", h->version, PROTO_VERSION);
    else if (h->role == HONE__V1__ROLE__WORKER)
        rc = uplink_hello(d, c, h, &received, e);
    else if (!(rc = identify(d, c, h, e)))
        c->role = CONN_CLIENT;
    welcome(d, c, received, rc ? e : NULL);
    if (!rc) {
        c->in.cap = FRAME_CAP;
        if (d->io->ops->settle)
            d->io->ops->settle(d->io, c->id);
        if (c->role == CONN_WORKER)
            uplink_welcomed(d, c);
    }
    message_free(m);
    return 0;
}

static int take_call(struct daemon *d, struct conn *c, const uint8_t *p, size_t n,
                     struct err *e)
{
    ProtobufCMessage *m;
    int rc = message_unpack(&hone__v1__call__descriptor, p, n, &m, e);

    if (rc)
        return rc;
    rpc_dispatch(d, c->id, &c->who, (Hone__V1__Call *)m);
    message_free(m);
    return 0;
}

/* A connection was closed for what it said. Whoever floods us does not flood the log. */
static void say_why(struct daemon *d, const struct conn *c, const struct err *e)
{
    double now = d->io->ops->now(d->io);
    struct io_peer peer = {0};

    if (now - d->complaints_since > 1) {
        d->complaints_since = now;
        d->complaints = 0;
    }
    if (d->complaints++ >= COMPLAINTS_LOGGED)
        return;
    if (d->io->ops->peer)
        d->io->ops->peer(d->io, c->id, &peer);
    log_warn("connection%s%s closed: %s", *peer.name ? " from " : "", peer.name, e->msg);
}

void conn_received(struct daemon *d, uint64_t id, const void *p, size_t n)
{
    struct conn *c = find(d, id);
    const uint8_t *body;
    size_t len;
    struct err e, second;
    int rc;

    if (!c)
        return;
    rc = frame_feed(&c->in, p, n, &e);
    while (!rc && !c->refused && (rc = frame_next(&c->in, &body, &len, &e)) > 0) {
        if (c->role == CONN_UNKNOWN)
            rc = take_hello(d, c, body, len, &e);
        else if (c->role == CONN_CLIENT)
            rc = take_call(d, c, body, len, &e);
        else
            rc = uplink_frame(d, c, body, len, &e);
    }
    if (c->role == CONN_WORKER && uplink_settle(d, c, rc < 0 ? &second : &e))
        rc = rc < 0 ? rc : e.code;
    if (rc < 0)
        say_why(d, c, &e);
    if (rc < 0 || c->refused) {
        d->io->ops->close(d->io, id);
        forget(d, c);
    }
}

double conn_next(const struct daemon *d)
{
    for (const struct conn *c = d->conns; c; c = c->next)
        if (c->who.credential[0])
            return d->conns_checked + CHECK_EVERY;
    return INFINITY;
}

void conn_tick(struct daemon *d)
{
    double now = d->io->ops->now(d->io);
    struct conn *next;
    struct err e;

    if (!d->auth || now < d->conns_checked + CHECK_EVERY)
        return;
    d->conns_checked = now;
    for (struct conn *c = d->conns; c; c = next) {
        next = c->next;
        if (!auth_still(d->auth, &c->who, &e))
            continue;
        log_info("connection closed: %s", e.msg);
        d->io->ops->close(d->io, c->id);
        forget(d, c);
    }
}
