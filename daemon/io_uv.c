/* The outside world through libuv: see io.h.
 *
 * Objects with handles are freed in their close callbacks only. A process is reported when
 * it has ended and, where its output is captured, both pipes have reached their end. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "daemon/checkers.h"
#include "daemon/io.h"
#include "daemon/net.h"
#include "daemon/proc.h"

enum { N_SIGNALS = 3, STATUS_MAX = 16 };

static const double patience = 5; /* seconds, with the process that forks checks */

struct uv_child {
    uv_process_t process;
    uv_pipe_t pipe[2];
    struct str text[2];
    struct io_uv *io;
    uint64_t id;
    struct uv_child *next;
    int open;  /* handles not yet closed */
    int ended; /* exit status is known */
    int64_t status;
    int signal;
    /* One that an earlier daemon started: */
    uv_poll_t poll; /* of its pidfd */
    pid_t adopted;  /* 0: it is our own */
    int pidfd;
    char *status_file;
};

struct io_uv {
    struct io base;
    uv_loop_t loop;
    struct net net;
    struct checkers checkers;
    uv_pipe_t owner;
    uv_timer_t timer;
    uv_signal_t signals[N_SIGNALS];
    struct uv_child *children;
    uint64_t next_id;
    int has_owner;
    char owner_in[64];
};

static struct io_uv *uv_of(struct io *io)
{
    return (struct io_uv *)io;
}

/* ---- connections ---- */

static void io_send(struct io *io, uint64_t conn, const void *p, size_t n)
{
    net_send(&uv_of(io)->net, conn, p, n);
}

static size_t io_unsent(struct io *io, uint64_t conn)
{
    return net_unsent(&uv_of(io)->net, conn);
}

static void io_close(struct io *io, uint64_t conn)
{
    net_close(&uv_of(io)->net, conn);
}

static int io_peer(struct io *io, uint64_t conn, struct io_peer *peer)
{
    return net_peer(&uv_of(io)->net, conn, peer);
}

static void io_settle(struct io *io, uint64_t conn)
{
    net_settle(&uv_of(io)->net, conn);
}

static void io_respond(struct io *io, uint64_t request, const struct io_response *r)
{
    net_respond(&uv_of(io)->net, request, r);
}

/* ---- processes ---- */

static void report_child(struct uv_child *c)
{
    struct io_uv *io = c->io;
    struct uv_child **p = &io->children;
    struct io_exit how = {(int)c->status, c->signal, str_get(&c->text[0]),
                          str_get(&c->text[1])};

    while (*p != c)
        p = &(*p)->next;
    *p = c->next;
    if (c->ended)
        io->base.events->exited(io->base.ctx, c->id, &how);
    str_fini(&c->text[0]);
    str_fini(&c->text[1]);
    mem_free(c->status_file);
    mem_free(c);
}

static void child_handle_gone(uv_handle_t *h)
{
    struct uv_child *c = h->data;

    if (--c->open == 0)
        report_child(c);
}

static void on_exit_child(uv_process_t *p, int64_t status, int signal)
{
    struct uv_child *c = (struct uv_child *)p;

    c->ended = 1;
    c->status = status;
    c->signal = signal;
    uv_close((uv_handle_t *)p, child_handle_gone);
}

static void give_text(uv_handle_t *h, size_t hint, uv_buf_t *buf)
{
    static char text[65536];

    (void)h;
    (void)hint;
    *buf = uv_buf_init(text, sizeof text);
}

static void on_text(uv_stream_t *s, ssize_t n, const uv_buf_t *buf)
{
    struct uv_child *c = s->data;
    struct str *text = &c->text[s == (uv_stream_t *)&c->pipe[1]];

    if (n > 0 && text->len + (size_t)n <= IO_CAPTURE_MAX)
        str_add_bytes(text, buf->base, (size_t)n);
    else if (n < 0 && !uv_is_closing((uv_handle_t *)s))
        uv_close((uv_handle_t *)s, child_handle_gone);
}

static int capture(struct io_uv *io, struct uv_child *c, uv_stdio_container_t stdio[])
{
    for (int i = 0; i < 2; i++) {
        int rc = uv_pipe_init(&io->loop, &c->pipe[i], 0);

        if (rc)
            return rc;
        c->pipe[i].data = c;
        c->open++;
        stdio[i + 1].flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE;
        stdio[i + 1].data.stream = (uv_stream_t *)&c->pipe[i];
    }
    return 0;
}

