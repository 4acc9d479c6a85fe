/* Transports: see transport.h. connect(2) to a Unix socket does not wait for accept(2), so
 * that a client may connect as soon as the socket listens. */
#include "proto/transport.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/file.h"
#include "base/str.h"

enum { BACKLOG = 512, CONNECT_MS = 10000 };

_Static_assert(sizeof(((struct sockaddr_un *)0)->sun_path) == TRANSPORT_PATH_MAX + 1,
               "Linux's sun_path");

static void fill_unix(const struct address *a, struct sockaddr_un *sa)
{
    memset(sa, 0, sizeof *sa);
    sa->sun_family = AF_UNIX;
    memcpy(sa->sun_path, a->path, strlen(a->path));
}

static int resolve(const struct address *a, int flags, struct addrinfo **out, struct err *e)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    int rc;

    hints.ai_flags = flags;
    rc = getaddrinfo(a->host, a->port, &hints, out);
    if (!rc)
        return 0;
    *out = NULL;
    err_set(e, ERR_UNREACHABLE, "host %s: %s", a->host,
            rc == EAI_SYSTEM ? strerror(errno) : gai_strerror(rc));
    return err_mend(e, "check the name, or write its number");
}

/* ---- listening ---- */

static int listen_unix(const struct address *a, int *fd, struct err *e)
{
    struct sockaddr_un sa;
    struct stat st;
    mode_t mask;
    int rc;

    fill_unix(a, &sa);
    if (!lstat(sa.sun_path, &st) && S_ISSOCK(st.st_mode))
        unlink(sa.sun_path);
    *fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (*fd < 0)
        return err_errno(e, ERR_IO, errno, "listen on unix:%s", a->path);
    mask = umask(0177);
    rc = bind(*fd, (struct sockaddr *)&sa, sizeof sa) || listen(*fd, BACKLOG);
    umask(mask);
    if (rc) {
        rc = err_errno(e, ERR_IO, errno, "listen on unix:%s", a->path);
        close(*fd);
        *fd = -1;
    }
    return rc;
}

static int listen_one(const struct address *a, const struct addrinfo *ai, int *fd,
                      struct err *e)
{
    int yes = 1, rc = 0;

    *fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (*fd < 0)
        return err_errno(e, ERR_IO, errno, "listen on %s", a->host);
    if (ai->ai_family == AF_INET6)
        setsockopt(*fd, IPPROTO_IPV6, IPV6_V6ONLY, &yes, sizeof yes);
    if (setsockopt(*fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) ||
        bind(*fd, ai->ai_addr, ai->ai_addrlen) || listen(*fd, BACKLOG)) {
        rc = err_errno(e, ERR_IO, errno, "listen on %s, port %s", a->host, a->port);
        close(*fd);
        *fd = -1;
    }
    return rc;
}

static in_port_t port_of(int fd)
{
    struct sockaddr_storage sa;
    socklen_t n = sizeof sa;

    if (getsockname(fd, (struct sockaddr *)&sa, &n))
        return 0;
    return sa.ss_family == AF_INET ? ((struct sockaddr_in *)&sa)->sin_port
                                   : ((struct sockaddr_in6 *)&sa)->sin6_port;
}

int transport_listen_all(const struct address *a, int *fd, size_t max, size_t *n,
                         struct err *e)
{
    struct addrinfo *list, *ai;
    int rc;

    *n = 0;
    if (a->kind == ADDRESS_UNIX) {
        rc = listen_unix(a, fd, e);
        *n = !rc;
        return rc;
    }
    rc = resolve(a, AI_PASSIVE, &list, e);
    for (ai = list; ai && !rc && *n < max; ai = ai->ai_next) {
        if (*n && ai->ai_family == AF_INET)
            ((struct sockaddr_in *)ai->ai_addr)->sin_port = port_of(fd[0]);
        else if (*n)
            ((struct sockaddr_in6 *)ai->ai_addr)->sin6_port = port_of(fd[0]);
        rc = listen_one(a, ai, &fd[*n], e);
        if (!rc)
            ++*n;
        else if (ai->ai_family == AF_INET6 && (*n || ai->ai_next))
            rc = 0; /* a host without IPv6 may still have a name for it */
    }
    if (list)
        freeaddrinfo(list);
    for (size_t i = 0; rc && i < *n; i++)
        close(fd[i]);
    if (rc)
        *n = 0;
    return rc;
}

int transport_listen(const char *address, int *fd, struct err *e)
{
    struct address a;
    size_t n;
    int rc;

    *fd = -1;
    rc = address_parse(address, &a, e);
    if (!rc && a.kind != ADDRESS_UNIX)
        rc = err_set(e, ERR_UNSUPPORTED, "address %.200s: not a Unix socket", address);
    return rc ? rc : transport_listen_all(&a, fd, 1, &n, e);
}

