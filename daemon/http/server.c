/* The HTTP module: see server.h. libmicrohttpd runs without threads and without a listening
 * socket; a request that waits for its answer, and a stream that waits for more, is
 * suspended. Resuming takes effect in the next run(). */
#include "daemon/http/server.h"

#include <errno.h>
#include <microhttpd.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/str.h"

enum {
    HEAD_MAX = 32 << 10,
    BODY_MAX = 1 << 20,
    BLOCK = 16 << 10,
    IDLE_S = 60,
    BUCKETS = 256,
    UNSENT_LITTLE = 16 << 10,
};

struct request {
    struct http_server *s;
    struct MHD_Connection *connection;
    uint64_t id, conn;
    struct request *next;
    struct str body; /* of the request */
    int too_large, asked, suspended, answered;
    struct MHD_Response *response;
    int status;
    int stream, ended;
    struct str out; /* of a stream, not yet taken */
    size_t taken;
    int behind; /* much is unsent: say when it is not any more */
};

struct http_server {
    struct MHD_Daemon *daemon;
    const struct http_hooks *hooks;
    void *ctx;
    struct request *bucket[BUCKETS];
    uint64_t adding; /* connection that add() is at */
    int running;
};

static struct request *find(const struct http_server *s, uint64_t id)
{
    struct request *r = s->bucket[id % BUCKETS];

    while (r && r->id != id)
        r = r->next;
    return r;
}

static void wake(struct request *r)
{
    if (r->suspended) {
        r->suspended = 0;
        MHD_resume_connection(r->connection);
    }
}

/* ---- answers ---- */

static ssize_t more_of_stream(void *cls, uint64_t at, char *buf, size_t max)
{
    struct request *r = cls;
    size_t n = r->out.len - r->taken;

    (void)at;
    if (n) {
        n = n < max ? n : max;
        memcpy(buf, r->out.s + r->taken, n);
        r->taken += n;
        if (r->taken == r->out.len) {
            str_clear(&r->out);
            r->taken = 0;
        }
        if (r->behind && r->out.len - r->taken <= UNSENT_LITTLE) {
            r->behind = 0;
            r->s->hooks->drained(r->s->ctx, r->id);
        }
        return (ssize_t)n;
    }
    if (r->ended)
        return MHD_CONTENT_READER_END_OF_STREAM;
    if (str_failed(&r->out))
        return MHD_CONTENT_READER_END_WITH_ERROR;
    r->suspended = 1;
    MHD_suspend_connection(r->connection);
    return 0;
}

static void add_headers(struct MHD_Response *m, const struct io_response *from)
{
    MHD_add_response_header(m, "Content-Type", from->content_type);
    MHD_add_response_header(m, "Cache-Control", "no-store");
    MHD_add_response_header(m, "X-Content-Type-Options", "nosniff");
    MHD_add_response_header(m, "Referrer-Policy", "no-referrer");
    MHD_add_response_header(m, "Content-Security-Policy",
                            "default-src 'none'; script-src 'self'; style-src 'self'; "
                            "connect-src 'self'; img-src data:; frame-ancestors 'none'; "
                            "base-uri 'none'; form-action 'none'");
    if (from->allow)
        MHD_add_response_header(m, "Allow", from->allow);
    if (from->ask_token)
        MHD_add_response_header(m, "WWW-Authenticate", "Bearer realm=\"hone\"");
}

static void respond(struct http_server *s, uint64_t id, const struct io_response *from)
{
    struct request *r = find(s, id);

    if (!r || r->response)
        return;
    r->stream = from->stream;
    r->status = from->status;
    if (from->stream)
        r->response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK,
                                                        more_of_stream, r, NULL);
    else
        r->response = MHD_create_response_from_buffer(
            from->n, (void *)(uintptr_t)from->body, MHD_RESPMEM_MUST_COPY);
    if (r->response)
        add_headers(r->response, from);
    r->answered = 1; /* without a response: the connection is closed */
    wake(r);
}

static void send_more(struct http_server *s, uint64_t id, const void *p, size_t n)
{
    struct request *r = find(s, id);

    if (!r || !r->stream || r->ended)
        return;
    if (r->taken > BLOCK && r->taken > r->out.len / 2) {
        memmove(r->out.s, r->out.s + r->taken, r->out.len - r->taken);
        r->out.len -= r->taken;
        r->taken = 0;
    }
    str_add_bytes(&r->out, p, n);
    r->behind |= r->out.len - r->taken > UNSENT_LITTLE;
    wake(r);
}

