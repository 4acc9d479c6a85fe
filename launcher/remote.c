/* Long-lived daemons: see remote.h. */
#include "launcher/remote.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/opt.h"
#include "base/str.h"
#include "proto/message.h"
#include "proto/pbjson.h"

enum { TOKEN_FILE_MAX = 4096 };

struct entry {
    const char *address, *token_file, *authority, *certificate, *key;
};

static const struct opt entry_options[] = {
    OPT_STRING(struct entry, address, NULL, "unix:PATH or HOST:PORT"),
    OPT_PATH(struct entry, token_file, "file with the token, mode 0600"),
    OPT_PATH(struct entry, authority, "certificate that signed the daemon's"),
    OPT_PATH(struct entry, certificate, "our own certificate, instead of a token"),
    OPT_PATH(struct entry, key, "its key"),
    OPT_END};

static int read_entry(const char *path, const struct node *n, struct arena *a,
                      struct entry *out, struct err *e)
{
    char folder[FILE_PATH_MAX];
    struct problems p;
    int rc = 0;

    file_dirname(folder, sizeof folder, path);
    problems_init(&p, path);
    opt_defaults(entry_options, out);
    opt_apply(entry_options, out, n, folder, NULL, a, &p);
    if (p.errors) {
        problems_print(&p, "hone");
        rc = err_set(e, ERR_CONFIG, "%s: daemons.%s is wrong", path, n->key ? n->key : "?");
    } else if (!out->address) {
        rc = err_set(e, ERR_CONFIG, "%s: daemons.%s has no address", path, n->key);
    }
    problems_fini(&p);
    return rc;
}

static int read_token(const char *path, struct arena *a, const char **token, struct err *e)
{
    struct stat st;
    char *text;
    size_t n;
    int rc = file_read(path, TOKEN_FILE_MAX, &text, &n, e);

    if (rc)
        return err_wrap(e, "token");
    if (!stat(path, &st) && st.st_mode & 077) {
        rc = err_set(e, ERR_CONFIG, "%s: others may read this token", path);
        err_mend(e, "chmod 600 %.200s", path);
    } else {
        text[strcspn(text, "\r\n")] = '\0';
        *token = arena_strdup(a, text);
        rc = *token ? 0 : err_set(e, ERR_NOMEM, "out of memory");
    }
    mem_free(text);
    return rc;
}

static int use_entry(const struct entry *x, struct arena *a, struct client_target *out,
                     struct err *e)
{
    out->address = x->address;
    out->authority = x->authority;
    out->certificate = x->certificate;
    out->key = x->key;
    return x->token_file ? read_token(x->token_file, a, &out->token, e) : 0;
}

static const char *variable(const char *name)
{
    const char *value = getenv(name);

    return value && *value ? value : NULL;
}

static void use_environment(const char *address, struct client_target *out)
{
    out->address = address;
    out->token = variable("HONE_TOKEN");
    out->authority = variable("HONE_AUTHORITY");
    out->certificate = variable("HONE_CERTIFICATE");
    out->key = variable("HONE_KEY");
}

static int own_address(struct arena *a, struct client_target *out, struct err *e)
{
    char path[FILE_PATH_MAX];

    if (config_user_path("XDG_STATE_HOME", ".local/state", "hone/socket", path,
                         sizeof path))
        return err_set(e, ERR_USAGE, "which daemon? HOME is not set, use --to");
    out->address = arena_printf(a, "unix:%s", path);
    return out->address ? 0 : err_set(e, ERR_NOMEM, "out of memory");
}

static int unknown_name(const struct config *c, const char *to, struct err *e)
{
    enum { NAMES_MAX = 64 };
    const char *names[NAMES_MAX + 1], *near;
    int n = 0;

    for (const struct node *d = config_first(c); d && n < NAMES_MAX; d = d->next)
        names[n++] = d->key;
    names[n] = NULL;
    near = str_nearest(to, names);
    err_set(e, ERR_USAGE, "--to: \"%.100s\" is no address, and no name in %s", to,
            *c->path ? c->path : "~/.config/hone/config.yaml");
    return near ? err_mend(e, "did you mean %s?", near)
                : err_mend(e, "unix:PATH, HOST:PORT, or hone context add NAME ADDRESS");
}

