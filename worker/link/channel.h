/* One connection of the uplink: frames over a Unix socket, or over TCP inside TLS 1.3.
 *
 * It belongs to the uplink's thread. The socket does not block: what does not go out at
 * once waits in `out` (as bytes for the wire), and whoever waits says until when. Over TCP
 * the daemon's certificate is checked against the pinned authority and the host that was
 * dialled. Fails with ERR_UNREACHABLE where the other end is gone or silent, ERR_DENIED
 * where it is not the one we trust, ERR_CONFIG for files. */
#ifndef WORKER_LINK_CHANNEL_H
#define WORKER_LINK_CHANNEL_H

#include <protobuf-c/protobuf-c.h>

#include "base/str.h"
#include "proto/frame.h"
#include "proto/tls.h"

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

/* c: closed. TCP and TLS are given `within` seconds after the connection stands. */
int channel_open(struct channel *c, const struct channel_target *to, double within,
                 struct err *e);
void channel_close(struct channel *c); /* total */

int channel_put(struct channel *c, const void *frames, size_t n, struct err *e);
int channel_put_message(struct channel *c, const ProtobufCMessage *m, struct err *e);
size_t channel_unsent(const struct channel *c);
int channel_transmit(struct channel *c, struct err *e); /* as much as the socket takes */
int channel_receive(struct channel *c, struct err *e);  /* what has arrived */

/* Wait for a frame: *body is borrowed until the next call. */
int channel_await(struct channel *c, double within, const uint8_t **body, size_t *len,
                  struct err *e);

#endif