static int start(struct io_uv *io, const struct io_command *cmd, struct uv_child *c,
                 int log_fd)
{
    uv_stdio_container_t stdio[4] = {{UV_IGNORE}, {UV_IGNORE}, {UV_IGNORE}, {UV_IGNORE}};
    uv_process_options_t options = {0};
    int rc = 0;

    options.exit_cb = on_exit_child;
    options.file = cmd->argv[0];
    options.args = (char **)(uintptr_t)cmd->argv;
    options.env = (char **)(uintptr_t)cmd->env;
    options.stdio = stdio;
    options.stdio_count = cmd->keep_fd >= 0 ? 4 : 3;
    /* Its own session: a terminal's ctrl-C is for the command alone, which asks us. */
    options.flags = UV_PROCESS_DETACHED;
    if (log_fd >= 0) {
        stdio[1].flags = stdio[2].flags = UV_INHERIT_FD;
        stdio[1].data.fd = stdio[2].data.fd = log_fd;
    } else {
        rc = capture(io, c, stdio);
    }
    if (cmd->keep_fd >= 0) {
        stdio[3].flags = UV_INHERIT_FD;
        stdio[3].data.fd = cmd->keep_fd;
    }
    c->process.data = c;
    if (!rc) {
        rc = uv_spawn(&io->loop, &c->process, &options);
        c->open++; /* uv_spawn() makes the handle even when it fails */
    }
    for (int i = 0; !rc && log_fd < 0 && i < 2; i++)
        rc = uv_read_start((uv_stream_t *)&c->pipe[i], give_text, on_text);
    return rc;
}

static void abandon(struct uv_child *c, int log_fd)
{
    int open = c->open;

    if (log_fd < 0)
        for (int i = 0; i < 2 && i < open; i++)
            uv_close((uv_handle_t *)&c->pipe[i], child_handle_gone);
    if (open == (log_fd < 0 ? 3 : 1))
        uv_close((uv_handle_t *)&c->process, child_handle_gone);
    if (open == 0)
        report_child(c);
}

/* The child runs on these cores: it inherits what we are bound to while it is made. */
static int bind_cores(const struct cores *cores, cpu_set_t *old)
{
    cpu_set_t set;

    if (!cores || !cores_count(cores) || sched_getaffinity(0, sizeof *old, old))
        return 0;
    CPU_ZERO(&set);
    for (int i = 0; i < CORES_MAX && i < CPU_SETSIZE; i++)
        if (cores_has(cores, i))
            CPU_SET(i, &set);
    return !sched_setaffinity(0, sizeof set, &set);
}

static int spawn_own(struct io *base, const struct io_command *cmd, uint64_t *child,
                     struct err *e)
{
    struct io_uv *io = uv_of(base);
    struct uv_child *c = mem_alloc(sizeof *c);
    int log_fd = -1, bound, rc;
    cpu_set_t old;

    if (!c)
        return err_set(e, ERR_NOMEM, "start %s: out of memory", cmd->argv[0]);
    if (cmd->log) {
        log_fd = open(cmd->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
        if (log_fd < 0) {
            rc = err_errno(e, ERR_IO, errno, "open %s", cmd->log);
            mem_free(c);
            return rc;
        }
    }
    c->io = io;
    c->id = io->next_id++;
    c->next = io->children;
    io->children = c;
    bound = bind_cores(cmd->cores, &old);
    rc = start(io, cmd, c, log_fd);
    if (bound)
        sched_setaffinity(0, sizeof old, &old);
    if (rc) {
        err_set(e, ERR_FAILED, "start %s: %s", cmd->argv[0], uv_strerror(rc));
        abandon(c, log_fd);
    } else {
        *child = c->id;
    }
    if (log_fd >= 0)
        close(log_fd);
    return rc ? e->code : 0;
}

static void on_checked(void *ctx, uint64_t id, const struct io_exit *how)
{
    struct io_uv *io = ctx;

    io->base.events->exited(io->base.ctx, id, how);
}

static int io_spawn(struct io *base, const struct io_command *cmd, uint64_t *child,
                    struct err *e)
{
    struct io_uv *io = uv_of(base);
    int rc;

