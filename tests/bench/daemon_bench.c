/* How good is the daemon? The real honed, one row of docs/PERFORMANCE.md after the other:
 *
 *     daemon_bench PROGRAMS [--job FILE] [--only WORD] [--soak SECONDS]
 *
 * PROGRAMS: the folder of honed and hone-worker. --job: rows that need a real job (judged
 * and run by the real hone-worker) are measured too; make one with
 * tests/e2e/make_tiny.py DIR. --only: rows whose name has the word. --soak: instead of the
 * rows, churn (daemon_soak.h). Elsewhere this program itself is the hone-worker, so that
 * the engine is not in the way (daemon_stand_in.c). All files are in $TMPDIR, or /tmp: the
 * disk that submits are made durable on. */
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "daemon/sched.h"
#include "daemon/store/store.h"
#include "hone.pb-c.h"
#include "proto/message.h"
#include "tests/bench/daemon_rig.h"
#include "tests/bench/daemon_soak.h"
#include "tests/bench/daemon_training.h"

enum { CLIENTS = 50, SUBMITS = 20, WATCHERS = 200, QUEUED = 1000, FINISHED = 10000 };
enum { FLOOD = 500000, PULSES = 300, STARTS = 5, RATE = 250 };

static const char *programs, *job_file, *only;
static int missed;

/* ---- the table ---- */

