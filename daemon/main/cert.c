/* honed cert: the certificates of TLS, in STATE/tls/.
 *
 *     ca.crt ca.key          our own authority; ca.crt is what clients are given
 *     server.crt server.key  what honed shows; the names and addresses of this host
 *
 * Who has certificates of an authority of theirs puts them there under these names. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "daemon/auth.h"
#include "daemon/main/commands.h"
#include "proto/address.h"
#include "proto/tls.h"

enum { CA_DAYS = 3650, LEAF_DAYS = 825, HOSTS_MAX = ARGS_LIST_MAX + 8 };

struct options {
    const char *state, *role, *out;
    struct arg_list hosts, words;
    int renew;
};

static const struct arg_flag flags[] = {
    ARG_LIST("--host", "NAME", "init: a name or address that clients dial (repeatable)",
             struct options, hosts),
    ARG_SWITCH("--renew", "init: a new server certificate, the authority stays",
               struct options, renew),
    ARG_VALUE("--role", "viewer|operator|admin", "add: what they may do (viewer)",
              struct options, role),
    ARG_VALUE("--out", "DIR", "add: folder for NAME.crt and NAME.key (default: .)",
              struct options, out),
    ARG_VALUE("--state", "DIR", "folder of the daemon's state", struct options, state),
    ARG_END};

static const struct arg_spec spec = {
    "honed cert",
    "init [--host NAME]... [--renew] | add NAME [--role ROLE] [--out DIR]  [--state DIR]",
    "Certificates for TLS.\n\n"
    "  init      makes an authority and this host's certificate in STATE/tls; localhost\n"
    "            and the host's own name are always in it. With --renew a new certificate\n"
    "            from the same authority, for the same names and those of --host: a\n"
    "            running honed shows it to those who come from then on\n"
    "  add NAME  makes a client's certificate, to be used instead of a token\n\n"
    "honed token list shows client certificates too, honed token revoke ends them.",
    flags,
    1,
    2,
    offsetof(struct options, words)};

struct paths {
    char dir[FILE_PATH_MAX], ca[FILE_PATH_MAX], ca_key[FILE_PATH_MAX],
        server[FILE_PATH_MAX], server_key[FILE_PATH_MAX];
};

static int find_paths(const char *state, struct paths *p, struct err *e)
{
    int rc = file_join(p->dir, sizeof p->dir, state, "tls", e);

    if (!rc)
        rc = file_join(p->ca, sizeof p->ca, p->dir, "ca.crt", e);
    if (!rc)
        rc = file_join(p->ca_key, sizeof p->ca_key, p->dir, "ca.key", e);
    if (!rc)
        rc = file_join(p->server, sizeof p->server, p->dir, "server.crt", e);
    if (!rc)
        rc = file_join(p->server_key, sizeof p->server_key, p->dir, "server.key", e);
    return rc;
}

/* Names go into the certificate: only what could be dialled. */
static int collect_hosts(const struct options *o, const char **hosts, char *self, size_t n,
                         struct err *e)
{
    static const char *const always[] = {"localhost", "127.0.0.1", "::1"};
    size_t k = 0;

    for (size_t i = 0; i < sizeof always / sizeof *always; i++)
        hosts[k++] = always[i];
    if (!gethostname(self, n) && *self && strcmp(self, "localhost") != 0)
        hosts[k++] = self;
    for (int i = 0; i < o->hosts.n; i++) {
        const char *host = o->hosts.item[i];
        char text[ADDRESS_HOST_MAX + 16];
        struct address a;

        if (snprintf(text, sizeof text, strchr(host, ':') ? "[%s]:1" : "%s:1", host) >=
                (int)sizeof text ||
            address_parse(text, &a, e) || strchr(host, '%')) {
            err_set(e, ERR_USAGE, "--host: \"%.100s\" is no name or address", host);
            return err_mend(e, "write it as clients dial it, without a port");
        }
        hosts[k++] = host;
    }
    hosts[k] = NULL;
    return 0;
}

static int make_authority(const struct paths *p, const char *host, struct err *e)
{
    char name[64], print[TLS_FINGERPRINT];
    struct tls_issue what = {
        .name = name, .days = CA_DAYS, .certificate = p->ca, .key = p->ca_key};
    const struct tls_api *api;
    int rc = tls_load(&api, e);

    snprintf(name, sizeof name, "Hone %.50s", host);
    return rc ? rc : api->issue(&what, print, e);
}

