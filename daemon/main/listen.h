/* Where honed listens: always on a Unix socket (workers dial it), and on what --listen
 * says. TCP is always inside TLS and needs a certificate (honed cert init); what can be
 * reached from other machines needs somebody who may come as well (honed token add):
 * otherwise honed does not start, and says how to mend it. */
#ifndef DAEMON_MAIN_LISTEN_H
#define DAEMON_MAIN_LISTEN_H

#include "base/args.h"
#include "base/err.h"
#include "base/file.h"
#include "daemon/auth.h"
#include "daemon/certs.h"
#include "daemon/io.h"
#include "proto/transport.h"

enum { LISTEN_SOCKETS = 24 };

struct listening {
    char address[FILE_PATH_MAX]; /* of the Unix socket */
    int unix_fd;
    struct {
        int fd;
        enum address_kind kind;
    } more[LISTEN_SOCKETS];
    size_t n_more;
    struct certs certs; /* not open: nothing is inside TLS */
};

/* Open all sockets; asks `auth` who may come. */
int listen_open(struct listening *l, const char *state, const struct arg_list *addresses,
                struct auth *auth, struct err *e);
/* Give those beside the Unix socket to the loop, and say where they are. */
int listen_start(struct listening *l, struct io *io, struct err *e);
void listen_close(struct listening *l); /* after the loop has been closed */

#endif
