/* Credentials: see auth.h. The file is small (thousands of lines at most) and is kept
 * parsed in memory; stat(2) before each use tells whether it is another one now. Writers
 * hold STATE/credentials.lock and replace the file whole. */
#include "daemon/auth.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/str.h"

enum { FILE_MAX = 4 << 20, FIELDS = 5, SECRET_BYTES = 32 };

static const char *const kinds[] = {"token", "certificate"};

struct auth {
    char path[FILE_PATH_MAX];
    struct stat seen;
    struct auth_entry *entry;
    size_t n;
};

const char *auth_kind_name(enum auth_kind kind)
{
    return kinds[kind];
}

int auth_check_name(const char *name, struct err *e)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "0123456789._@-";
    size_t n = strlen(name);

    if (n && n < ACCESS_NAME_MAX && strspn(name, allowed) == n && name[0] != '-')
        return 0;
    err_set(e, ERR_USAGE, "the name \"%.100s\" will not do", name);
    return err_mend(e, "1 to %d letters, digits and . _ @ -", ACCESS_NAME_MAX - 1);
}

/* ---- the file ---- */

static int is_hash(const char *s)
{
    return strlen(s) == AUTH_HASH - 1 && strspn(s, "0123456789abcdef") == AUTH_HASH - 1;
}

static int parse_line(char *line, struct auth_entry *x)
{
    char *field[FIELDS], *save = NULL;
    struct err e;
    int n = 0;

    for (char *p = strtok_r(line, " ", &save); p; p = strtok_r(NULL, " ", &save)) {
        if (n == FIELDS)
            return -1;
        field[n++] = p;
    }
    if (n != FIELDS || auth_check_name(field[1], &e) || !is_hash(field[3]) ||
        access_role_parse(field[2], &x->role) || str_to_double(field[4], &x->made))
        return -1;
    if (!strcmp(field[0], kinds[AUTH_TOKEN]))
        x->kind = AUTH_TOKEN;
    else if (!strcmp(field[0], kinds[AUTH_CERTIFICATE]))
        x->kind = AUTH_CERTIFICATE;
    else
        return -1;
    snprintf(x->name, sizeof x->name, "%s", field[1]);
    memcpy(x->hash, field[3], AUTH_HASH);
    return 0;
}

static int parse(const char *path, char *text, struct auth_entry **list, size_t *n,
                 struct err *e)
{
    char *save = NULL;
    size_t lines = 0, at = 0;

    for (const char *p = text; *p; p++)
        lines += *p == '\n';
    *list = mem_array(lines + 1, sizeof **list);
    if (!*list)
        return err_set(e, ERR_NOMEM, "read %s: out of memory", path);
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        if (parse_line(line, &(*list)[at]))
            return err_set(e, ERR_CORRUPT, "%s: line %zu is malformed", path, at + 1);
        else
            at++;
    *n = at;
    return 0;
}

static int check_mode(const char *path, const struct stat *st, struct err *e)
{
    if (S_ISREG(st->st_mode) && st->st_uid == geteuid() && !(st->st_mode & 077))
        return 0;
    err_set(e, ERR_DENIED, "%s may be read or written by others", path);
    return err_mend(e, "chmod 600 %s, and make it honed's own", path);
}

/* No file: no credentials. *st is zeroed then. */
static int read_file(const char *path, struct auth_entry **list, size_t *n, struct stat *st,
                     struct err *e)
{
    char *text = NULL;
    size_t len;
    int rc;

    *list = NULL;
    *n = 0;
    memset(st, 0, sizeof *st);
    if (lstat(path, st)) {
        if (errno == ENOENT)
            return 0;
        return err_errno(e, ERR_IO, errno, "read %s", path);
    }
    rc = check_mode(path, st, e);
    if (!rc)
        rc = file_read(path, FILE_MAX, &text, &len, e);
    if (!rc)
        rc = parse(path, text, list, n, e);
    if (rc) {
        mem_free(*list);
        *list = NULL;
        *n = 0;
    }
    mem_free(text);
    return rc;
}

static int write_file(const char *path, const struct auth_entry *list, size_t n,
                      struct err *e)
{
    struct str text = {0};
    mode_t mask;
    int rc;