static void row(int good, const char *target, const char *what, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

static void row(int good, const char *target, const char *what, const char *fmt, ...)
{
    va_list ap;

    printf("| %s | ", what);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf(" | %s%s |\n", target, good ? "" : " (missed)");
    missed += !good;
}

/* ---- start ---- */

static double median_start(int empty)
{
    double took[STARTS];
    struct err e;

    for (int i = 0; i < STARTS; i++) {
        if (empty)
            file_remove_tree(rig.state, &e);
        took[i] = rig_start();
        rig_stop(SIGTERM);
    }
    return percentile(took, STARTS, 0.5) * 1e3;
}

static void measure_start(void)
{
    static struct job_stage stage = {.name = "sft", .state = STAGE_DONE, .n_cores = 1};
    struct job j = {.name = "old", .file = "/old", .run = "/old", .owner = "me"};
    struct store *store;
    struct err e;
    double t = median_start(1);

    row(t < 20, "20 ms", "start to ready, empty state", "%.1f ms", t);
    must(!store_open(&store, rig.state, STORE_EPHEMERAL, &e), "store");
    j.state = JOB_DONE;
    j.stage = &stage;
    j.n_stages = 1;
    for (int i = 0; i < FINISHED; i++)
        must(!store_add_job(store, &j, &e), "store");
    store_close(store);
    t = median_start(0);
    row(t < 200, "200 ms", "start to ready, 10,000 finished jobs", "%.1f ms", t);
}

/* ---- submit ---- */

struct load {
    double rate; /* submits a second of all clients together; 0: as fast as they can */
    int real;
    double began, took[CLIENTS * SUBMITS];
    uint64_t id[CLIENTS * SUBMITS];
};

struct loader {
    struct load *load;
    int index;
};

/* With a rate a submit's time counts from when it was due, not from when it was sent. */
static void *submit_some(void *arg)
{
    const struct loader *me = arg;
    struct load *load = me->load;
    struct client *c = rig_dial();

    for (int k = 0; k < SUBMITS; k++) {
        int i = k * CLIENTS + me->index;
        double due = load->began + (load->rate > 0 ? i / load->rate : 0), now = clock_now();

        if (now < due)
            usleep((useconds_t)((due - now) * 1e6));
        else if (load->rate <= 0)
            due = now;
        load->id[i] =
            rig_submit(c, load->real ? job_file : NULL, load->real ? "name=real" : "sleep");
        load->took[i] = clock_now() - due;
    }
    client_close(c);
    return NULL;
}

static void submit_all(struct load *load)
{
    struct loader loader[CLIENTS];
    pthread_t thread[CLIENTS];

    load->began = clock_now();
    for (int i = 0; i < CLIENTS; i++) {
        loader[i] = (struct loader){load, i};
        must(!pthread_create(&thread[i], NULL, submit_some, &loader[i]), "thread");
    }
    for (int i = 0; i < CLIENTS; i++)
        pthread_join(thread[i], NULL);
}

static void measure_submit(const char *what, double rate, int real)
{
    static struct load load;
    struct rig_usage before, after;
    double all, p50, p99;
    struct client *c = rig_dial();
    const int n = CLIENTS * SUBMITS;

    load.rate = rate;
    load.real = real;
    rig_cancel(c, rig_submit(c, NULL, "sleep")); /* the first one starts what is kept */
    before = rig_usage();
    submit_all(&load);
    all = clock_now() - load.began;
    after = rig_usage();
    p50 = percentile(load.took, n, 0.5) * 1e3;
    p99 = percentile(load.took, n, 0.99) * 1e3;
    row(p99 < 50 && n / all > 200, "p99 50 ms, 200 a second", what,
        "%.0f a second, median %.1f ms, p99 %.1f ms; CPU of each: honed %.2f ms, its check "
        "%.2f ms",
        n / all, p50, p99, (after.cpu - before.cpu) / n * 1e3,
        (after.checker_cpu - before.checker_cpu) / n * 1e3);
    for (int i = n - 1; i >= 0; i--)
        rig_cancel(c, load.id[i]);
    client_close(c);
}

/* ---- metrics ---- */

static void measure_intake(void)
{
    struct client *c = rig_dial();
    struct rig_usage before = rig_usage(), after;
    char set[32];
    double began;
    uint64_t id;

    snprintf(set, sizeof set, "flood=%d", FLOOD);
    began = clock_now();
    id = rig_submit(c, NULL, set);
    while (rig_is_running(c, id, 0))
        usleep(2000);
    after = rig_usage();
    began = FLOOD / (clock_now() - began);
    row(began > 50000, "50,000 a second", "metric points taken in from a worker",
        "%.0f a second; %.1f µs CPU of honed each", began,
        (after.cpu - before.cpu) / FLOOD * 1e6);
    client_close(c);
}

/* Take what has come: points are counted and, with `late`, timed. 1: the stream is over. */
static int take_events(struct client *c, size_t *n, double *late)
{
    Hone__V1__Reply *reply;
    struct err e;
    int over = 0;

    must(!client_fill(c, &e), "a watcher is cut off");
    while (client_next(c, &reply, &e) > 0) {
        ProtobufCMessage *m;
        const Hone__V1__Event *ev;

        must(!client_body(reply, &hone__v1__event__descriptor, &m, &e), "event");
        ev = (Hone__V1__Event *)m;
        if (ev->metric && late)
            late[*n] = clock_now() - atof(ev->metric + strlen("{\"at\": "));
        *n += ev->metric != NULL;
        over = !reply->more;
        message_free(m);
        message_free(&reply->base);
    }
    return over;
}

static void measure_watchers(void)
{
    static struct client *watcher[WATCHERS], *slow;
    static struct pollfd p[WATCHERS];
    double *late = mem_array((size_t)WATCHERS * PULSES, sizeof *late), p50, p99;
    struct client *c = rig_dial();
    size_t n = 0, of_slow = 0, open = WATCHERS;
    char set[32];
    uint64_t id;

    must(late != NULL, "memory");
    snprintf(set, sizeof set, "pulse=%d", PULSES);
    id = rig_submit(c, NULL, set);
    slow = rig_watch(id); /* it does not read before all is over */
    for (int i = 0; i < WATCHERS; i++) {
        watcher[i] = rig_watch(id);
        p[i] = (struct pollfd){client_fd(watcher[i]), POLLIN, 0};
    }
    while (open) {
        must(poll(p, WATCHERS, 20000) > 0, "watchers hear nothing");
        for (int i = 0; i < WATCHERS; i++)
            if (p[i].revents && take_events(watcher[i], &n, late)) {
                open--;
                p[i].fd = -1;
            }
    }
    must(n == (size_t)WATCHERS * PULSES, "watchers did not hear of all");
    while (!take_events(slow, &of_slow, NULL))
        ;
    p50 = percentile(late, n, 0.5) * 1e3;
    p99 = percentile(late, n, 0.99) * 1e3;
    row(p99 < 100 && of_slow == PULSES, "p99 100 ms, a slow one delays nobody",
        "event from worker to 200 watchers",
        "median %.1f ms, p99 %.1f ms, beside one that read nothing until the end and then "
        "%zu of %d",
        p50, p99, of_slow, PULSES);
    for (int i = 0; i < WATCHERS; i++)
        client_close(watcher[i]);
    client_close(slow);
    client_close(c);
    mem_free(late);
}

/* ---- memory, adoption ---- */

static void measure_memory_and_adoption(void)
{
    static struct client *watcher[WATCHERS];
    struct client *c = rig_dial();
    struct rig_usage u;
    uint64_t id[QUEUED];
    double began, t;

    for (int i = 0; i < QUEUED; i++)
        id[i] = rig_submit(c, NULL, "sleep");
    for (int i = 0; i < WATCHERS; i++)
        watcher[i] = rig_watch(id[i]);
    while (!rig_is_running(c, id[0], 1))
        usleep(1000);
    u = rig_usage();
    row(u.memory + u.checker_memory < 60, "60 MB",
        "memory, 1,000 queued jobs and 200 watchers",
        "%.1f MB and %.1f MB of the process that forks checks", u.memory, u.checker_memory);
    for (int i = 0; i < WATCHERS; i++)
        client_close(watcher[i]);
    client_close(c);
    rig_stop(SIGKILL);
    began = clock_now();
    t = rig_start();
    c = rig_dial();
    while (!rig_is_running(c, id[0], 1))
        usleep(500);
    began = (clock_now() - began) * 1e3;
    row(began < 1000, "1 s", "SIGKILL until running workers are adopted and heard again",
        "%.0f ms, 1,000 jobs in the queue (ready after %.0f)", began, t * 1e3);
    for (int i = QUEUED - 1; i >= 0; i--)
        rig_cancel(c, id[i]);
    client_close(c);
}

/* ---- scheduling ---- */

static void measure_schedule(void)
{
    static struct job job[FINISHED], *queue[FINISHED];
    static struct job_stage stage[FINISHED][3];
    static size_t needs[] = {0, 1};
    struct resources r = {.cores.word[0] = 0xff, .memory = 1 << 20};
    struct schedule plan;
    double began;

    for (int i = 0; i < FINISHED; i++) {
        for (int k = 0; k < 3; k++)
            stage[i][k] = (struct job_stage){.name = "s", .n_cores = 2, .memory = 10};
        stage[i][2].needs = needs;
        stage[i][2].n_needs = 2;
        job[i] = (struct job){
            .id = (uint64_t)i + 1, .stage = stage[i], .n_stages = 3, .kill_at = 1e300};
        queue[i] = &job[i];
    }
    began = clock_now();
    for (int i = 0; i < 100; i++)
        sched_decide(queue, FINISHED, &r, 1, &plan);
    must(plan.n == 4, "plan");
    began = (clock_now() - began) / 100 * 1e3;
    row(began < 10, "10 ms", "scheduling decision, 10,000 queued jobs", "%.2f ms", began);
}

/* ---- training ---- */

static void measure_training(void)
{
    struct training_cost t;
    char worker[4096];
    double share;

    snprintf(worker, sizeof worker, "%s/hone-worker", programs);
    training_measure(worker, job_file, &t);
    share = (t.calls + t.uplink + t.honed) / t.worker * 100;
    row(share < 0.5, "0.5 %", "training slowed by metrics (this job), by CPU time",
        "at most %.2f %%: of %.1f s of the worker %.2f ms report, %.2f ms are its uplink's "
        "thread, %.2f ms are honed's; %ld points",
        share, t.worker, t.calls * 1e3, t.uplink * 1e3, t.honed * 1e3, t.points);
}

/* ---- all of it ---- */

static int wanted(const char *name)
{
    return !only || strstr(name, only);
}

static void measure_all(void)
{
    printf("| what | measured | aim |\n|---|---|---|\n");
    if (wanted("schedule"))
        measure_schedule();
    if (wanted("start"))
        measure_start();
    rig_start();
    if (wanted("submit")) {
        measure_submit("durable submit, 50 clients that together submit 250 times a second",
                       RATE, 0);
        measure_submit("durable submit, 50 clients, each with its next as soon as the last "
                       "is answered",
                       0, 0);
    }
    if (wanted("submit") && job_file) {
        measure_submit("the same 250 a second, each job really judged", RATE, 1);
        measure_submit("the same without a pause, each job really judged", 0, 1);
    }
    if (wanted("metrics"))
        measure_intake();
    if (wanted("watchers"))
        measure_watchers();
    if (wanted("memory"))
        measure_memory_and_adoption();
    if (wanted("training") && job_file)
        measure_training();
}

int main(int argc, char **argv)
{
    double soak = 0;
    int status;

    if (stand_in(argc, argv, &status))
        return status;
    for (int i = 2; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--job"))
            job_file = argv[i + 1];
        else if (!strcmp(argv[i], "--only"))
            only = argv[i + 1];
        else if (!strcmp(argv[i], "--soak"))
            soak = atof(argv[i + 1]);
        else
            argc = 0;
    }
    if (argc < 2 || argc % 2 || (job_file && job_file[0] != '/')) {
        fprintf(stderr, "daemon_bench PROGRAMS [--job /FILE] [--only WORD] "
                        "[--soak SECONDS]\n");
        return 2;
    }
    programs = argv[1];
    setvbuf(stdout, NULL, _IOLBF, 0);
    rig_open(programs);
    if (soak > 0)
        missed = soak_run(soak);
    else
        measure_all();
    rig_close();
    return missed != 0;
}
