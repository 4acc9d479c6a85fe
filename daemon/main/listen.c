/* Where honed listens: see listen.h. */
#include "daemon/main/listen.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/str.h"

/* What other machines reach, only those with a credential may use: one must exist. */
static int check_open(const struct address *a, const char *text, const char *state,
                      struct auth *auth, struct err *e)
{
    int loopback;
    size_t n;
    int rc = transport_is_loopback(a, &loopback, e);

    if (!rc)
        rc = auth_count(auth, &n, e);
    if (rc)
        return rc;
    if (!loopback && a->kind == ADDRESS_HTTP) {
        err_set(e, ERR_CONFIG,
                "%.200s: without TLS, tokens would go over the network in "
                "the clear",
                text);
        return err_mend(e, "--listen https:%s:%s", a->host, a->port);
    }
    if (!n && loopback)
        log_warn("%s: nobody may come yet; honed token add NAME --role operator", text);
    if (n || loopback)
        return 0;
    err_set(e, ERR_CONFIG,
            "%.200s can be reached from other machines, and nobody has a "
            "credential",
            text);
    return err_mend(e, "honed token add NAME --role operator --state %.150s", state);
}

static int open_network(struct listening *l, const struct address *a, const char *text,
                        const char *state, struct auth *auth, struct err *e)
{
    int fd[TRANSPORT_LISTEN_MAX], rc = check_open(a, text, state, auth, e);
    size_t n = 0;

    if (!rc && a->kind != ADDRESS_HTTP && !l->certs.context)
        rc = certs_open(&l->certs, state, e);
    if (!rc && LISTEN_SOCKETS - l->n_more < TRANSPORT_LISTEN_MAX)
        rc = err_set(e, ERR_CONFIG, "--listen: too many addresses");
    if (!rc)
        rc = transport_listen_all(a, fd, TRANSPORT_LISTEN_MAX, &n, e);
    for (size_t i = 0; i < n; i++) {
        l->more[l->n_more].fd = fd[i];
        l->more[l->n_more++].kind = a->kind;
    }
    return rc;
}

static int copy_address(struct listening *l, const char *prefix, const char *text,
                        const char *suffix, struct err *e)
{
    if (snprintf(l->address, sizeof l->address, "%s%s%s", prefix, text, suffix) <
        (int)sizeof l->address)
        return 0;
    return err_set(e, ERR_USAGE, "--listen: the address is too long");
}

int listen_open(struct listening *l, const char *state, const struct arg_list *addresses,
                struct auth *auth, struct err *e)
{
    int rc = copy_address(l, "unix:", state, "/socket", e), own = 0;

    for (int i = 0; !rc && i < addresses->n; i++) {
        const char *text = addresses->item[i];
        struct address a;

        rc = address_parse(text, &a, e);
        if (rc)
            err_wrap(e, "--listen");
        else if (a.kind != ADDRESS_UNIX)
            rc = open_network(l, &a, text, state, auth, e);
        else if (own++)
            rc = err_set(e, ERR_USAGE, "--listen: one Unix socket is enough");
        else
            rc = copy_address(l, "", text, "", e);
    }
    return rc ? rc : transport_listen(l->address, &l->unix_fd, e);
}

int listen_start(struct listening *l, struct io *io, struct err *e)
{
    char name[256];
    int rc = 0;

    if (l->certs.context)
        io_uv_use_tls(io, &l->certs);
    for (size_t i = 0; i < l->n_more; i++) {
        transport_name(l->more[i].fd, l->more[i].kind, name, sizeof name);
        if (!rc)
            rc = io_uv_listen(io, l->more[i].fd, l->more[i].kind, e); /* takes it */
        else
            close(l->more[i].fd);
        if (!rc)
            log_info("listening on %s", name);
    }
    l->n_more = 0;
    return rc;
}

void listen_close(struct listening *l)
{
    for (size_t i = 0; i < l->n_more; i++)
        close(l->more[i].fd);
    l->n_more = 0;
    certs_close(&l->certs);
    if (l->unix_fd >= 0)
        transport_unlink(l->address);
    l->unix_fd = -1;
}