int remote_use(const struct config *c, const struct node *entry, struct arena *a,
               struct client_target *out, struct err *e)
{
    struct entry x;
    int rc = read_entry(c->path, entry, a, &x, e);

    memset(out, 0, sizeof *out);
    return rc ? rc : use_entry(&x, a, out, e);
}

/* The entry of a name; also one with the address that was given in place of its name. */
static const struct node *find_entry(const struct config *c, const char *to)
{
    const struct node *address, *n = config_find(c, to);

    if (n || !strchr(to, ':'))
        return n;
    for (n = config_first(c); n; n = n->next) {
        address = node_get(n, "address");
        if (address && address->text && !strcmp(address->text, to))
            return n;
    }
    return NULL;
}

int remote_target(const char *to, struct arena *a, struct client_target *out, struct err *e)
{
    const struct node *entry;
    struct config c;
    int rc = config_read(&c, a, e);

    memset(out, 0, sizeof *out);
    if (rc)
        return rc;
    if (!to)
        to = variable("HONE_TO");
    if (!to)
        to = c.chosen;
    if (!to || !strcmp(to, "here"))
        return own_address(a, out, e);
    entry = find_entry(&c, to);
    if (entry)
        return remote_use(&c, entry, a, out, e);
    if (!strchr(to, ':') && to == c.chosen) {
        err_set(e, ERR_CONFIG, "%s: the default \"%.100s\" is none of its daemons", c.path,
                to);
        return err_mend(e, "hone context list, then hone context use NAME");
    }
    if (!strchr(to, ':'))
        return unknown_name(&c, to, e);
    use_environment(to, out);
    return 0;
}

int remote_open(struct client **out, const char *to, struct err *e)
{
    struct client_target target;
    struct arena a = {0};
    int rc = remote_target(to, &a, &target, e);

    *out = NULL;
    if (!rc) {
        rc = client_open_to(out, &target, "hone " HONE_VERSION, e);
        if (rc == ERR_UNREACHABLE && !e->mend[0] && !strncmp(target.address, "unix:", 5))
            err_mend(e, "start one with honed, or say which with --to");
        else if (rc == ERR_UNREACHABLE && !e->mend[0])
            err_mend(e, "there: honed --listen tcp:HOST:PORT; or say which with --to");
    }
    arena_fini(&a);
    return rc;
}

int remote_call(struct client *c, const char *method, const ProtobufCMessage *request,
                const ProtobufCMessageDescriptor *d, ProtobufCMessage **out, struct err *e)
{
    Hone__V1__Reply *reply;
    uint32_t id;
    int rc = client_send(c, method, request, &id, e);

    *out = NULL;
    while (!rc) {
        rc = client_next(c, &reply, e);
        if (rc == 0) {
            rc = client_fill(c, e);
            continue;
        }
        if (rc < 0)
            break;
        rc = reply->id == id ? client_body(reply, d, out, e) : 0;
        message_free(&reply->base);
        if (rc || *out)
            break;
    }
    return rc;
}

int remote_job(const char *text, uint64_t *id, struct err *e)
{
    long n;

    if (str_to_long(text, &n) || n < 1) {
        err_set(e, ERR_USAGE, "\"%.100s\" is no number of a job", text);
        return err_mend(e, "hone ps lists them");
    }
    *id = (uint64_t)n;
    return 0;
}

int remote_print_json(const ProtobufCMessage *m, struct err *e)
{
    struct str out = {0};
    int rc = 0;

    pbjson_write(m, &out);
    str_add_char(&out, '\n');
    if (str_failed(&out))
        rc = err_set(e, ERR_NOMEM, "out of memory");
    else
        fputs(out.s, stdout);
    fflush(stdout);
    str_fini(&out);
    return rc;
}

const char *remote_clean(char *buf, size_t n, const char *text)
{
    size_t i = 0;

    for (; text && text[i] && i + 1 < n; i++)
        buf[i] = (unsigned char)text[i] < 0x20 || text[i] == 0x7f ? ' ' : text[i];
    buf[i] = '\0';
    return buf;
}
