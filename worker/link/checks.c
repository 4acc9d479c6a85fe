/* Checks in forked processes: see checks.h.
 *
 * One thread in ppoll(): orders, what checks print, and SIGCHLD, which is blocked
 * elsewhere. Output is kept until there is a piece worth sending or the check has ended. */
#include "worker/link/checks.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/standard.h"
#include "base/str.h"
#include "check.pb-c.h"
#include "proto/frame.h"
#include "proto/message.h"

enum { CHECKS_FD = 3, PIECE = 65536, AT_ONCE_MAX = 256 };

struct check {
    Hone__V1__CheckOrder *order;
    pid_t pid; /* 0: it waits for its turn */
    int fd[2]; /* of its output and errors, -1: closed */
    struct str text[2];
    double until;
    int late;
    struct check *next;
};

struct checks {
    int (*run)(int argc, char **argv);
    int fd, at_once, running;
    struct check *first; /* in order of arrival */
    struct frame_reader in;
};

static void on_child(int sig)
{
    (void)sig; /* it ends ppoll() */
}

static int no_memory(struct err *e)
{
    return err_set(e, ERR_NOMEM, "checks: out of memory");
}

/* ---- news ---- */

static int say(struct checks *s, Hone__V1__CheckNews *news, struct err *e)
{
    struct str out = {0};
    size_t done = 0;
    int rc = message_frame(&news->base, &out, e);

    while (!rc && done < out.len) {
        ssize_t n = send(s->fd, out.s + done, out.len - done, MSG_NOSIGNAL);

        if (n > 0)
            done += (size_t)n;
        else if (errno != EINTR)
            rc = err_errno(e, ERR_UNREACHABLE, errno, "checks: send");
    }
    str_fini(&out);
    return rc;
}

static void add_text(struct check *c, Hone__V1__CheckNews *news)
{
    news->has_out = c->text[0].len > 0;
    news->out.data = (uint8_t *)c->text[0].s;
    news->out.len = c->text[0].len;
    news->has_err = c->text[1].len > 0;
    news->err.data = (uint8_t *)c->text[1].s;
    news->err.len = c->text[1].len;
}

static int tell_text(struct checks *s, struct check *c, struct err *e)
{
    Hone__V1__CheckNews news = HONE__V1__CHECK_NEWS__INIT;
    int rc;

    news.id = c->order->id;
    add_text(c, &news);
    rc = say(s, &news, e);
    str_clear(&c->text[0]);
    str_clear(&c->text[1]);
    return rc;
}

/* Read what a check has printed, up to the end or until there is no more now. */
static int drain(struct checks *s, struct check *c, int which, struct err *e)
{
    static char buf[PIECE];
    ssize_t n;
    int rc = 0;

    while (!rc && c->fd[which] >= 0) {
        n = read(c->fd[which], buf, sizeof buf);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n <= 0) {
            close(c->fd[which]);
            c->fd[which] = -1;
            break;
        }
        str_add_bytes(&c->text[which], buf, (size_t)n);
        if (str_failed(&c->text[which]))
            rc = no_memory(e);
        else if (c->text[0].len + c->text[1].len >= PIECE)
            rc = tell_text(s, c, e);
    }
    return rc;
}

/* ---- the forked process ---- */

static void limit(int what, uint64_t n)
{
    struct rlimit r = {n, n};

    setrlimit(what, &r); /* refused: an outer limit is lower, and holds */
}

static void close_from(int fd)
{
    if (!syscall(SYS_close_range, (unsigned)fd, ~0U, 0))
        return;
    for (long max = sysconf(_SC_OPEN_MAX); fd < max; fd++)
        close(fd);
}

static _Noreturn void become(struct checks *s, const Hone__V1__CheckOrder *o, pid_t parent,
                             int out, int err)
{
    struct sigaction normal = {.sa_handler = SIG_DFL};
    sigset_t none;

    sigemptyset(&none);
    sigaction(SIGCHLD, &normal, NULL);
    sigaction(SIGPIPE, &normal, NULL);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent || dup2(out, STDOUT_FILENO) < 0 || dup2(err, STDERR_FILENO) < 0)
        _exit(1);
    close_from(STDERR_FILENO + 1);
    limit(RLIMIT_CORE, 0);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* they need more */
    if (o->has_memory && o->memory)
        limit(RLIMIT_DATA, o->memory);
#endif
    _exit(standard_close("hone", s->run((int)o->n_argv, o->argv))); /* no destructors */
}

/* ---- checks ---- */

static void free_check(struct check *c)
{
    for (int i = 0; i < 2; i++) {
        if (c->fd[i] >= 0)
            close(c->fd[i]);
        str_fini(&c->text[i]);
    }
    message_free(&c->order->base);
    mem_free(c);
}

