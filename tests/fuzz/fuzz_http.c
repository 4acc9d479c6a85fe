/* Fuzzer: HTTP requests, line by line: METHOD, PATH, then "Name: value" for the headers we
 * read and "?name=value" for arguments, an empty line, and the body. Every request gets at
 * most one answer, and nothing of it is left when the client has gone. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "daemon/auth.h"
#include "daemon/http.h"
#include "tests/quiet_io.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char dir[64] = "/tmp/hone-fuzz-XXXXXX", bearer[AUTH_TOKEN_SIZE + 8] = "Bearer ";
static struct store *store;
static struct auth *auth;

static void remove_all(void)
{
    struct err e;

    store_close(store);
    auth_close(auth);
    file_remove_tree(dir, &e);
}

static void open_all(void)
{
    struct err e;

    invariant(mkdtemp(dir) && !store_open(&store, dir, STORE_EPHEMERAL, &e));
    invariant(!auth_open(&auth, dir, &e));
    invariant(!auth_add_token(dir, "fuzz", ACCESS_OPERATOR, bearer + 7, &e));
    atexit(remove_all);
}

static void header(struct io_request *r, char *line)
{
    static const struct {
        const char *name;
        size_t offset;
    } known[] = {{"Host: ", offsetof(struct io_request, host)},
                 {"Origin: ", offsetof(struct io_request, origin)},
                 {"Sec-Fetch-Site: ", offsetof(struct io_request, fetch_site)},
                 {"Content-Type: ", offsetof(struct io_request, content_type)},
                 {"Last-Event-ID: ", offsetof(struct io_request, last_event_id)},
                 {"Authorization: ", offsetof(struct io_request, authorization)}};
    char *equals = strchr(line, '=');

    if (*line == '?' && equals) {
        *equals = '\0';
        if (r->n_arguments < IO_ARGUMENTS_MAX) {
            r->name[r->n_arguments] = line + 1;
            r->value[r->n_arguments] = equals + 1;
        }
        r->n_arguments++;
    }
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (str_starts(line, known[i].name))
            *(const char **)((char *)r + known[i].offset) = line + strlen(known[i].name);
    if (r->authorization && !strcmp(r->authorization, "good"))
        r->authorization = bearer;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = mem_alloc(size + 1), *next = text, *line[3];
    struct io_request r = {0};
    struct quiet q;
    struct daemon d;
    int n = 0;

    invariant(text);
    memcpy(text, data, size);
    log_set_level(LOG_ERROR + 1);
    if (!store)
        open_all();
    while (next && n < 2) {
        line[n++] = next;
        next = strchr(next, '\n');
        if (next)
            *next++ = '\0';
    }
    if (n == 2) {
        r.method = line[0];
        r.path = line[1];
        while (next && *next && *next != '\n') {
            char *at = next;

            next = strchr(next, '\n');
            if (next)
                *next++ = '\0';
            header(&r, at);
        }
        r.body = next && *next ? next + 1 : "";
        r.n = next && *next ? size - (size_t)(r.body - text) : 0;
        quiet_open(&q);
        daemon_init(&d, &q.io, store, dir, "unix:/nowhere", 1);
        d.auth = auth;
        q.io.events->requested(q.io.ctx, QUIET_ID, &r);
        invariant(q.responses <= 1);
        q.io.events->closed(q.io.ctx, QUIET_ID);
        invariant(!d.http_calls && !d.watches && !d.admissions && d.n_jobs == 0);
        daemon_fini(&d);
        quiet_close_all(&q);
    }
    mem_free(text);
    return 0;
}