static int on_loopback(const struct sockaddr *sa)
{
    const struct in6_addr *six = &((const struct sockaddr_in6 *)sa)->sin6_addr;

    if (sa->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)sa)->sin_addr.s_addr) >> 24 == 127;
    return sa->sa_family == AF_INET6 &&
           (IN6_IS_ADDR_LOOPBACK(six) ||
            (IN6_IS_ADDR_V4MAPPED(six) && six->s6_addr[12] == 127));
}

int transport_is_loopback(const struct address *a, int *yes, struct err *e)
{
    struct addrinfo *list;
    int rc = resolve(a, AI_PASSIVE, &list, e);

    *yes = !rc;
    for (struct addrinfo *ai = list; ai; ai = ai->ai_next)
        *yes = *yes && on_loopback(ai->ai_addr);
    if (list)
        freeaddrinfo(list);
    return rc;
}

void transport_name(int fd, enum address_kind kind, char *out, size_t n)
{
    struct sockaddr_storage sa;
    socklen_t len = sizeof sa;
    char host[NI_MAXHOST], port[NI_MAXSERV];
    int six;

    *out = '\0';
    if (getsockname(fd, (struct sockaddr *)&sa, &len))
        return;
    if (sa.ss_family == AF_UNIX) {
        snprintf(out, n, "unix:%s", ((struct sockaddr_un *)&sa)->sun_path);
        return;
    }
    six = sa.ss_family == AF_INET6;
    if (!getnameinfo((struct sockaddr *)&sa, len, host, sizeof host, port, sizeof port,
                     NI_NUMERICHOST | NI_NUMERICSERV))
        snprintf(out, n, "%s%s%s%s:%s", address_prefix(kind), six ? "[" : "", host,
                 six ? "]" : "", port);
}

/* ---- peers ---- */

int transport_peer_allowed(int fd, struct err *e)
{
    struct ucred peer;
    socklen_t n = sizeof peer;

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n))
        return err_errno(e, ERR_DENIED, errno, "cannot tell who is at the other end");
    if (peer.uid != geteuid() && peer.uid != 0)
        return err_set(e, ERR_DENIED, "the other end runs under user %ld, not %ld",
                       (long)peer.uid, (long)geteuid());
    return 0;
}

void transport_tune(int fd)
{
    int yes = 1, idle = 30, interval = 10, count = 3;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &yes, sizeof yes);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
}

/* ---- connecting ---- */

static int connect_unix(const struct address *a, int *fd, struct err *e)
{
    struct sockaddr_un sa;

    fill_unix(a, &sa);
    *fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (*fd < 0)
        return err_errno(e, ERR_UNREACHABLE, errno, "connect to unix:%s", a->path);
    if (connect(*fd, (struct sockaddr *)&sa, sizeof sa))
        return err_errno(e, errno == EACCES ? ERR_DENIED : ERR_UNREACHABLE, errno,
                         "connect to unix:%s", a->path);
    if (transport_peer_allowed(*fd, e))
        return err_wrap(e, "connect to unix:%s", a->path);
    return 0;
}

/* connect(2) with a limit: 0 or an errno. */
static int connect_within(int fd, const struct addrinfo *ai, int ms)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    int code = 0, flags = fcntl(fd, F_GETFL), ready;
    socklen_t n = sizeof code;

    fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    if (connect(fd, ai->ai_addr, ai->ai_addrlen)) {
        if (errno != EINPROGRESS)
            return errno;
        do
            ready = poll(&p, 1, ms);
        while (ready < 0 && errno == EINTR);
        if (ready <= 0)
            return ready ? errno : ETIMEDOUT;
        if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &n))
            return errno;
    }
    fcntl(fd, F_SETFL, flags);
    return code;
}

static int connect_tcp(const struct address *a, int *fd, struct err *e)
{
    struct addrinfo *list;
    int rc = resolve(a, 0, &list, e), code = ENOENT;

    if (rc)
        return rc;
    for (struct addrinfo *ai = list; ai && code; ai = ai->ai_next) {
        *fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        code = *fd < 0 ? errno : connect_within(*fd, ai, CONNECT_MS);
        if (code && *fd >= 0) {
            close(*fd);
            *fd = -1;
        }
    }
    freeaddrinfo(list);
    if (code)
        return err_errno(e, ERR_UNREACHABLE, code, "connect to %s, port %s", a->host,
                         a->port);
    transport_tune(*fd);
    return 0;
}

int transport_connect(const char *address, int *fd, struct err *e)
{
    struct address a;
    int rc;

    *fd = -1;
    rc = address_parse(address, &a, e);
    if (rc)
        return rc;
    if (a.kind == ADDRESS_HTTP || a.kind == ADDRESS_HTTPS) {
        err_set(e, ERR_UNSUPPORTED, "address %.200s: is for curl and browsers", address);
        return err_mend(e, "tcp:HOST:PORT, or unix:PATH");
    }
    rc = a.kind == ADDRESS_UNIX ? connect_unix(&a, fd, e) : connect_tcp(&a, fd, e);
    if (rc && *fd >= 0) {
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