    if (!cmd->check)
        return spawn_own(base, cmd, child, e);
    rc = checkers_start(&io->checkers, io->next_id, cmd, e);
    if (!rc)
        *child = io->next_id++;
    return rc;
}

/* ---- processes of an earlier daemon ---- */

/* How it ended: as its file says, or else it was killed. */
static void read_status(struct uv_child *c)
{
    char *text;
    size_t n;
    struct err e;
    long status;

    c->ended = 1;
    c->signal = SIGKILL;
    if (!c->status_file || file_read(c->status_file, STATUS_MAX, &text, &n, &e))
        return;
    text[strcspn(text, "\n")] = '\0';
    if (!str_to_long(text, &status) && status >= 0 && status < 256) {
        c->status = status;
        c->signal = 0;
    }
    mem_free(text);
}

static void on_adopted_gone(uv_poll_t *poll, int status, int events)
{
    struct uv_child *c = poll->data;

    (void)status;
    (void)events;
    read_status(c);
    uv_poll_stop(poll);
    close(c->pidfd);
    uv_close((uv_handle_t *)poll, child_handle_gone);
}

static int watch_adopted(struct io_uv *io, struct uv_child *c, const char *status)
{
    int rc;

    c->status_file = mem_strdup(status);
    if (!c->status_file)
        return UV_ENOMEM;
    rc = uv_poll_init(&io->loop, &c->poll, c->pidfd);
    if (rc)
        return rc;
    c->poll.data = c;
    c->open++;
    rc = uv_poll_start(&c->poll, UV_READABLE, on_adopted_gone);
    invariant(!rc);
    return 0;
}

static int io_adopt(struct io *base, const char *mark, const char *status, uint64_t *child,
                    int *kept, struct err *e)
{
    struct io_uv *io = uv_of(base);
    struct uv_child *c = mem_alloc(sizeof *c);
    int rc;

    *child = 0;
    *kept = -1;
    if (!c)
        return err_set(e, ERR_NOMEM, "find a worker: out of memory");
    rc = proc_find(mark, &c->adopted, &c->pidfd, kept, e);
    if (!rc && c->adopted && (rc = watch_adopted(io, c, status)))
        rc = err_set(e, ERR_FAILED, "watch process %ld: %s", (long)c->adopted,
                     uv_strerror(rc));
    if (rc || !c->adopted) {
        if (*kept >= 0)
            close(*kept);
        if (c->adopted)
            close(c->pidfd);
        *kept = -1;
        mem_free(c->status_file);
        mem_free(c);
        return rc;
    }
    c->io = io;
    c->id = io->next_id++;
    c->next = io->children;
    io->children = c;
    *child = c->id;
    return 0;
}

/* A worker leads its session, and with it all that it started. */
static void io_kill(struct io *base, uint64_t child, int signal, int whole)
{
    if (checkers_kill(&uv_of(base)->checkers, child))
        return;
    for (struct uv_child *c = uv_of(base)->children; c; c = c->next) {
        pid_t pid = c->adopted ? c->adopted : c->process.pid;

        if (c->id == child && !c->ended && pid > 0)
            kill(whole ? -pid : pid, signal);
    }
}

static void io_sweep(struct io *base, const char *mark)
{
    (void)base;
    proc_sweep(mark);
}

/* ---- time, signals, owner ---- */

static double io_now(struct io *base)
{
    (void)base;
    return clock_now();
}

static void on_timer(uv_timer_t *t)
{
    struct io_uv *io = t->data;

    io->base.events->wake(io->base.ctx);
}

static void io_wake_at(struct io *base, double when)
{
    struct io_uv *io = uv_of(base);
    double left = when - clock_now();

    if (isinf(when)) {
        uv_timer_stop(&io->timer);
        return;
    }
    uv_update_time(&io->loop);
    uv_timer_start(&io->timer, on_timer, left > 0 ? (uint64_t)(left * 1000) + 1 : 0, 0);
}

static void io_stop(struct io *base)
{
    uv_stop(&uv_of(base)->loop);
}

/* SIGHUP ends a private daemon; one that is left running looks for new certificates. */
static void on_signal(uv_signal_t *s, int signal)
{
    struct io_uv *io = s->data;

    if (signal == SIGHUP && !io->has_owner) {
        if (io->net.certs)
            certs_now(io->net.certs);
        return;
    }
    io->base.events->ending(io->base.ctx, signal);
}

static void give_owner_buffer(uv_handle_t *h, size_t hint, uv_buf_t *buf)
{
    struct io_uv *io = h->data;

    (void)hint;
    *buf = uv_buf_init(io->owner_in, sizeof io->owner_in);
}

static void on_owner(uv_stream_t *s, ssize_t n, const uv_buf_t *buf)
{
    struct io_uv *io = s->data;

    (void)buf;
    if (n < 0) {
        uv_read_stop(s);
        io->base.events->ending(io->base.ctx, 0);
    }
}

/* ---- open, run, close ---- */

static const struct io_ops ops = {io_now,   io_send,    io_unsent, io_close, io_spawn,
                                  io_kill,  io_wake_at, io_stop,   io_peer,  io_settle,
                                  io_adopt, io_respond, io_sweep};

static int open_handles(struct io_uv *io, int listen_fd, int owner_fd)
{
    static const int wanted[N_SIGNALS] = {SIGTERM, SIGINT, SIGHUP};
    int rc = net_init(&io->net, &io->loop, &io->base, &io->next_id);
    struct err e;

    io->owner.data = io->timer.data = io;
    io->has_owner = owner_fd >= 0;
    if (!rc)
        rc = checkers_init(&io->checkers, &io->loop, patience, on_checked, io);
    if (!rc)
        rc = uv_timer_init(&io->loop, &io->timer);
    if (!rc && net_listen(&io->net, listen_fd, ADDRESS_UNIX, &e))
        rc = UV_ENOMEM;
    for (int i = 0; !rc && i < N_SIGNALS; i++) {
        rc = uv_signal_init(&io->loop, &io->signals[i]);
        io->signals[i].data = io;
        if (!rc)
            rc = uv_signal_start(&io->signals[i], on_signal, wanted[i]);
    }
    if (rc || owner_fd < 0)
        return rc;
    rc = uv_pipe_init(&io->loop, &io->owner, 0);
    if (!rc)
        rc = uv_pipe_open(&io->owner, owner_fd);
    if (!rc)
        rc = uv_read_start((uv_stream_t *)&io->owner, give_owner_buffer, on_owner);
    return rc;
}

int io_uv_open(struct io **out, int listen_fd, int owner_fd, struct err *e)
{
    struct io_uv *io = mem_alloc(sizeof *io);
    int rc;

    *out = NULL;
    if (!io)
        return err_set(e, ERR_NOMEM, "event loop: out of memory");
    io->base.ops = &ops;
    io->next_id = 1;
    rc = uv_loop_init(&io->loop);
    if (rc) {
        mem_free(io);
        return err_set(e, ERR_IO, "event loop: %s", uv_strerror(rc));
    }
    rc = open_handles(io, listen_fd, owner_fd);
    if (rc) {
        io_uv_close(&io->base);
        return err_set(e, ERR_IO, "event loop: %s", uv_strerror(rc));
    }
    *out = &io->base;
    return 0;
}

int io_uv_listen(struct io *base, int fd, enum address_kind kind, struct err *e)
{
    return net_listen(&uv_of(base)->net, fd, kind, e);
}

void io_uv_use_tls(struct io *base, struct certs *certs)
{
    net_use_tls(&uv_of(base)->net, certs);
}

void io_uv_run(struct io *base)
{
    uv_run(&uv_of(base)->loop, UV_RUN_DEFAULT);
}

static void close_handle(uv_handle_t *h, void *arg)
{
    struct io_uv *io = arg;
    int ours = h == (uv_handle_t *)&io->owner || h == (uv_handle_t *)&io->timer ||
               h->type == UV_SIGNAL;

    if (uv_is_closing(h))
        return;
    if (ours)
        uv_close(h, NULL);
    else
        uv_close(h, child_handle_gone);
}

static void ignore_exit(void *ctx, uint64_t child, const struct io_exit *how)
{
    (void)ctx;
    (void)child;
    (void)how;
}

void io_uv_close(struct io *base)
{
    static const struct io_events deaf = {.exited = ignore_exit};
    struct io_uv *io;

    if (!base)
        return;
    io = uv_of(base);
    io->base.events = &deaf;
    net_fini(&io->net);
    checkers_fini(&io->checkers);
    uv_walk(&io->loop, close_handle, io);
    uv_run(&io->loop, UV_RUN_DEFAULT);
    uv_loop_close(&io->loop);
    mem_free(io);
}
