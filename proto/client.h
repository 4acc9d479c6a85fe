/* A client of the control service: blocking calls over one connection.
 *
 * client_send() asks; replies come in the order the daemon gives them and are matched by
 * id. client_fill() waits for bytes, client_next() hands out what has arrived, so that a
 * caller may poll() client_fd() beside other things. ERR_UNREACHABLE: the daemon has gone;
 * ERR_DENIED: it does not let us in, or is not the one we trust.
 *
 * Over TCP the connection is inside TLS. A token is kept out of messages and logs. */
#ifndef PROTO_CLIENT_H
#define PROTO_CLIENT_H

#include <protobuf-c/protobuf-c.h>
#include <stdint.h>

#include "base/err.h"
#include "wire.pb-c.h"

struct client;

/* Where a daemon is, and who we are there. NULL: none; over a Unix socket the address is
 * enough. */
struct client_target {
    const char *address;           /* unix:PATH, tcp:HOST:PORT or HOST:PORT */
    const char *authority;         /* certificate file; NULL: those of the system */
    const char *certificate, *key; /* files, instead of a token */
    const char *token;
};

int client_open_to(struct client **out, const struct client_target *to, const char *program,
                   struct err *e);
int client_open(struct client **out, const char *address, const char *program,
                struct err *e);
void client_close(struct client *c);
int client_fd(const struct client *c);

int client_send(struct client *c, const char *method, const ProtobufCMessage *request,
                uint32_t *id, struct err *e);
int client_fill(struct client *c, struct err *e);
/* 1: *reply, to be freed with message_free(); 0: nothing complete has arrived. */
int client_next(struct client *c, Hone__V1__Reply **reply, struct err *e);

/* The body of a reply as a message, or the error it carries. */
int client_body(const Hone__V1__Reply *reply, const ProtobufCMessageDescriptor *d,
                ProtobufCMessage **out, struct err *e);

#endif