/* It has ended: say so and forget it. */
static int conclude(struct checks *s, struct check *c, int status, int signal,
                    struct err *e)
{
    Hone__V1__CheckNews news = HONE__V1__CHECK_NEWS__INIT;
    struct check **p = &s->first;
    int rc = 0;

    while (*p != c)
        p = &(*p)->next;
    *p = c->next;
    s->running -= c->pid != 0;
    for (int i = 0; !rc && i < 2; i++)
        rc = drain(s, c, i, e);
    news.id = c->order->id;
    add_text(c, &news);
    news.has_status = news.has_signal = news.has_late = 1;
    news.status = (uint32_t)status;
    news.signal = (uint32_t)signal;
    news.late = c->late;
    if (!rc)
        rc = say(s, &news, e);
    free_check(c);
    return rc;
}

static int open_pipes(struct check *c, int child[2], struct err *e)
{
    for (int i = 0; i < 2; i++) {
        int fd[2];

        if (pipe2(fd, O_CLOEXEC))
            return err_errno(e, ERR_FAILED, errno, "checks: pipe");
        c->fd[i] = fd[0];
        child[i] = fd[1];
        if (fcntl(fd[0], F_SETFL, O_NONBLOCK))
            return err_errno(e, ERR_FAILED, errno, "checks: pipe");
    }
    return 0;
}

static int start(struct checks *s, struct check *c, struct err *e)
{
    pid_t self = getpid(), pid;
    int child[2] = {-1, -1}, rc = open_pipes(c, child, e);

    if (!rc) {
        pid = fork();
        if (pid == 0)
            become(s, c->order, self, child[0], child[1]);
        if (pid < 0)
            rc = err_errno(e, ERR_FAILED, errno, "checks: start a process");
        else
            c->pid = pid;
    }
    for (int i = 0; i < 2; i++)
        if (child[i] >= 0)
            close(child[i]);
    if (rc)
        return rc;
    setpgid(c->pid, c->pid); /* it does the same: whoever comes first */
    s->running++;
    c->until = c->order->has_seconds ? clock_now() + c->order->seconds : INFINITY;
    return 0;
}

/* Those whose turn it is. One that cannot be started has failed, and says why. */
static int start_some(struct checks *s, struct err *e)
{
    for (struct check *c = s->first, *next; c && s->running < s->at_once; c = next) {
        struct err why;

        next = c->next;
        if (c->pid || !start(s, c, &why))
            continue;
        str_addf(&c->text[1], "hone: %s\n", why.msg);
        if (conclude(s, c, 1, 0, e))
            return e->code;
    }
    return 0;
}

static int reap(struct checks *s, struct err *e)
{
    int status, rc = 0;

    for (struct check *c = s->first, *next; !rc && c; c = next) {
        next = c->next;
        if (c->pid && waitpid(c->pid, &status, WNOHANG) == c->pid)
            rc = conclude(s, c, WIFEXITED(status) ? WEXITSTATUS(status) : 0,
                          WIFSIGNALED(status) ? WTERMSIG(status) : 0, e);
    }
    return rc;
}

static void kill_late(struct checks *s)
{
    double now = clock_now();

    for (struct check *c = s->first; c; c = c->next)
        if (c->pid && now >= c->until && !c->late) {
            c->late = 1;
            kill(-c->pid, SIGKILL);
        }
}

/* ---- orders ---- */

static int kill_check(struct checks *s, uint64_t id, struct err *e)
{
    struct check *c = s->first;

    while (c && c->order->id != id)
        c = c->next;
    if (!c)
        return 0; /* its end is on the way */
    if (!c->pid)
        return conclude(s, c, 0, SIGKILL, e);
    kill(-c->pid, SIGKILL);
    return 0;
}

static int add_check(struct checks *s, Hone__V1__CheckOrder *order, struct err *e)
{
    struct check *c = mem_alloc(sizeof *c), **p = &s->first;

    if (!c) {
        message_free(&order->base);
        return no_memory(e);
    }
    c->order = order;
    c->fd[0] = c->fd[1] = -1;
    while (*p)
        p = &(*p)->next;
    *p = c;
    return 0;
}

static int take_order(struct checks *s, Hone__V1__CheckOrder *order, struct err *e)
{
    Hone__V1__CheckNews here = HONE__V1__CHECK_NEWS__INIT;
    int rc;

    if (order->id && !(order->has_kill && order->kill) && order->n_argv)
        return add_check(s, order, e);
    rc = order->id ? kill_check(s, order->id, e) : say(s, &here, e);
    message_free(&order->base);
    return rc;
}

