/* What the environment says of the daemon: see link.h. All that can be judged before
 * training is, so that a wrong word is an error and not a run that nobody hears of. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "proto/address.h"
#include "worker/link/link.h"

static const char *variable(const char *name)
{
    const char *value = getenv(name);

    return value && *value ? value : NULL;
}

static int check_address(const char *text, struct err *e)
{
    struct address a;
    int rc = address_parse(text, &a, e);

    if (!rc && a.kind != ADDRESS_UNIX && a.kind != ADDRESS_TCP) {
        err_set(e, ERR_CONFIG, "address %.200s: workers do not speak HTTP", text);
        rc = err_mend(e, "HOST:PORT of honed --listen tcp:..., or unix:PATH");
    }
    return rc ? err_wrap(e, "HONE_UPLINK") : 0;
}

static int check_file(const char *name, const char *path, struct err *e)
{
    return !path || file_exists(path)
               ? 0
               : err_errno(e, ERR_CONFIG, errno, "%s: %.300s", name, path);
}

static int read_secret(struct link_hello *h, const char *path, struct err *e)
{
    struct stat st;
    char *text;
    size_t n;
    int rc;

    if (!stat(path, &st) && st.st_mode & 077) {
        err_set(e, ERR_CONFIG, "HONE_TOKEN_FILE: others may read %.300s", path);
        return err_mend(e, "chmod 600 %.200s", path);
    }
    rc = file_read(path, sizeof h->secret - 1, &text, &n, e);
    if (rc)
        return err_wrap(e, "HONE_TOKEN_FILE");
    snprintf(h->secret, sizeof h->secret, "%.*s", (int)strcspn(text, "\r\n"), text);
    mem_free(text);
    h->credential = h->secret;
    return 0;
}

/* A user's: as the hone command reads them. */
static int read_user(struct link_hello *h, struct err *e)
{
    const char *file = variable("HONE_TOKEN_FILE");
    int rc;

    h->authority = variable("HONE_AUTHORITY");
    h->certificate = variable("HONE_CERTIFICATE");
    h->key = variable("HONE_KEY");
    h->credential = variable("HONE_TOKEN");
    if (!h->certificate != !h->key) {
        err_set(e, ERR_CONFIG, "HONE_CERTIFICATE and HONE_KEY go together");
        return e->code;
    }
    rc = check_file("HONE_AUTHORITY", h->authority, e);
    if (!rc)
        rc = check_file("HONE_CERTIFICATE", h->certificate, e);
    if (!rc)
        rc = check_file("HONE_KEY", h->key, e);
    return rc || h->credential || !file ? rc : read_secret(h, file, e);
}

int link_hello_env(struct link_hello *h, struct err *e)
{
    const char *attempt = getenv("HONE_UPLINK_ATTEMPT");
    const char *orphan = getenv("HONE_UPLINK_ORPHAN");
    long n = 1;
    int rc;

    h->address = variable("HONE_UPLINK");
    h->job = variable("HONE_UPLINK_JOB");
    if (!h->address)
        return 0;
    rc = check_address(h->address, e);
    if (rc)
        return rc;
    if (!h->job)
        return read_user(h, e);
    h->far = variable("HONE_UPLINK_FAR");
    h->authority = variable("HONE_UPLINK_AUTHORITY");
    h->token = getenv("HONE_UPLINK_TOKEN");
    if (attempt && (str_to_long(attempt, &n) || n < 0 || n > 1000000))
        return err_set(e, ERR_USAGE, "HONE_UPLINK_ATTEMPT: \"%s\" is no number of attempts",
                       attempt);
    h->attempt = (int)n;
    h->orphan_stop = orphan && !strcmp(orphan, "stop");
    return 0;
}
