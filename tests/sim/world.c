/* The outside world of the simulation: see sim.h. Bytes of a connection arrive in order and
 * in pieces; a cut loses what is on its way. A process holds its run folder's lock by a
 * descriptor of its own, as a real one does. */
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "proto/message.h"
#include "tests/sim/sim.h"

void sim_trace(struct sim *s, const char *fmt, ...)
{
    char line[256];
    va_list ap;
    int n = snprintf(line, sizeof line, "%.3f ", s->now);

    va_start(ap, fmt);
    n += vsnprintf(line + n, sizeof line - (size_t)n, fmt, ap);
    va_end(ap);
    if (n > (int)sizeof line - 2)
        n = (int)sizeof line - 2;
    line[n++] = '\n';
    s->hash = hash_bytes(line, (size_t)n) ^ (s->hash * 0x9E3779B97F4A7C15u);
    if (s->verbose)
        fwrite(line, 1, (size_t)n, stderr);
    if (s->n_trace + (size_t)n > sizeof s->trace)
        s->n_trace = 0;
    memcpy(s->trace + s->n_trace, line, (size_t)n);
    s->n_trace += (size_t)n;
}

_Noreturn void sim_fail(struct sim *s, const char *file, int line, const char *what)
{
    size_t from = s->n_trace > 4000 ? s->n_trace - 4000 : 0;

    fprintf(stderr, "...%.*s\n%s:%d: %s\nsim: seed %llu fails; again: --seed %llu\n",
            (int)(s->n_trace - from), s->trace + from, file, line, what,
            (unsigned long long)s->seed, (unsigned long long)s->seed);
    exit(1);
}

static struct sim *sim_of(struct io *io)
{
    return (struct sim *)io;
}

/* A SIGKILL in the middle of the daemon's work: right after something it did outside. */
static void perhaps_die(struct sim *s)
{
    if (s->dies && --s->dies == 0)
        longjmp(s->death, 1);
}

/* ---- connections ---- */

static struct sim_conn *find_conn(struct sim *s, uint64_t id)
{
    for (int i = 0; i < SIM_CONNS; i++)
        if (s->conn[i].id == id && id)
            return &s->conn[i];
    return NULL;
}

static void forget_conn(struct sim *s, struct sim_conn *c)
{
    if (c->worker >= 0 && s->process[c->worker].conn == (int)(c - s->conn)) {
        s->process[c->worker].conn = -1;
        s->process[c->worker].welcome = 0;
    }
    if (c->client >= 0)
        s->client[c->client] = (struct sim_client){
            .conn = -1,
            .watching = -1,
            .seen = {s->client[c->client].seen[0], s->client[c->client].seen[1],
                     s->client[c->client].seen[2], s->client[c->client].seen[3],
                     s->client[c->client].seen[4], s->client[c->client].seen[5]}};
    str_fini(&c->up);
    str_fini(&c->down);
    frame_reader_fini(&c->in);
    memset(c, 0, sizeof *c);
    c->worker = c->client = -1;
}

int sim_dial(struct sim *s, int worker, int client)
{
    int i = 0;

    while (i < SIM_CONNS && s->conn[i].id)
        i++;
    if (!s->up || i == SIM_CONNS)
        return -1;
    s->conn[i] = (struct sim_conn){.id = s->next_id++, .worker = worker, .client = client};
    frame_reader_init(&s->conn[i].in, FRAME_CAP);
    s->io.events->connected(s->io.ctx, s->conn[i].id);
    return i;
}

void sim_cut(struct sim *s, int conn)
{
    struct sim_conn *c = &s->conn[conn];
    uint64_t id = c->id;

    sim_trace(s, "conn %d is cut", conn);
    forget_conn(s, c);
    if (s->up)
        s->io.events->closed(s->io.ctx, id);
}

