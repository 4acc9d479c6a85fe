/* Checks in processes that are forked for us: see checkers.h. A server is freed when its
 * process has ended and its pipe is closed; only then is it known what it owes. */
#include "daemon/checkers.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "check.pb-c.h"
#include "daemon/net_conn.h"
#include "proto/frame.h"
#include "proto/message.h"

struct asked {
    uint64_t id;
    struct str order; /* its frame */
    struct str text[2];
    int again; /* it has been lost once */
    int killed;
    struct asked *next;
};

struct check_server {
    uv_process_t process;
    uv_pipe_t pipe;
    struct checkers *owner;
    struct arena arena; /* of the command */
    char *program;
    char **env; /* NULL: ours */
    struct stat file;
    struct frame_reader in;
    struct asked *asked; /* in order */
    int open;            /* handles not yet closed */
    int spawned;
    int done;          /* nothing new for it */
    int heard, pinged; /* since the watchdog looked */
    int64_t status;
    int signal;
    struct check_server *next;
    char buf[65536];
};

static int no_memory(struct err *e)
{
    return err_set(e, ERR_NOMEM, "check a job: out of memory");
}

static void free_asked(struct asked *a)
{
    str_fini(&a->order);
    str_fini(&a->text[0]);
    str_fini(&a->text[1]);
    mem_free(a);
}

/* Take it out of the list, tell its end, free it. */
static void conclude(struct check_server *s, struct asked *a, struct io_exit how)
{
    struct asked **p = &s->asked;

    while (*p != a)
        p = &(*p)->next;
    *p = a->next;
    how.out = str_get(&a->text[0]);
    if (!how.err)
        how.err = str_get(&a->text[1]);
    if (!s->owner->closed)
        s->owner->ended(s->owner->ctx, a->id, &how);
    free_asked(a);
}

/* ---- the end of a server ---- */

static int ask(struct checkers *c, const char *program, char **env, struct asked *a,
               struct err *e);

/* Its checks are asked again of another, or have failed as it did. */
static void settle(struct check_server *s)
{
    struct io_exit how = {.status = s->status ? (int)s->status : 1, .signal = s->signal};
    struct err e;

    while (s->asked && !s->owner->closed) {
        struct asked *a = s->asked;

        if (!a->killed && !a->again) {
            a->again = 1;
            str_fini(&a->text[0]);
            str_fini(&a->text[1]);
            s->asked = a->next;
            if (!ask(s->owner, s->program, s->env, a, &e))
                continue;
            a->next = s->asked;
            s->asked = a;
            how = (struct io_exit){.status = err_exit_status(e.code), .err = e.msg};
        } else if (a->killed) {
            how = (struct io_exit){.signal = SIGKILL};
        }
        conclude(s, a, how);
    }
    while (s->asked) {
        struct asked *a = s->asked;

        s->asked = a->next;
        free_asked(a);
    }
}

static void handle_gone(uv_handle_t *h)
{
    struct check_server *s = h->data, **p = &s->owner->servers;

    if (--s->open)
        return;
    while (*p && *p != s)
        p = &(*p)->next;
    if (*p)
        *p = s->next;
    if (s->asked && !s->owner->closed)
        log_warn("the process that checks jobs has gone (%s %d)",
                 s->signal ? "signal" : "status", s->signal ? s->signal : (int)s->status);
    settle(s);
    frame_reader_fini(&s->in);
    arena_fini(&s->arena);
    mem_free(s);
}

static void hang_up(struct check_server *s)
{
    s->done = 1;
    if (!uv_is_closing((uv_handle_t *)&s->pipe))
        uv_close((uv_handle_t *)&s->pipe, handle_gone);
}

/* It does not do as it should. What it has forked dies with it. */
static void give_up(struct check_server *s)
{
    hang_up(s);
    if (s->spawned && !uv_is_closing((uv_handle_t *)&s->process))
        kill(s->process.pid, SIGKILL);
}

static void on_exit_server(uv_process_t *p, int64_t status, int signal)
{
    struct check_server *s = p->data;

    s->status = status;
    s->signal = signal;
    s->done = 1; /* what it has said still comes, and then the end of the pipe */
    uv_close((uv_handle_t *)p, handle_gone);
}

/* ---- news ---- */

static int add_text(struct str *text, const ProtobufCBinaryData *more)
{
    if (text->len + more->len <= IO_CAPTURE_MAX)
        str_add_bytes(text, more->data, more->len);
    return text->failed;
}

