/* One connection to a daemon: frames over a Unix socket, or over TCP inside TLS 1.3. The
 * uplink of workers and the client of the control service are made of it.
 *
 * It belongs to one thread. Nothing blocks: what does not go out at once waits in `out` (as
 * bytes for the wire), and whoever waits says until when. Over TCP the daemon's certificate
 * is checked against the pinned authority and the host that was dialled. Fails with
 * ERR_UNREACHABLE where the other end is gone or silent, ERR_DENIED where it is not the one
 * we trust or does not let us in, ERR_CONFIG for files. */
#ifndef PROTO_CHANNEL_H
#define PROTO_CHANNEL_H

#include <protobuf-c/protobuf-c.h>

#include "base/str.h"
#include "proto/frame.h"
#include "proto/tls.h"
#include "wire.pb-c.h"

/* Where the daemon is, and what proves it; files are for TCP alone. */
struct channel_target {
    const char *address;           /* unix:PATH, tcp:HOST:PORT or HOST:PORT */
    const char *authority;         /* certificate file; NULL: those of the system */
    const char *certificate, *key; /* our own, where that is the credential; or NULL */
};

struct channel {
    int fd; /* -1: closed */
    const struct tls_api *api;
    struct tls_context *context;
    struct tls *tls; /* NULL: a Unix socket */
    struct frame_reader in;
    struct str out;
    size_t out_start;
};

/* c: closed. TLS is given `within` seconds after the connection stands. */
int channel_open(struct channel *c, const struct channel_target *to, double within,
                 struct err *e);
void channel_close(struct channel *c); /* total */
/* Over TCP: what the other end does not confirm within `ms` is lost. A cut link says
 * nothing. */
void channel_limit_silence(struct channel *c, unsigned ms);

/* Say who we are, as a client, and wait for the Welcome. token NULL: the certificate or the
 * socket say it. */
int channel_greet(struct channel *c, const char *program, const char *token, double within,
                  struct err *e);
/* What the other end says of a failure, with the code that has its exit status. */
int channel_error(const Hone__V1__Error *error, struct err *e);

int channel_put(struct channel *c, const void *frames, size_t n, struct err *e);
int channel_put_message(struct channel *c, const ProtobufCMessage *m, struct err *e);
size_t channel_unsent(const struct channel *c);
int channel_transmit(struct channel *c, struct err *e); /* as much as the socket takes */
int channel_receive(struct channel *c, struct err *e);  /* what has arrived */

/* Wait until something has come or gone: for good where `until` is INFINITY. */
int channel_exchange(struct channel *c, double until, struct err *e);
/* Wait for a frame: *body is borrowed until the next call. */
int channel_await(struct channel *c, double within, const uint8_t **body, size_t *len,
                  struct err *e);

#endif