int sim_deliver(struct sim *s, int conn, size_t most)
{
    struct sim_conn *c = &s->conn[conn];
    struct str up = c->up;
    size_t n = up.len < most ? up.len : most;

    if (!c->id || !n || !s->up || c->goodbye)
        return 0;
    c->up = (struct str){0};
    str_add_bytes(&c->up, up.s + n, up.len - n);
    s->io.events->received(s->io.ctx, c->id, up.s, n);
    str_fini(&up);
    return 1;
}

void sim_say(struct sim *s, int conn, const ProtobufCMessage *m)
{
    struct err e;

    sim_check(s, !message_frame(m, &s->conn[conn].up, &e));
}

static void io_send(struct io *io, uint64_t id, const void *p, size_t n)
{
    struct sim_conn *c = find_conn(sim_of(io), id);

    if (c && !c->goodbye)
        str_add_bytes(&c->down, p, n);
    perhaps_die(sim_of(io));
}

static size_t io_unsent(struct io *io, uint64_t id)
{
    const struct sim_conn *c = find_conn(sim_of(io), id);

    return c ? c->down.len : 0;
}

static void io_close(struct io *io, uint64_t id)
{
    struct sim_conn *c = find_conn(sim_of(io), id);

    if (c)
        c->goodbye = 1;
}

/* ---- processes ---- */

static const char *variable(const char *const *env, const char *name)
{
    size_t n = strlen(name);

    for (; env && *env; env++)
        if (!strncmp(*env, name, n) && (*env)[n] == '=')
            return *env + n + 1;
    return "";
}

/* No stage runs twice at once, no core is given twice, nothing runs that must not. */
static void check_start(struct sim *s, const struct sim_process *p)
{
    for (int i = 0; i < s->n_processes; i++) {
        const struct sim_process *q = &s->process[i];

        if (q == p || !q->alive || q->is_check)
            continue;
        sim_check(s, q->job != p->job || strcmp(q->stage, p->stage) != 0);
        sim_check(s, !cores_overlap(&q->cores, &p->cores));
        sim_check(s, !cores_overlap(&q->gpus, &p->gpus));
    }
    sim_check(s, !sim_is_finished(s, p->job, p->stage));
    for (int i = 0; i < SIM_JOBS; i++) {
        const struct sim_fact *f = &s->fact[i];

        if (!f->id || f->id != p->job)
            continue;
        sim_check(s, !f->paused);
        sim_check(s, !f->ended);
        sim_check(s, !f->skipped[sim_stage_index(p->stage)]);
    }
    sim_check(s, cores_count(&p->cores) > 0);
    sim_check(s, p->lock >= 0);
}

static int io_spawn(struct io *io, const struct io_command *c, uint64_t *child,
                    struct err *e)
{
    struct sim *s = sim_of(io);
    struct sim_process *p = &s->process[s->n_processes];
    const char *stage = NULL;

    if (s->broken && rng_below(&s->r, 60) == 0)
        return err_set(e, ERR_FAILED, "start: no such luck");
    if (s->n_processes == SIM_PROCESSES)
        sim_fail(s, __FILE__, __LINE__, "too many processes");
    memset(p, 0, sizeof *p);
    p->lock = p->conn = -1;
    for (int i = 1; c->argv[i]; i++) {
        p->is_check |= !strcmp(c->argv[i], "check");
        if (!strcmp(c->argv[i], "--stage"))
            stage = c->argv[i + 1];
    }
    p->alive = 1;
    p->child = *child = s->next_id++;
    p->instance = s->next_id++;
    if (!p->is_check) {
        sim_check(s, stage != NULL);
        snprintf(p->stage, sizeof p->stage, "%s", stage);
        snprintf(p->token, sizeof p->token, "HONE_UPLINK_TOKEN=%s",
                 variable(c->env, "HONE_UPLINK_TOKEN"));
        snprintf(p->status_file, sizeof p->status_file, "%s",
                 variable(c->env, "HONE_UPLINK_STATUS"));
        p->job = strtoull(variable(c->env, "HONE_UPLINK_JOB"), NULL, 10);
        p->attempt = (unsigned)atoi(variable(c->env, "HONE_UPLINK_ATTEMPT"));
        p->cores = *c->cores;
        p->gpus = *c->gpus;
        sim_check(s, !cores_count(&p->gpus) ||
                         variable(c->env, "CUDA_VISIBLE_DEVICES")[0] != '\0');
        p->lock = c->keep_fd >= 0 ? dup(c->keep_fd) : -1;
        p->steps = 1 + (int)rng_below(&s->r, 12);
        p->beat = s->now;
        check_start(s, p);
    }
    s->n_processes++;
    sim_trace(s, "process %d starts: %s job %llu attempt %u", s->n_processes - 1,
              p->is_check ? "check" : p->stage, (unsigned long long)p->job, p->attempt);
    perhaps_die(s);
    return 0;
}