static void take_news(struct check_server *s, const Hone__V1__CheckNews *news)
{
    struct asked *a = s->asked;

    s->heard = 1;
    while (a && a->id != news->id)
        a = a->next;
    if (!a)
        return;
    if ((news->has_out && add_text(&a->text[0], &news->out)) ||
        (news->has_err && add_text(&a->text[1], &news->err)))
        log_error("check a job: out of memory for what it says");
    if (news->has_status)
        conclude(s, a,
                 (struct io_exit){.status = (int)news->status,
                                  .signal = news->has_signal ? (int)news->signal : 0,
                                  .late = news->has_late && news->late});
}

static int take_bytes(struct check_server *s, size_t n, struct err *e)
{
    const uint8_t *body;
    size_t len;
    int rc = frame_feed(&s->in, s->buf, n, e);

    while (!rc && (rc = frame_next(&s->in, &body, &len, e)) > 0) {
        ProtobufCMessage *m;

        rc = message_unpack(&hone__v1__check_news__descriptor, body, len, &m, e);
        if (rc)
            break;
        take_news(s, (Hone__V1__CheckNews *)m);
        message_free(m);
    }
    return rc;
}

static void give_buffer(uv_handle_t *h, size_t hint, uv_buf_t *buf)
{
    struct check_server *s = h->data;

    (void)hint;
    *buf = uv_buf_init(s->buf, sizeof s->buf);
}

static void on_news(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct check_server *s = stream->data;
    struct err e;

    (void)buf;
    if (n < 0) {
        give_up(s);
    } else if (n > 0 && take_bytes(s, (size_t)n, &e)) {
        log_error("check a job: %s", e.msg);
        give_up(s);
    } else if (s->done && !s->asked) {
        hang_up(s); /* it was to finish what it had */
    }
}

/* ---- the beginning of a server ---- */

static int copy_command(struct check_server *s, const char *program, char **env,
                        struct err *e)
{
    size_t n = 0;

    s->program = arena_strdup(&s->arena, program);
    if (!s->program)
        return no_memory(e);
    if (!env)
        return 0;
    while (env[n])
        n++;
    s->env = arena_array(&s->arena, n + 1, sizeof *s->env);
    if (!s->env)
        return no_memory(e);
    for (size_t i = 0; i < n; i++)
        if (!(s->env[i] = arena_strdup(&s->arena, env[i])))
            return no_memory(e);
    return 0;
}

static int launch(struct check_server *s)
{
    char *argv[] = {s->program, (char *)"--checks", NULL};
    uv_stdio_container_t stdio[4] = {{UV_IGNORE}, {UV_IGNORE}, {UV_INHERIT_FD}};
    uv_process_options_t options = {.exit_cb = on_exit_server,
                                    .file = s->program,
                                    .args = argv,
                                    .env = s->env,
                                    .stdio = stdio,
                                    .stdio_count = 4,
                                    .flags = UV_PROCESS_DETACHED};
    int rc = uv_pipe_init(s->owner->loop, &s->pipe, 0);

    if (rc)
        return rc;
    s->pipe.data = s->process.data = s;
    s->open = 2; /* uv_spawn() makes the handle even when it fails */
    stdio[2].data.fd = STDERR_FILENO;
    stdio[3].flags = UV_CREATE_PIPE | UV_READABLE_PIPE | UV_WRITABLE_PIPE;
    stdio[3].data.stream = (uv_stream_t *)&s->pipe;
    rc = uv_spawn(s->owner->loop, &s->process, &options);
    s->spawned = !rc;
    if (!rc)
        rc = uv_read_start((uv_stream_t *)&s->pipe, give_buffer, on_news);
    if (rc)
        give_up(s);
    if (!s->spawned)
        uv_close((uv_handle_t *)&s->process, handle_gone);
    return rc;
}

static int start_server(struct checkers *c, const char *program, char **env,
                        const struct stat *file, struct check_server **out, struct err *e)
{
    struct check_server *s = mem_alloc(sizeof *s);
    int rc = s ? copy_command(s, program, env, e) : no_memory(e);

    if (!rc) {
        s->owner = c;
        s->file = *file;
        frame_reader_init(&s->in, FRAME_CAP);
        rc = launch(s);
        if (!rc) {
            s->next = c->servers;
            c->servers = *out = s;
            return 0;
        }
        err_set(e, ERR_FAILED, "start %s: %s", program, uv_strerror(rc));
        if (s->open)
            return e->code; /* freed with its handles */
    }
    if (s)
        arena_fini(&s->arena);
    mem_free(s);
    return e->code;
}

static int same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
           a->st_mtim.tv_nsec == b->st_mtim.tv_nsec && a->st_size == b->st_size;
}

/* The one that serves now, or a new one. */
static int find_server(struct checkers *c, const char *program, char **env,
                       struct check_server **out, struct err *e)
{
    struct stat file;

