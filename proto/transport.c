/* Transports: see transport.h. connect(2) to a Unix socket does not wait for accept(2), so
 * that a client may connect as soon as the socket listens. */
#include "proto/transport.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/file.h"
#include "base/str.h"

enum { BACKLOG = 64 };

_Static_assert(sizeof(((struct sockaddr_un *)0)->sun_path) == TRANSPORT_PATH_MAX + 1,
               "Linux's sun_path");

static int parse(const char *address, struct sockaddr_un *sa, struct err *e)
{
    const char *path = address + strlen("unix:");
    size_t n;

    if (!str_starts(address, "unix:")) {
        err_set(e, ERR_UNSUPPORTED, "address %.200s: unknown kind", address);
        return err_mend(e, "unix:PATH");
    }
    n = strlen(path);
    if (n == 0 || n > TRANSPORT_PATH_MAX)
        return err_set(e, ERR_CONFIG, "address %.200s: the path has %zu bytes, 1 to %d fit",
                       address, n, TRANSPORT_PATH_MAX);
    memset(sa, 0, sizeof *sa);
    sa->sun_family = AF_UNIX;
    memcpy(sa->sun_path, path, n);
    return 0;
}

int transport_listen(const char *address, int *fd, struct err *e)
{
    struct sockaddr_un sa;
    struct stat st;
    mode_t mask;
    int rc = parse(address, &sa, e);

    *fd = -1;
    if (rc)
        return rc;
    if (!lstat(sa.sun_path, &st) && S_ISSOCK(st.st_mode))
        unlink(sa.sun_path);
    *fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (*fd < 0)
        return err_errno(e, ERR_IO, errno, "listen on %s", address);
    mask = umask(0177);
    rc = bind(*fd, (struct sockaddr *)&sa, sizeof sa) || listen(*fd, BACKLOG);
    umask(mask);
    if (rc) {
        rc = err_errno(e, ERR_IO, errno, "listen on %s", address);
        close(*fd);
        *fd = -1;
    }
    return rc;
}

int transport_peer_allowed(int fd, struct err *e)
{
    struct ucred peer;
    socklen_t n = sizeof peer;

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n))
        return err_errno(e, ERR_DENIED, errno, "cannot tell who is at the other end");
    if (peer.uid != geteuid())
        return err_set(e, ERR_DENIED, "the other end runs under user %ld, not %ld",
                       (long)peer.uid, (long)geteuid());
    return 0;
}

int transport_connect(const char *address, int *fd, struct err *e)
{
    struct sockaddr_un sa;
    int rc = parse(address, &sa, e);

    *fd = -1;
    if (rc)
        return rc;
    *fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (*fd < 0)
        return err_errno(e, ERR_UNREACHABLE, errno, "connect to %s", address);
    if (connect(*fd, (struct sockaddr *)&sa, sizeof sa))
        rc = err_errno(e, errno == EACCES ? ERR_DENIED : ERR_UNREACHABLE, errno,
                       "connect to %s", address);
    else if ((rc = transport_peer_allowed(*fd, e)))
        err_wrap(e, "connect to %s", address);
    if (rc) {
        close(*fd);
        *fd = -1;
    }
    return rc;
}

void transport_unlink(const char *address)
{
    if (str_starts(address, "unix:"))
        unlink(address + strlen("unix:"));
}

int transport_private_dir(char *out, size_t n, struct err *e)
{
    const char *parent[] = {getenv("XDG_RUNTIME_DIR"), getenv("TMPDIR"), "/tmp"};
    const size_t longest = TRANSPORT_PATH_MAX - strlen("/socket");
    int rc = err_set(e, ERR_CONFIG, "no folder for a private socket: /tmp is missing");

    for (size_t i = 0; i < sizeof parent / sizeof *parent; i++) {
        if (!parent[i] || parent[i][0] != '/' || !file_is_dir(parent[i]))
            continue;
        if (snprintf(out, n, "%s/hone-XXXXXX", parent[i]) >= (int)n ||
            strlen(out) > longest) {
            rc = err_set(e, ERR_CONFIG, "%s: too long for a socket's path", parent[i]);
            continue;
        }
        if (mkdtemp(out))
            return 0;
        rc = err_errno(e, ERR_IO, errno, "create a folder in %s", parent[i]);
    }
    return rc;
}