static size_t unsent(const struct http_server *s, uint64_t id)
{
    const struct request *r = find(s, id);

    return r ? r->out.len - r->taken : 0;
}

static void end(struct http_server *s, uint64_t id)
{
    struct request *r = find(s, id);

    if (!r || !r->stream)
        return;
    r->ended = 1;
    wake(r);
}

static void beat(struct http_server *s)
{
    for (size_t i = 0; i < BUCKETS; i++)
        for (struct request *r = s->bucket[i]; r; r = r->next)
            if (r->stream && !r->ended && r->out.len == r->taken)
                send_more(s, r->id, ":\n\n", 3);
}

/* ---- requests ---- */

struct headers {
    struct io_request *r;
    int twice, lengths;
};

static enum MHD_Result take_header(void *cls, enum MHD_ValueKind kind, const char *key,
                                   const char *value)
{
    static const struct {
        const char *name;
        size_t offset;
    } known[] = {
        {"Host", offsetof(struct io_request, host)},
        {"Origin", offsetof(struct io_request, origin)},
        {"Sec-Fetch-Site", offsetof(struct io_request, fetch_site)},
        {"Content-Type", offsetof(struct io_request, content_type)},
        {"Authorization", offsetof(struct io_request, authorization)},
        {"Last-Event-ID", offsetof(struct io_request, last_event_id)},
    };
    struct headers *h = cls;

    (void)kind;
    /* Two opinions about where the body ends are how requests are smuggled in. */
    h->lengths +=
        !strcasecmp(key, "Content-Length") || !strcasecmp(key, "Transfer-Encoding");
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const char **at = (const char **)((char *)h->r + known[i].offset);

        if (strcasecmp(key, known[i].name) != 0)
            continue;
        h->twice |= *at != NULL;
        *at = value ? value : "";
    }
    return MHD_YES;
}

static enum MHD_Result take_argument(void *cls, enum MHD_ValueKind kind, const char *key,
                                     const char *value)
{
    struct io_request *r = cls;

    (void)kind;
    if (r->n_arguments < IO_ARGUMENTS_MAX) {
        r->name[r->n_arguments] = key;
        r->value[r->n_arguments] = value ? value : "";
    }
    r->n_arguments++;
    return MHD_YES;
}

static void refuse(struct request *r, int status, const char *message)
{
    char body[256];
    struct io_response answer = {.status = status, .content_type = "application/json"};

    snprintf(body, sizeof body, "{\"error\": {\"status\": 2, \"message\": \"%s\"}}\n",
             message);
    answer.body = body;
    answer.n = strlen(body);
    respond(r->s, r->id, &answer);
    if (r->response) /* who knows what comes next */
        MHD_add_response_header(r->response, "Connection", "close");
}

static void ask(struct request *r, const char *method, const char *path)
{
    struct io_request request = {.method = method, .path = path};
    struct headers h = {&request, 0, 0};

    MHD_get_connection_values(r->connection, MHD_HEADER_KIND, take_header, &h);
    MHD_get_connection_values(r->connection, MHD_GET_ARGUMENT_KIND, take_argument,
                              &request);
    request.body = str_get(&r->body);
    request.n = r->body.len;
    r->asked = 1;
    if (r->too_large)
        refuse(r, 413, "the body has more than 1 MiB");
    else if (str_failed(&r->body))
        refuse(r, 503, "out of memory");
    else if (h.twice || h.lengths > 1)
        refuse(r, 400, "a header is there twice");
    else
        r->s->hooks->requested(r->s->ctx, r->conn, r->id, &request);
}

static struct request *begin(struct http_server *s, struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct request *r = mem_alloc(sizeof *r);

    if (!r || !info || !info->socket_context) {
        mem_free(r);
        return NULL;
    }
    r->s = s;
    r->connection = connection;
    r->conn = *(uint64_t *)info->socket_context;
    r->id = s->hooks->next_id(s->ctx);
    r->next = s->bucket[r->id % BUCKETS];
    s->bucket[r->id % BUCKETS] = r;
    return r;
}

static enum MHD_Result handle(void *cls, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *data,
                              size_t *size, void **con_cls)
{
    struct request *r = *con_cls;

    (void)version;
    if (!r) {
        *con_cls = begin(cls, connection);
        return *con_cls ? MHD_YES : MHD_NO;
    }
    if (*size) {
        if (r->body.len + *size > BODY_MAX)
            r->too_large = 1;
        else
            str_add_bytes(&r->body, data, *size);
        *size = 0;
        return MHD_YES;
    }
    if (!r->asked)
        ask(r, method, url);
    if (r->answered)
        return r->response
                   ? MHD_queue_response(connection, (unsigned)r->status, r->response)
                   : MHD_NO;
    r->suspended = 1;
    MHD_suspend_connection(connection);
    return MHD_YES;
}

