/* Streams of files: see tail.h. Text that is not UTF-8 gets '?' in its place, byte by byte,
 * so that offsets stay those of the file. */
#include "daemon/tail.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/str.h"

enum { CHUNK = 32768, BACKLOG_MAX = 1 << 16 };

static const double look_every = 0.25;

struct tail {
    struct rpc_call *call;
    uint64_t job;
    char **path;  /* of the files, one after the other */
    char **stage; /* of each, NULL: the log */
    size_t n, at; /* files; the one that is read */
    uint64_t offset;
    int from_end; /* offset counts from the end of the file */
    int follow;
    struct tail *next;
};

static void free_tail(struct tail *t)
{
    for (size_t i = 0; i < t->n; i++) {
        mem_free(t->path[i]);
        mem_free(t->stage[i]);
    }
    mem_free(t->path);
    mem_free(t->stage);
    mem_free(t);
}

/* Bytes that make valid text, at least one; a character cut at the end waits for the rest
 * unless `all`. */
static size_t mend_text(char *p, size_t n, int all)
{
    size_t i = 0;

    while ((i += str_utf8_valid(p + i, n - i)) < n) {
        if (!all && n - i < 4 && i > 0)
            return i;
        p[i++] = '?';
    }
    for (i = 0; i < n; i++)
        if (!p[i])
            p[i] = '?';
    return n;
}

/* Whole lines alone; a line longer than the buffer goes in pieces. */
static size_t whole_lines(const char *p, size_t n)
{
    const char *end = memrchr(p, '\n', n);

    return end ? (size_t)(end - p) + 1 : n < CHUNK ? 0 : n;
}

static void send(struct tail *t, char *text, size_t n, int more)
{
    Hone__V1__LogChunk log = HONE__V1__LOG_CHUNK__INIT;
    Hone__V1__MetricChunk metric = HONE__V1__METRIC_CHUNK__INIT;
    ProtobufCMessage *m = &log.base;

    text[n] = '\0';
    log.offset = t->offset;
    log.next = t->offset + n;
    log.text = text;
    if (t->n && t->stage[t->at < t->n ? t->at : t->n - 1]) {
        metric.stage = t->stage[t->at < t->n ? t->at : t->n - 1];
        metric.lines = text;
        m = &metric.base;
    }
    if (more)
        rpc_more(t->call, m);
    else
        rpc_reply(m, t->call);
}