static int make_server(const struct paths *p, const char *const *hosts, const char *name,
                       struct err *e)
{
    char file[FILE_PATH_MAX + 8], key[FILE_PATH_MAX + 8], print[TLS_FINGERPRINT];
    struct tls_issue what = {.issuer_certificate = p->ca,
                             .issuer_key = p->ca_key,
                             .name = name,
                             .hosts = hosts,
                             .renews = p->server,
                             .days = LEAF_DAYS,
                             .certificate = file,
                             .key = key};
    const struct tls_api *api;
    int rc = tls_load(&api, e);

    snprintf(file, sizeof file, "%s.new", p->server);
    snprintf(key, sizeof key, "%s.new", p->server_key);
    unlink(file);
    unlink(key);
    if (!rc)
        rc = api->issue(&what, print, e);
    if (!rc)
        rc = file_rename(key, p->server_key, e);
    return rc ? rc : file_rename(file, p->server, e);
}

static int init(const struct options *o, const char *state, struct err *e)
{
    const char *hosts[HOSTS_MAX];
    char self[65] = "";
    struct paths p;
    int rc = find_paths(state, &p, e);

    if (!rc)
        rc = collect_hosts(o, hosts, self, sizeof self - 1, e);
    if (!rc && !o->renew && (file_exists(p.ca) || file_exists(p.server))) {
        err_set(e, ERR_CONFIG, "%s has certificates already", p.dir);
        return err_mend(e, "honed cert init --renew replaces the server's and keeps the "
                           "authority");
    }
    if (!rc)
        rc = file_make_dirs(state, e);
    if (!rc && mkdir(p.dir, 0700) && errno != EEXIST)
        rc = err_errno(e, ERR_IO, errno, "create %s", p.dir);
    if (!rc && !file_exists(p.ca))
        rc = make_authority(&p, *self ? self : "localhost", e);
    if (!rc)
        rc = make_server(&p, hosts, *self ? self : "localhost", e);
    if (rc)
        return rc;
    printf("%s\n", p.ca);
    fprintf(stderr, "certificate for:");
    for (size_t i = 0; hosts[i]; i++)
        fprintf(stderr, " %s", hosts[i]);
    fprintf(stderr, "%s\ngive clients %s (it is no secret)%s\n",
            o->renew ? ", and what the old one had" : "", p.ca,
            o->renew ? "; a running honed shows the new certificate from now on" : "");
    return 0;
}

static int add(const struct options *o, const char *state, struct err *e)
{
    const char *name = o->words.item[1], *out = o->out ? o->out : ".";
    char file[FILE_PATH_MAX], key[FILE_PATH_MAX], print[TLS_FINGERPRINT];
    struct tls_issue what = {
        .name = name, .days = LEAF_DAYS, .certificate = file, .key = key};
    enum access_role role = ACCESS_VIEWER;
    const struct tls_api *api;
    struct paths p;
    int rc = auth_check_name(name, e);

    if (!rc && o->role && access_role_parse(o->role, &role)) {
        err_set(e, ERR_USAGE, "--role: there is no role \"%.50s\"", o->role);
        rc = err_mend(e, "viewer, operator or admin");
    }
    if (!rc)
        rc = find_paths(state, &p, e);
    if (!rc && !file_exists(p.ca_key)) {
        err_set(e, ERR_CONFIG, "there is no authority in %s", p.dir);
        rc = err_mend(e, "honed cert init");
    }
    if (!rc && (snprintf(file, sizeof file, "%s/%s.crt", out, name) >= (int)sizeof file ||
                snprintf(key, sizeof key, "%s/%s.key", out, name) >= (int)sizeof key))
        rc = err_set(e, ERR_USAGE, "--out: the path is too long");
    if (!rc)
        rc = tls_load(&api, e);
    what.issuer_certificate = p.ca;
    what.issuer_key = p.ca_key;
    if (!rc)
        rc = api->issue(&what, print, e);
    if (!rc)
        rc = auth_add_certificate(state, name, role, print, e);
    if (!rc)
        printf("%s\n%s\n", file, key);
    return rc;
}

int cert_main(int argc, char **argv, struct err *e)
{
    struct options o = {0};
    char state[FILE_PATH_MAX];
    int rc = args_parse(&spec, argc, argv, &o, e);

    if (!rc)
        rc = state_folder(o.state, state, sizeof state, e);
    if (rc)
        return rc;
    if (!strcmp(o.words.item[0], "init") && o.words.n == 1)
        return init(&o, state, e);
    if (!strcmp(o.words.item[0], "add") && o.words.n == 2)
        return add(&o, state, e);
    err_set(e, ERR_USAGE, "honed cert %.50s: that is not how it goes", o.words.item[0]);
    return err_mend(e, "honed cert %s", spec.usage);
}