static int io_adopt(struct io *io, const char *mark, const char *status, uint64_t *child,
                    int *kept, struct err *e)
{
    struct sim *s = sim_of(io);

    (void)e;
    (void)status;
    *child = 0;
    *kept = -1;
    for (int i = 0; i < s->n_processes; i++) {
        struct sim_process *p = &s->process[i];

        if (!p->alive || p->is_check || strcmp(p->token, mark) != 0)
            continue;
        p->child = *child = s->next_id++;
        *kept = rng_below(&s->r, 4) ? dup(p->lock) : -1;
        sim_trace(s, "process %d is taken up", i);
    }
    return 0;
}

void sim_end_process(struct sim *s, int process, int status, int signal)
{
    struct sim_process *p = &s->process[process];
    FILE *file;

    sim_trace(s, "process %d ends: status %d signal %d", process, status, signal);
    p->alive = 0;
    p->status = status;
    p->signal = signal;
    if (p->conn >= 0)
        sim_cut(s, p->conn);
    if (p->is_check)
        return;
    if (!signal && p->status_file[0]) {
        file = fopen(p->status_file, "w"); /* not by base/file.c: only ours fails */
        sim_check(s, file && fprintf(file, "%d\n", status) > 0 && !fclose(file));
    }
    close(p->lock);
    p->lock = -1;
}

int sim_tell_end(struct sim *s, int process)
{
    static const char verdict[] =
        "{\"problems\": [], \"plan\": {\"name\": \"toy\", \"seeds\": %d, \"workers\": %d, "
        "\"threads\": %d, \"gpus\": %d, "
        "\"stages\": [{\"name\": \"sft\", \"needs\": [], \"peak_bytes\": 100}, "
        "{\"name\": \"rm\", \"needs\": []}, "
        "{\"name\": \"ppo\", \"needs\": [\"sft\", \"rm\"]}]}}";
    struct sim_process *p = &s->process[process];
    char text[512];
    struct io_exit how = {p->status, p->signal, "", ""};

    if (p->alive || p->told || !p->child || !s->up)
        return 0;
    p->told = 1;
    snprintf(text, sizeof text, verdict, s->seeds, s->workers, 1 + process % 3,
             process % 4 % 3);
    if (p->is_check && !p->signal)
        how.out = text;
    how.late = p->is_check && p->hung;
    s->io.events->exited(s->io.ctx, p->child, &how);
    return 1;
}

static void io_kill(struct io *io, uint64_t child, int signal, int whole)
{
    (void)whole;
    struct sim *s = sim_of(io);

    for (int i = 0; i < s->n_processes; i++) {
        struct sim_process *p = &s->process[i];

        if (p->child != child || !p->alive)
            continue;
        if (signal == SIGKILL) {
            /* Nothing calls back from within a call: its connection ends later. */
            int conn = p->conn;

            p->conn = -1;
            sim_end_process(s, i, 0, SIGKILL);
            if (conn >= 0)
                s->conn[conn].cut = 1;
        } else {
            p->stopping = 1;
        }
    }
    perhaps_die(s);
}

/* ---- time ---- */

static double io_now(struct io *io)
{
    return sim_of(io)->now;
}

static void io_wake_at(struct io *io, double when)
{
    sim_of(io)->wake = when;
}

static void io_stop(struct io *io)
{
    (void)io;
}