static void completed(void *cls, struct MHD_Connection *connection, void **con_cls,
                      enum MHD_RequestTerminationCode why)
{
    struct http_server *s = cls;
    struct request *r = *con_cls, **p;

    (void)connection;
    (void)why;
    *con_cls = NULL;
    if (!r)
        return;
    p = &s->bucket[r->id % BUCKETS];
    while (*p != r)
        p = &(*p)->next;
    *p = r->next;
    s->hooks->finished(s->ctx, r->conn, r->id);
    if (r->response)
        MHD_destroy_response(r->response);
    str_fini(&r->body);
    str_fini(&r->out);
    mem_free(r);
}

/* ---- connections ---- */

static void on_connection(void *cls, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode what)
{
    struct http_server *s = cls;
    uint64_t *conn;

    (void)connection;
    if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
        mem_free(*context);
        *context = NULL;
        return;
    }
    conn = mem_alloc(sizeof *conn);
    if (conn)
        *conn = s->adding;
    *context = conn;
}

static int add(struct http_server *s, int fd, uint64_t conn, struct err *e)
{
    struct sockaddr_storage nobody = {.ss_family = AF_UNIX};

    s->adding = conn;
    if (MHD_add_connection(s->daemon, fd, (struct sockaddr *)&nobody,
                           sizeof(sa_family_t)) == MHD_YES)
        return 0;
    return err_set(e, ERR_FAILED, "HTTP: cannot take a connection"); /* it has closed it */
}

static int poll_fd(const struct http_server *s)
{
    const union MHD_DaemonInfo *info =
        MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_EPOLL_FD);

    return info ? info->epoll_fd : -1;
}

static long run(struct http_server *s)
{
    MHD_UNSIGNED_LONG_LONG ms;

    if (s->running)
        return -1;
    s->running = 1;
    MHD_run(s->daemon);
    s->running = 0;
    return MHD_get_timeout(s->daemon, &ms) == MHD_YES ? (long)ms : -1;
}

/* "%00" would cut the text: it becomes a byte that no name of ours has and no JSON. */
static size_t unescape(void *cls, struct MHD_Connection *connection, char *s)
{
    size_t n = MHD_http_unescape(s);

    (void)cls;
    (void)connection;
    for (size_t i = 0; i < n; i++)
        if (!s[i])
            s[i] = '\xff';
    return n;
}

static void ignore_log(void *cls, const char *fmt, va_list ap)
{
    (void)cls;
    (void)fmt;
    (void)ap;
}

static int open_server(struct http_server **out, const struct http_hooks *hooks, void *ctx,
                       struct err *e)
{
    struct http_server *s = mem_alloc(sizeof *s);

    *out = NULL;
    if (!s)
        return err_set(e, ERR_NOMEM, "HTTP: out of memory");
    s->hooks = hooks;
    s->ctx = ctx;
    s->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL,
        handle, s, MHD_OPTION_EXTERNAL_LOGGER, ignore_log, NULL,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HEAD_MAX, MHD_OPTION_CONNECTION_TIMEOUT,
        (unsigned)IDLE_S, MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_NOTIFY_COMPLETED,
        completed, s, MHD_OPTION_NOTIFY_CONNECTION, on_connection, s,
        MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_UNESCAPE_CALLBACK, unescape, NULL,
        MHD_OPTION_END);
    if (!s->daemon) {
        mem_free(s);
        return err_errno(e, ERR_FAILED, errno, "HTTP: start");
    }
    *out = s;
    return 0;
}

/* Suspended connections must be resumed before the server is stopped. */
static void close_server(struct http_server *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < BUCKETS; i++)
        for (struct request *r = s->bucket[i]; r; r = r->next) {
            r->ended = r->answered = 1;
            wake(r);
        }
    MHD_run(s->daemon);
    MHD_stop_daemon(s->daemon);
    mem_free(s);
}

extern const struct http_api hone_http;
const struct http_api hone_http = {
    .module = {HTTP_ABI, sizeof(struct http_api)},
    .open = open_server,
    .close = close_server,
    .add = add,
    .poll_fd = poll_fd,
    .run = run,
    .respond = respond,
    .send = send_more,
    .unsent = unsent,
    .end = end,
    .beat = beat,
};
