/* Transports: sockets behind addresses (proto/address.h).
 *
 * Every descriptor is close-on-exec. A peer on a Unix socket is allowed when the kernel
 * says that it runs under our user or as root (SO_PEERCRED). TCP sockets send small frames
 * at once and notice a peer whose host has gone within about a minute. */
#ifndef PROTO_TRANSPORT_H
#define PROTO_TRANSPORT_H

#include <stddef.h>

#include "base/err.h"
#include "proto/address.h"

enum { TRANSPORT_PATH_MAX = ADDRESS_PATH_MAX, TRANSPORT_LISTEN_MAX = 8 };

/* Listening sockets, non-blocking: one for a Unix socket (mode 0600; a socket file in the
 * way is replaced), one for each address that a host name has, up to `max`. Port 0 is one
 * that is free, the same for all. */
int transport_listen_all(const struct address *a, int *fd, size_t max, size_t *n,
                         struct err *e);
/* The same for a Unix address alone. */
int transport_listen(const char *address, int *fd, struct err *e);
/* A blocking socket. ERR_UNREACHABLE when nobody listens there (TCP: within 10 s),
 * ERR_DENIED when somebody else does. http: and https: are for listening alone. */
int transport_connect(const char *address, int *fd, struct err *e);
int transport_peer_allowed(int fd, struct err *e);
void transport_tune(int fd);                /* a TCP socket: no delay, keep-alive */
void transport_unlink(const char *address); /* remove the socket file, if any */

/* Are all addresses of the host on this machine's loopback? */
int transport_is_loopback(const struct address *a, int *yes, struct err *e);
/* "tcp:127.0.0.1:4663": what a listening socket is bound to. */
void transport_name(int fd, enum address_kind kind, char *out, size_t n);

/* Make a 0700 folder for a private socket under XDG_RUNTIME_DIR, or else TMPDIR, or else
 * /tmp: the first in which the socket's path fits. */
int transport_private_dir(char *out, size_t n, struct err *e);

#endif