    for (size_t i = 0; i < n; i++)
        str_addf(&text, "%s %s %s %s %.0f\n", kinds[list[i].kind], list[i].name,
                 access_role_name(list[i].role), list[i].hash, list[i].made);
    mask = umask(077);
    rc = str_failed(&text) ? err_set(e, ERR_NOMEM, "write %s: out of memory", path)
                           : file_write_atomic(path, str_get(&text), text.len, e);
    umask(mask);
    str_fini(&text);
    return rc;
}

/* ---- asking ---- */

int auth_open(struct auth **out, const char *state, struct err *e)
{
    struct auth *a = mem_alloc(sizeof *a);
    int rc;

    *out = NULL;
    if (!a)
        return err_set(e, ERR_NOMEM, "credentials: out of memory");
    rc = file_join(a->path, sizeof a->path, state, "credentials", e);
    if (rc) {
        mem_free(a);
        return rc;
    }
    *out = a;
    return 0;
}

void auth_close(struct auth *a)
{
    if (!a)
        return;
    mem_free(a->entry);
    mem_free(a);
}

static int same_file(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_size == b->st_size && a->st_mode == b->st_mode &&
           a->st_ctim.tv_sec == b->st_ctim.tv_sec &&
           a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

static int refresh(struct auth *a, struct err *e)
{
    struct stat now = {0};
    int rc;

    if (lstat(a->path, &now))
        memset(&now, 0, sizeof now);
    if (same_file(&now, &a->seen) && a->entry)
        return 0;
    mem_free(a->entry);
    rc = read_file(a->path, &a->entry, &a->n, &a->seen, e);
    return rc ? err_wrap(e, "credentials") : 0;
}

/* Compares in a time that does not depend on where the difference lies. */
static int same_hash(const char *a, const char *b)
{
    unsigned char d = 0;

    for (size_t i = 0; i < AUTH_HASH - 1; i++)
        d |= (unsigned char)(a[i] ^ b[i]);
    return d == 0;
}

static void hash_token(const char *token, char out[AUTH_HASH])
{
    unsigned char bytes[32];

    hash_sha256(token, strlen(token), bytes);
    for (size_t i = 0; i < sizeof bytes; i++)
        snprintf(out + 2 * i, 3, "%02x", bytes[i]);
}

int auth_who(struct auth *a, const char *token, const char *certificate, struct access *who,
             struct err *e)
{
    int by_token = token && *token, rc = refresh(a, e);
    enum auth_kind kind = by_token ? AUTH_TOKEN : AUTH_CERTIFICATE;
    char hash[AUTH_HASH] = "";

    memset(who, 0, sizeof *who);
    if (rc)
        return rc;
    if (by_token) {
        hash_token(token, hash);
    } else if (certificate && strlen(certificate) == AUTH_HASH - 1) {
        memcpy(hash, certificate, AUTH_HASH);
    } else {
        err_set(e, ERR_DENIED,
                "not authenticated: a token or a client certificate is "
                "needed");
        return err_mend(e, "on the daemon's host: honed token add NAME --role operator");
    }
    for (size_t i = 0; i < a->n; i++) {
        const struct auth_entry *x = &a->entry[i];

        if (x->kind != kind || !same_hash(x->hash, hash))
            continue;
        who->role = x->role;
        snprintf(who->user, sizeof who->user, "%s", x->name);
        snprintf(who->credential, sizeof who->credential, "%s", x->hash);
        return 0;
    }
    err_set(e, ERR_DENIED, "the %s is unknown here, or was revoked", kinds[kind]);
    return err_mend(e, "on the daemon's host: honed token list");
}

int auth_still(struct auth *a, const struct access *who, struct err *e)
{
    int rc;

    if (!who->credential[0]) /* local */
        return 0;
    rc = refresh(a, e);
    for (size_t i = 0; !rc && i < a->n; i++)
        if (!strcmp(a->entry[i].hash, who->credential) && a->entry[i].role == who->role)
            return 0;
    return rc ? rc : err_set(e, ERR_DENIED, "the credential of %s was revoked", who->user);
}

int auth_count(struct auth *a, size_t *n, struct err *e)
{
    int rc = refresh(a, e);

    *n = a->n;
    return rc;
}

/* ---- commands ---- */

static int lock_file(const char *state, int *fd, struct err *e)
{
    char path[FILE_PATH_MAX];
    int rc = file_join(path, sizeof path, state, "credentials.lock", e);

    *fd = -1;
    if (rc)
        return rc;
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (*fd < 0 || flock(*fd, LOCK_EX)) {
        rc = err_errno(e, ERR_CONFIG, errno, "lock %s", path);
        if (errno == ENOENT)
            err_mend(e, "name honed's state folder with --state DIR");
    }
    return rc;
}

int auth_list(const char *state, struct auth_entry **list, size_t *n, struct err *e)
{
    char path[FILE_PATH_MAX];
    struct stat st;
    int rc = file_join(path, sizeof path, state, "credentials", e);

    *list = NULL;
    *n = 0;
    return rc ? rc : read_file(path, list, n, &st, e);
}

static int add(const char *state, const struct auth_entry *x, struct err *e)
{
    struct auth_entry *list = NULL, *more;
    char path[FILE_PATH_MAX];
    size_t n;
    int fd, rc = lock_file(state, &fd, e);

    if (!rc)
        rc = file_join(path, sizeof path, state, "credentials", e);
    if (!rc)
        rc = auth_list(state, &list, &n, e);
    if (!rc) {
        more = mem_resize(list, n + 1, sizeof *list);
        if (more) {
            list = more;
            list[n] = *x;
            rc = write_file(path, list, n + 1, e);
        } else {
            rc = err_set(e, ERR_NOMEM, "write %s: out of memory", path);
        }
    }
    mem_free(list);
    if (fd >= 0)
        close(fd);
    return rc;
}

int auth_add_token(const char *state, const char *name, enum access_role role,
                   char token[AUTH_TOKEN_SIZE], struct err *e)
{
    static const char digit[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    struct auth_entry x = {AUTH_TOKEN, "", role, "", clock_wall()};
    unsigned char secret[SECRET_BYTES + 1] = {0};
    size_t at;
    int rc = auth_check_name(name, e);

    if (rc)
        return rc;
    if (getrandom(secret, SECRET_BYTES, 0) != SECRET_BYTES)
        return err_errno(e, ERR_IO, errno, "random bytes");
    at = (size_t)snprintf(token, AUTH_TOKEN_SIZE, "hone_");
    for (size_t bit = 0; bit < 8 * SECRET_BYTES; bit += 6) {
        unsigned pair = (unsigned)secret[bit / 8] << 8 | secret[bit / 8 + 1];

        token[at++] = digit[pair >> (10 - bit % 8) & 63];
    }
    token[at] = '\0';
    memset(secret, 0, sizeof secret);
    snprintf(x.name, sizeof x.name, "%s", name);
    hash_token(token, x.hash);
    return add(state, &x, e);
}

int auth_add_certificate(const char *state, const char *name, enum access_role role,
                         const char *fingerprint, struct err *e)
{
    struct auth_entry x = {AUTH_CERTIFICATE, "", role, "", clock_wall()};
    int rc = auth_check_name(name, e);

    if (rc)
        return rc;
    if (!is_hash(fingerprint))
        return err_set(e, ERR_USAGE, "\"%.80s\" is no SHA-256 fingerprint", fingerprint);
    snprintf(x.name, sizeof x.name, "%s", name);
    memcpy(x.hash, fingerprint, AUTH_HASH);
    return add(state, &x, e);
}

int auth_revoke(const char *state, const char *name_or_id, size_t *n, struct err *e)
{
    struct auth_entry *list = NULL;
    char path[FILE_PATH_MAX];
    size_t had = 0, kept = 0;
    int fd, rc = lock_file(state, &fd, e);

    if (!rc)
        rc = file_join(path, sizeof path, state, "credentials", e);
    if (!rc)
        rc = auth_list(state, &list, &had, e);
    for (size_t i = 0; i < had; i++)
        if (strcmp(list[i].name, name_or_id) != 0 &&
            (strlen(name_or_id) != AUTH_ID - 1 ||
             strncmp(list[i].hash, name_or_id, AUTH_ID - 1) != 0))
            list[kept++] = list[i];
    *n = had - kept;
    if (!rc && *n)
        rc = write_file(path, list, kept, e);
    mem_free(list);
    if (fd >= 0)
        close(fd);
    return rc;
}