    if (stat(program, &file))
        memset(&file, 0, sizeof file); /* starting it will say why */
    for (struct check_server *s = c->servers; s; s = s->next) {
        if (s->done)
            continue;
        if (same_file(&file, &s->file) && !strcmp(program, s->program)) {
            *out = s;
            return 0;
        }
        s->done = 1;
        if (!s->asked)
            hang_up(s);
    }
    return start_server(c, program, env, &file, out, e);
}

/* ---- asking ---- */

static void on_written(uv_write_t *request, int status)
{
    struct net_write *w = (struct net_write *)request;

    (void)status; /* a broken pipe shows on reading */
    mem_free(w->bytes);
    mem_free(w);
}

static int tell(struct check_server *s, const Hone__V1__CheckOrder *order)
{
    struct str out = {0};
    struct err e;
    int rc = message_frame(&order->base, &out, &e);

    if (!rc)
        rc = net_write((uv_stream_t *)&s->pipe, out.s, out.len, on_written);
    str_fini(&out);
    return rc;
}

static void watch_over(uv_timer_t *t)
{
    struct checkers *c = t->data;
    int busy = 0;

    for (struct check_server *s = c->servers; s; s = s->next) {
        Hone__V1__CheckOrder ping = HONE__V1__CHECK_ORDER__INIT;

        if (!s->asked || uv_is_closing((uv_handle_t *)&s->pipe))
            continue;
        busy = 1;
        if (s->pinged && !s->heard) {
            log_warn("the process that checks jobs (%d) says nothing: it is replaced",
                     s->process.pid);
            give_up(s);
            continue;
        }
        s->pinged = !s->heard;
        s->heard = 0;
        if (s->pinged && tell(s, &ping))
            give_up(s);
    }
    if (!busy)
        uv_timer_stop(t);
}

static int ask(struct checkers *c, const char *program, char **env, struct asked *a,
               struct err *e)
{
    uint64_t ms = (uint64_t)(c->patience * 1000) + 1;
    struct check_server *s = NULL;
    struct asked **p;

    if (find_server(c, program, env, &s, e))
        return e->code;
    if (net_write((uv_stream_t *)&s->pipe, a->order.s, a->order.len, on_written))
        return no_memory(e);
    for (p = &s->asked; *p; p = &(*p)->next)
        ;
    *p = a;
    a->next = NULL;
    if (!uv_is_active((uv_handle_t *)&c->watchdog))
        uv_timer_start(&c->watchdog, watch_over, ms, ms);
    return 0;
}

int checkers_start(struct checkers *c, uint64_t id, const struct io_command *cmd,
                   struct err *e)
{
    Hone__V1__CheckOrder order = HONE__V1__CHECK_ORDER__INIT;
    struct asked *a = mem_alloc(sizeof *a);
    int rc;

    if (!a)
        return no_memory(e);
    order.id = a->id = id;
    order.argv = (char **)(uintptr_t)(cmd->argv + 1);
    while (order.argv[order.n_argv])
        order.n_argv++;
    order.has_memory = cmd->memory > 0;
    order.memory = cmd->memory;
    order.has_seconds = cmd->seconds > 0;
    order.seconds = cmd->seconds;
    rc = message_frame(&order.base, &a->order, e);
    if (!rc)
        rc = ask(c, cmd->argv[0], (char **)(uintptr_t)cmd->env, a, e);
    if (rc)
        free_asked(a);
    return rc;
}

int checkers_kill(struct checkers *c, uint64_t id)
{
    Hone__V1__CheckOrder order = HONE__V1__CHECK_ORDER__INIT;

    order.id = id;
    order.has_kill = order.kill = 1;
    for (struct check_server *s = c->servers; s; s = s->next)
        for (struct asked *a = s->asked; a; a = a->next) {
            if (a->id != id)
                continue;
            a->killed = 1;
            if (!uv_is_closing((uv_handle_t *)&s->pipe) && tell(s, &order))
                give_up(s);
            return 1;
        }
    return 0;
}

int checkers_init(struct checkers *c, uv_loop_t *loop, double patience,
                  void (*ended)(void *ctx, uint64_t id, const struct io_exit *how),
                  void *ctx)
{
    memset(c, 0, sizeof *c);
    c->loop = loop;
    c->patience = patience;
    c->ended = ended;
    c->ctx = ctx;
    c->watchdog.data = c;
    return uv_timer_init(loop, &c->watchdog);
}

void checkers_fini(struct checkers *c)
{
    if (!c->loop || c->closed)
        return;
    c->closed = 1;
    uv_close((uv_handle_t *)&c->watchdog, NULL);
    for (struct check_server *s = c->servers; s; s = s->next) {
        int alive = !uv_is_closing((uv_handle_t *)&s->process);

        give_up(s);
        if (!alive)
            continue;
        waitpid(s->process.pid, NULL, 0); /* the loop will not */
        uv_close((uv_handle_t *)&s->process, handle_gone);
    }
}