/* Bytes read of the current file: 0 also when it is not there. -1: it cannot be read. */
static ssize_t read_file(struct tail *t, char *buf, struct err *e)
{
    int fd = open(t->path[t->at], O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n;

    if (fd < 0 && errno == ENOENT)
        return 0;
    if (fd >= 0 && t->from_end) {
        off_t size = lseek(fd, 0, SEEK_END);

        t->offset = size > (off_t)t->offset ? (uint64_t)size - t->offset : 0;
    }
    t->from_end = 0;
    n = fd < 0 ? -1 : pread(fd, buf, CHUNK, (off_t)t->offset);
    if (n < 0)
        err_errno(e, ERR_IO, errno, "read %s", t->path[t->at]);
    if (fd >= 0)
        close(fd);
    return n;
}

/* Send what it has room for. 1: the stream has ended, the call is gone. */
static int pump(struct daemon *d, struct tail *t)
{
    char buf[CHUNK + 1];
    struct job *j;
    struct err e;
    int over;

    for (;;) {
        ssize_t n = 0;
        size_t use;

        if (d->io->ops->unsent(d->io, t->call->conn) > BACKLOG_MAX)
            return 0;
        j = daemon_find_job(d, t->job);
        over = !t->follow || !j || job_ended(j);
        if (t->at < t->n && (n = read_file(t, buf, &e)) < 0) {
            rpc_fail(t->call, &e);
            return 1;
        }
        use = n > 0 && t->stage[t->at] ? whole_lines(buf, (size_t)n) : (size_t)n;
        if (use)
            use = mend_text(buf, use, (size_t)n < CHUNK && over);
        if (use) {
            send(t, buf, use, 1);
            t->offset += use;
            continue;
        }
        if (!over)
            return 0;
        if (t->at < t->n && ++t->at < t->n) {
            t->offset = 0;
            continue;
        }
        send(t, buf, 0, 0);
        return 1;
    }
}

static void pump_all(struct daemon *d, uint64_t conn)
{
    for (struct tail **p = &d->tails; *p;) {
        struct tail *t = *p;

        if ((conn && t->call->conn != conn) || !pump(d, t)) {
            p = &t->next;
            continue;
        }
        *p = t->next;
        free_tail(t);
    }
}

static void begin(struct rpc_call *call, struct tail *t, const struct err *failed)
{
    struct daemon *d = call->d;

    if (failed) {
        rpc_fail(call, failed);
        if (t)
            free_tail(t);
        return;
    }
    t->call = call;
    if (pump(d, t)) {
        free_tail(t);
        return;
    }
    t->next = d->tails;
    d->tails = t;
}

static struct tail *make(const struct job *j, size_t n, struct err *e)
{
    struct tail *t = mem_alloc(sizeof *t);

    if (t) {
        t->job = j->id;
        t->path = mem_array(n, sizeof *t->path);
        t->stage = mem_array(n, sizeof *t->stage);
        if (t->path && t->stage)
            return t;
        free_tail(t);
    }
    err_set(e, ERR_NOMEM, "out of memory");
    return NULL;
}

static int add_file(struct tail *t, const char *path, const char *stage, struct err *e)
{
    t->path[t->n] = mem_strdup(path);
    t->stage[t->n] = stage ? mem_strdup(stage) : NULL;
    t->n++;
    return t->path[t->n - 1] && (!stage || t->stage[t->n - 1])
               ? 0
               : err_set(e, ERR_NOMEM, "out of memory");
}

void tail_log(struct rpc_call *call, const struct job *j, long long offset, int follow)
{
    char path[FILE_PATH_MAX];
    struct err e;
    struct tail *t = make(j, 1, &e);
    int rc = t ? 0 : e.code;

    if (!rc)
        rc = file_join(path, sizeof path, j->run, "log", &e);
    if (!rc)
        rc = add_file(t, path, NULL, &e);
    if (t) {
        t->follow = follow;
        t->from_end = offset < 0;
        t->offset = offset < 0 ? 0 - (uint64_t)offset : (uint64_t)offset;
    }
    begin(call, t, rc ? &e : NULL);
}

void tail_metrics(struct rpc_call *call, const struct job *j, const char *stage)
{
    char dir[FILE_PATH_MAX], path[FILE_PATH_MAX];
    struct err e;
    struct tail *t = make(j, j->n_stages + 1, &e);
    int rc = t ? 0 : e.code;

    for (size_t i = 0; !rc && i < j->n_stages; i++) {
        if (stage && strcmp(stage, j->stage[i].name) != 0)
            continue;
        rc = file_join(dir, sizeof dir, j->run, j->stage[i].name, &e);
        if (!rc)
            rc = file_join(path, sizeof path, dir, "metrics.jsonl", &e);
        if (!rc)
            rc = add_file(t, path, j->stage[i].name, &e);
    }
    if (!rc && !t->n)
        rc = job_no_stage(j, stage ? stage : "", &e);
    begin(call, t, rc ? &e : NULL);
}

void tail_tick(struct daemon *d)
{
    pump_all(d, 0);
}

double tail_next(const struct daemon *d)
{
    for (const struct tail *t = d->tails; t; t = t->next)
        if (t->follow)
            return d->io->ops->now(d->io) + look_every;
    return INFINITY;
}

void tail_drained(struct daemon *d, uint64_t conn)
{
    pump_all(d, conn);
}

static void drop(struct tail **p)
{
    struct tail *t = *p;

    *p = t->next;
    rpc_drop(t->call);
    free_tail(t);
}

void tail_closed(struct daemon *d, uint64_t conn)
{
    for (struct tail **p = &d->tails; *p;)
        if ((*p)->call->conn == conn)
            drop(p);
        else
            p = &(*p)->next;
}

void tail_free_all(struct daemon *d)
{
    while (d->tails)
        drop(&d->tails);
}