void sim_advance(struct sim *s, double seconds)
{
    double until = s->now + seconds;

    while (s->up && s->wake <= until) {
        if (s->wake > s->now)
            s->now = s->wake;
        s->wake = INFINITY;
        s->io.events->wake(s->io.ctx);
        if (s->wake <= s->now)
            s->now += 0.001;
    }
    if (until > s->now)
        s->now = until;
}

/* ---- the daemon ---- */

void sim_start_daemon(struct sim *s)
{
    static const struct io_ops ops = {
        .now = io_now,
        .send = io_send,
        .unsent = io_unsent,
        .close = io_close,
        .spawn = io_spawn,
        .kill = io_kill,
        .wake_at = io_wake_at,
        .stop = io_stop,
        .adopt = io_adopt,
    };
    struct err e;

    if (store_open(&s->store, s->state, STORE_EPHEMERAL, &e)) {
        sim_check(s, s->broken);
        return; /* a disk error: somebody starts it again */
    }
    s->io.ops = &ops;
    s->wake = INFINITY;
    daemon_init(&s->d, &s->io, s->store, s->state, "unix:/nowhere", 0);
    memset(&s->d.resources, 0, sizeof s->d.resources);
    for (int i = 0; i < 3; i++)
        cores_add(&s->d.resources.cores, 2 * i + 1);
    memset(&s->d.resources.gpus, 0, sizeof s->d.resources.gpus);
    cores_add(&s->d.resources.gpus, 0);
    cores_add(&s->d.resources.gpus, 3);
    s->d.resources.memory = 150;
    s->d.limits.keep_jobs = s->keep;
    s->d.limits.open_jobs = s->open;
    s->d.limits.look_every = 2;
    s->d.limits.event_bytes = s->event_bytes;
    s->up = 1;
    sim_trace(s, "the daemon starts");
    snprintf(s->d.worker, sizeof s->d.worker, "/bin/hone-worker");
    if (daemon_recover(&s->d, &e)) {
        sim_check(s, s->broken);
        sim_kill_daemon(s);
    }
}

void sim_kill_daemon(struct sim *s)
{
    sim_trace(s, "the daemon is killed");
    s->up = s->dies = 0;
    daemon_fini(&s->d);
    store_close(s->store);
    for (int i = 0; i < SIM_CONNS; i++)
        if (s->conn[i].id)
            forget_conn(s, &s->conn[i]);
    for (int i = 0; i < s->n_processes; i++) {
        struct sim_process *p = &s->process[i];

        if (p->is_check)
            p->alive = 0; /* nobody reads its output */
        p->child = 0;
        p->told = 0;
    }
}

void sim_open(struct sim *s, uint64_t seed)
{
    const char *where = access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm";
    struct err e;

    memset(s, 0, sizeof *s);
    s->seed = seed;
    rng_init(&s->r, rng_key(seed, 77, 0, 0));
    s->now = 100;
    s->next_id = 1;
    s->broken = s->workers = s->seeds = 1;
    for (int i = 0; i < SIM_CONNS; i++)
        s->conn[i].worker = s->conn[i].client = -1;
    for (int i = 0; i < SIM_CLIENTS; i++)
        s->client[i].conn = s->client[i].watching = -1;
    /* The same name each time: messages with it in them have to be the same. */
    snprintf(s->dir, sizeof s->dir, "%s/hone-sim-%ld", where, (long)getpid());
    file_remove_tree(s->dir, &e); /* of one that failed */
    sim_check(s, !file_make_dirs(s->dir, &e));
    snprintf(s->file, sizeof s->file, "%s/job.yaml", s->dir);
    snprintf(s->state, sizeof s->state, "%s/state", s->dir);
    sim_check(s, !file_write_atomic(s->file, "x", 1, &e) && !file_make_dirs(s->state, &e));
}

void sim_close(struct sim *s)
{
    struct err e;

    if (s->up)
        sim_kill_daemon(s);
    for (int i = 0; i < s->n_processes; i++)
        if (s->process[i].lock >= 0)
            close(s->process[i].lock);
    file_remove_tree(s->dir, &e);
}
