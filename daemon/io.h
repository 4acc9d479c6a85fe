/* The outside world as a table: everything the daemon asks of its surroundings, and
 * everything it hears from them. io_uv.c is the real one (libuv); tests put their own in
 * its place and decide what happens when.
 *
 * Connections and processes have ids from 1 upwards, never used twice; an id that has gone
 * is ignored, so that nobody has to ask whether it is still there. Nothing here calls back
 * from within a call. */
#ifndef DAEMON_IO_H
#define DAEMON_IO_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "daemon/cores.h"
#include "proto/address.h"
#include "proto/tls.h"

struct certs;
struct io;

struct io_command {
    const char *const *argv, *const *env; /* env NULL: ours */
    const char *log; /* stdout and stderr are appended there; NULL: they are captured */
    int keep_fd;     /* inherited (as descriptor 3), -1: none */
    const struct cores *cores; /* to run on; NULL: as we do */
    const struct cores *gpus;  /* the environment names them */
    /* A check of a job: forked by a process that is kept (daemon/checkers.h), when its turn
     * comes; captured. So many bytes and seconds are its own, 0: any. */
    int check;
    uint64_t memory;
    double seconds;
};

struct io_exit {
    int status, signal;    /* signal 0: it ended by itself */
    const char *out, *err; /* captured text, NUL-terminated, at most IO_CAPTURE_MAX bytes */
    int late;              /* a check that was killed because it took too long */
};

/* Who is at the other end of a connection, as far as the transport knows. */
struct io_peer {
    int local;            /* a Unix socket, and the kernel vouches for our own user */
    char certificate[65]; /* fingerprint of its certificate, "": it brought none */
    char name[80];        /* "127.0.0.1:51234", for logs; "" where local */
};

/* An HTTP request, whole. Texts are NULL where the header (or argument) is absent; several
 * headers of one name are refused before this. */
enum { IO_ARGUMENTS_MAX = 16 };
struct io_request {
    struct io_peer peer;
    int tls;
    const char *method, *path;
    const char *host, *origin, *fetch_site, *content_type, *authorization, *last_event_id;
    const char *name[IO_ARGUMENTS_MAX], *value[IO_ARGUMENTS_MAX]; /* of the query */
    int n_arguments; /* above IO_ARGUMENTS_MAX: too many */
    const char *body;
    size_t n;
};

/* Its answer. A stream's body follows with send() and ends with close(), under the
 * request's id. */
struct io_response {
    int status;
    const char *content_type, *allow;
    int ask_token; /* WWW-Authenticate */
    const void *body;
    size_t n;
    int stream;
};

enum { IO_CAPTURE_MAX = 4 << 20 };

struct io_events {
    void (*connected)(void *ctx, uint64_t conn);
    void (*received)(void *ctx, uint64_t conn, const void *p, size_t n);
    void (*closed)(void *ctx, uint64_t conn);  /* by either end, once */
    void (*drained)(void *ctx, uint64_t conn); /* much was unsent, now little is */
    void (*exited)(void *ctx, uint64_t child, const struct io_exit *how);
    void (*wake)(void *ctx);               /* the time asked for has come */
    void (*ending)(void *ctx, int signal); /* SIGTERM, SIGINT; 0: the owner has gone */
    /* Over HTTP; to be answered with respond(). closed() says that the answer has gone
     * out, or the client. */
    void (*requested)(void *ctx, uint64_t request, const struct io_request *r);
};

struct io_ops {
    double (*now)(struct io *io); /* monotonic seconds */
    void (*send)(struct io *io, uint64_t conn, const void *p, size_t n); /* copies */
    size_t (*unsent)(struct io *io, uint64_t conn); /* bytes that wait for the other end */
    void (*close)(struct io *io, uint64_t conn);    /* after what was sent has gone out */
    int (*spawn)(struct io *io, const struct io_command *c, uint64_t *child, struct err *e);
    /* whole: what it started gets the signal too. */
    void (*kill)(struct io *io, uint64_t child, int signal, int whole);
    void (*wake_at)(struct io *io, double when); /* INFINITY: never */
    void (*stop)(struct io *io);                 /* let io_uv_run() return */
    /* 0 and *peer; NULL: every peer is local. */
    int (*peer)(struct io *io, uint64_t conn, struct io_peer *peer);
    /* It has said who it is: from now on it may be silent. NULL: it may be anyway. */
    void (*settle)(struct io *io, uint64_t conn);
    /* A process of an earlier daemon: the one that leads its session and has `mark`
     * (NAME=VALUE) in its environment. *child: it is ours from now on, its end is told as
     * that of any other (status: a file with its exit status; none: it was killed); 0: it
     * has gone, what else had the mark was killed. *kept: its descriptor 3, -1: none. NULL:
     * no process outlives the daemon. */
    int (*adopt)(struct io *io, const char *mark, const char *status, uint64_t *child,
                 int *kept, struct err *e);
    void (*respond)(struct io *io, uint64_t request, const struct io_response *r);
    /* What a worker that has ended left behind: every process with `mark` is killed, and
     * gone on return. NULL: nothing can be left. */
    void (*sweep)(struct io *io, const char *mark);
};

struct io {
    const struct io_ops *ops;
    const struct io_events *events;
    void *ctx;
};

/* The real one. listen_fd: a listening socket, taken over; owner_fd: its end of file means
 * that the owner has gone, -1: there is none. */
int io_uv_open(struct io **out, int listen_fd, int owner_fd, struct err *e);
/* More listening sockets (daemon/net.h). TCP needs certificates, which are borrowed. */
int io_uv_listen(struct io *io, int fd, enum address_kind kind, struct err *e);
void io_uv_use_tls(struct io *io, struct certs *certs);
void io_uv_run(struct io *io);
void io_uv_close(struct io *io);

#endif
