/* Transports: addresses, and sockets behind them.
 *
 *     unix:PATH     a Unix socket; the path has at most 107 bytes
 *
 * Every descriptor is close-on-exec. A peer on a Unix socket is allowed when the kernel
 * says that it runs under our user (SO_PEERCRED). Addresses of other kinds are
 * ERR_UNSUPPORTED. */
#ifndef PROTO_TRANSPORT_H
#define PROTO_TRANSPORT_H

#include <stddef.h>

#include "base/err.h"

enum { TRANSPORT_PATH_MAX = 107 };

/* A listening socket, mode 0600; a socket file in the way is replaced. */
int transport_listen(const char *address, int *fd, struct err *e);
/* ERR_UNREACHABLE when nobody listens there, ERR_DENIED when somebody else does. */
int transport_connect(const char *address, int *fd, struct err *e);
int transport_peer_allowed(int fd, struct err *e);
void transport_unlink(const char *address); /* remove the socket file, if any */

/* Make a 0700 folder for a private socket under XDG_RUNTIME_DIR, or else TMPDIR, or else
 * /tmp: the first in which the socket's path fits. */
int transport_private_dir(char *out, size_t n, struct err *e);

#endif
