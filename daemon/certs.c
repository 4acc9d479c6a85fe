/* Certificates that change under a running daemon: see certs.h. Connections hold the
 * context they began with (OpenSSL counts), so the old one may go at once. */
#include "daemon/certs.h"

#include <string.h>
#include <sys/stat.h>

#include "base/log.h"

enum { AUTHORITY, CERTIFICATE, KEY };

static void look(const struct certs *c, struct certs_stamp *out)
{
    struct stat st;

    memset(out, 0, CERTS_FILES * sizeof *out);
    for (int i = 0; i < CERTS_FILES; i++)
        if (!stat(c->path[i], &st)) {
            out[i].inode = st.st_ino;
            out[i].size = (uint64_t)st.st_size;
            out[i].seconds = st.st_mtim.tv_sec;
            out[i].nanoseconds = st.st_mtim.tv_nsec;
        }
}

/* The newest context into *out. */
static int load(struct certs *c, struct tls_context **out, struct err *e)
{
    struct tls_files files = {NULL, c->path[CERTIFICATE], c->path[KEY]};

    if (file_exists(c->path[AUTHORITY]))
        files.authority = c->path[AUTHORITY];
    return c->api->context_open(out, &files, 1, e);
}

int certs_open(struct certs *c, const char *state, struct err *e)
{
    static const char *const names[CERTS_FILES] = {"tls/ca.crt", "tls/server.crt",
                                                   "tls/server.key"};
    int rc = 0;

    for (int i = 0; !rc && i < CERTS_FILES; i++)
        rc = file_join(c->path[i], sizeof c->path[i], state, names[i], e);
    if (rc)
        return rc;
    if (!file_exists(c->path[CERTIFICATE])) {
        err_set(e, ERR_CONFIG, "TCP needs a certificate: %s is missing",
                c->path[CERTIFICATE]);
        return err_mend(e, "honed cert init --state %.200s", state);
    }
    look(c, c->stamp);
    rc = tls_load(&c->api, e);
    return rc ? rc : load(c, &c->context, e);
}

void certs_close(struct certs *c)
{
    if (c->context)
        c->api->context_close(c->context);
    c->context = NULL;
}

struct tls_context *certs_now(struct certs *c)
{
    struct certs_stamp stamp[CERTS_FILES];
    struct tls_context *fresh;
    struct err e;

    look(c, stamp);
    if (!memcmp(stamp, c->stamp, sizeof stamp))
        return c->context;
    memcpy(c->stamp, stamp, sizeof stamp);
    if (load(c, &fresh, &e)) {
        log_warn("the old certificate stays: %s", e.msg);
        return c->context;
    }
    log_info("the certificate was read anew");
    certs_close(c);
    c->context = fresh;
    return fresh;
}