/* 1: the daemon has gone. */
static int take_orders(struct checks *s, struct err *e)
{
    char buf[PIECE];
    ssize_t got = recv(s->fd, buf, sizeof buf, MSG_DONTWAIT);
    const uint8_t *body;
    size_t n;
    int rc;

    if (got == 0 || (got < 0 && errno == ECONNRESET))
        return 1;
    if (got < 0)
        return errno == EAGAIN || errno == EINTR
                   ? 0
                   : err_errno(e, ERR_UNREACHABLE, errno, "checks: receive");
    rc = frame_feed(&s->in, buf, (size_t)got, e);
    while (!rc && (rc = frame_next(&s->in, &body, &n, e)) > 0) {
        ProtobufCMessage *m;

        rc = message_unpack(&hone__v1__check_order__descriptor, body, n, &m, e);
        if (!rc)
            rc = take_order(s, (Hone__V1__CheckOrder *)m, e);
    }
    return rc;
}

/* ---- the loop ---- */

static int wait_for_something(struct checks *s, int *orders, struct err *e)
{
    struct pollfd p[1 + 2 * AT_ONCE_MAX] = {{s->fd, POLLIN, 0}};
    struct timespec left, *limit_by = NULL;
    double until = INFINITY, now;
    sigset_t none;
    nfds_t n = 1;
    int rc = 0;

    for (struct check *c = s->first; c; c = c->next) {
        if (!c->pid)
            continue;
        p[n++] = (struct pollfd){c->fd[0], POLLIN, 0};
        p[n++] = (struct pollfd){c->fd[1], POLLIN, 0};
        until = fmin(until, c->late ? INFINITY : c->until);
    }
    if (!isinf(until)) {
        now = clock_now();
        until = until > now ? until - now : 0;
        left.tv_sec = (time_t)until;
        left.tv_nsec = (long)((until - (double)left.tv_sec) * 1e9);
        limit_by = &left;
    }
    sigemptyset(&none);
    if (ppoll(p, n, limit_by, &none) < 0)
        return errno == EINTR ? 0 : err_errno(e, ERR_FAILED, errno, "checks: poll");
    *orders = p[0].revents != 0;
    n = 1;
    for (struct check *c = s->first; !rc && c; c = c->next)
        for (int i = 0; !rc && c->pid && i < 2; i++)
            if (p[n++].revents)
                rc = drain(s, c, i, e);
    return rc;
}

static int serve(struct checks *s, struct err *e)
{
    int rc = 0, orders = 0;

    while (!rc) {
        rc = wait_for_something(s, &orders, e);
        if (!rc)
            rc = reap(s, e);
        kill_late(s);
        if (!rc && orders)
            rc = take_orders(s, e);
        if (!rc)
            rc = start_some(s, e);
        orders = 0;
    }
    return rc;
}

void checks_go_first(void)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return;
    (void)!write(fd, "1000", 4); /* refused: as likely as the others */
    close(fd);
}

static int prepare(struct checks *s, struct err *e)
{
    struct sigaction child = {.sa_handler = on_child}, ignore = {.sa_handler = SIG_IGN};
    int type;
    socklen_t n = sizeof type;
    cpu_set_t cpus;
    sigset_t set;

    s->fd = CHECKS_FD;
    if (getsockopt(s->fd, SOL_SOCKET, SO_TYPE, &type, &n) || type != SOCK_STREAM)
        return err_set(e, ERR_USAGE, "--checks: descriptor %d is no daemon's socket",
                       s->fd);
    s->at_once = sched_getaffinity(0, sizeof cpus, &cpus) ? 1 : CPU_COUNT(&cpus);
    s->at_once = s->at_once < AT_ONCE_MAX ? s->at_once : AT_ONCE_MAX;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    if (sigprocmask(SIG_BLOCK, &set, NULL) || sigaction(SIGCHLD, &child, NULL) ||
        sigaction(SIGPIPE, &ignore, NULL))
        return err_errno(e, ERR_FAILED, errno, "--checks: signals");
    frame_reader_init(&s->in, FRAME_CAP);
    return 0;
}

int checks_serve(int (*check)(int argc, char **argv))
{
    static struct checks s;
    struct err e;
    int rc;

    s.run = check;
    rc = prepare(&s, &e);
    if (!rc)
        rc = serve(&s, &e);
    while (s.first) {
        struct check *c = s.first;

        s.first = c->next;
        if (c->pid)
            kill(-c->pid, SIGKILL);
        free_check(c);
    }
    frame_reader_fini(&s.in);
    if (rc < 0 && e.code != ERR_UNREACHABLE)
        err_print(&e, "hone");
    return rc < 0 ? err_exit_status(rc) : 0;
}
