/* Talking to a daemon in a quiet world (tests/quiet_io.h), as its one connection. */
#ifndef TESTS_UNIT_DAEMON_QUIET_TALK_H
#define TESTS_UNIT_DAEMON_QUIET_TALK_H

#include "proto/frame.h"
#include "proto/message.h"
#include "tests/quiet_io.h"

static inline void quiet_say(struct quiet *w, const ProtobufCMessage *m)
{
    struct str out = {0};
    struct err e;

    assert_int_equal(message_frame(m, &out, &e), 0);
    w->io.events->received(w->io.ctx, QUIET_ID, out.s, out.len);
    str_fini(&out);
}

/* The first frame that was answered; what else was is forgotten. */
static inline ProtobufCMessage *quiet_answer(struct quiet *w,
                                             const ProtobufCMessageDescriptor *d)
{
    struct frame_reader in;
    ProtobufCMessage *m;
    const uint8_t *body;
    size_t n;
    struct err e;

    frame_reader_init(&in, FRAME_CAP);
    assert_int_equal(frame_feed(&in, str_get(&w->out), w->out.len, &e), 0);
    assert_int_equal(frame_next(&in, &body, &n, &e), 1);
    assert_int_equal(message_unpack(d, body, n, &m, &e), 0);
    frame_reader_fini(&in);
    str_clear(&w->out);
    return m;
}

/* The status of an error, 0: none; frees the message that has it. */
static inline int quiet_welcome(struct quiet *w)
{
    Hone__V1__Welcome *m =
        (Hone__V1__Welcome *)quiet_answer(w, &hone__v1__welcome__descriptor);
    int status = m->refused ? (int)m->refused->status : 0;

    message_free(&m->base);
    return status;
}

/* Hello as a client: the status of the refusal, 0: let in. */
static inline int quiet_enter(struct quiet *w, const char *token)
{
    Hone__V1__Hello h = HONE__V1__HELLO__INIT;

    w->io.events->connected(w->io.ctx, QUIET_ID);
    h.magic = PROTO_MAGIC;
    h.version = PROTO_VERSION;
    h.role = HONE__V1__ROLE__CLIENT;
    h.token = (char *)(uintptr_t)token;
    quiet_say(w, &h.base);
    return quiet_welcome(w);
}

#endif
