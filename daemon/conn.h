/* Connections: from bytes to calls (clients) and reports (workers).
 *
 * The first frame must be a Hello of our protocol's version. A worker must bring its job's
 * token. Whatever is malformed ends the connection and nothing else. */
#ifndef DAEMON_CONN_H
#define DAEMON_CONN_H

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/access.h"
#include "proto/frame.h"

struct daemon;
struct job;

enum conn_role { CONN_UNKNOWN, CONN_CLIENT, CONN_WORKER };

struct conn {
    uint64_t id;
    enum conn_role role;
    struct access who; /* clients */
    struct frame_reader in;
    uint64_t job; /* CONN_WORKER */
    size_t stage, rank;
    int told;    /* something that wants an acknowledgement */
    int refused; /* told why, and to be closed */
    struct conn *next;
};

void conn_opened(struct daemon *d, uint64_t id);
void conn_received(struct daemon *d, uint64_t id, const void *p, size_t n);
void conn_closed(struct daemon *d, uint64_t id);
void conn_free_all(struct daemon *d);

/* Connections whose credential was revoked are closed within some seconds. */
void conn_tick(struct daemon *d);
double conn_next(const struct daemon *d); /* when conn_tick() wants to be called */

/* One message as one frame; a message that cannot be packed ends the connection. */
void conn_send(struct daemon *d, uint64_t id, const ProtobufCMessage *m);

#endif
