/* How fast is the daemon? The real honed, with this program as its hone-worker where the
 * engine would only be in the way; one line per figure of docs/PERFORMANCE.md.
 *
 *     daemon_bench FOLDER-OF-HONED
 *
 * As a worker it is told by `--set what=...`: `flood=N` sends N metric points as fast as
 * they are acknowledged, `pulse=N` sends one every 10 ms with the time in it, `sleep`
 * waits. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "daemon/sched.h"
#include "daemon/store/store.h"
#include "hone.pb-c.h"
#include "proto/client.h"
#include "proto/frame.h"
#include "proto/message.h"
#include "proto/transport.h"
#include "worker.pb-c.h"
#include "worker/link/checks.h"
#include "worker/link/link.h"

enum { CLIENTS = 50, SUBMITS = 10, WATCHERS = 200, QUEUED = 1000, FINISHED = 10000 };
enum { FLOOD = 500000, PULSES = 300, WINDOW = 4096 };

static char dir[64], address[128], job_file[128], state[96];
static pid_t honed;

static void must(int ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "daemon_bench: %s\n", what);
    if (honed > 0)
        kill(honed, SIGKILL);
    exit(1);
}

/* ---- as a worker ---- */

/* Frames by hand: the link would drop points when it is faster than the daemon. */
static int flood(long n)
{
    Hone__V1__Hello h = HONE__V1__HELLO__INIT;
    struct frame_reader in;
    struct str out = {0};
    struct err e;
    char buf[65536], json[160];
    uint64_t acked = 0, sent = 0;
    const uint8_t *body;
    size_t len;
    ssize_t got;
    int fd, welcome = 0;

    if (transport_connect(getenv("HONE_UPLINK"), &fd, &e))
        return 1;
    h.magic = PROTO_MAGIC;
    h.version = PROTO_VERSION;
    h.role = HONE__V1__ROLE__WORKER;
    h.token = getenv("HONE_UPLINK_TOKEN");
    h.job = getenv("HONE_UPLINK_JOB");
    h.stage = (char *)"sft";
    h.has_attempt = h.has_rank = 1;
    h.attempt = (uint32_t)atoi(getenv("HONE_UPLINK_ATTEMPT"));
    frame_reader_init(&in, FRAME_CAP);
    message_frame(&h.base, &out, &e);
    while (acked < (uint64_t)n) {
        while (welcome && sent < (uint64_t)n && sent < acked + WINDOW &&
               out.len < sizeof buf) {
            Hone__V1__Up up = HONE__V1__UP__INIT;

            up.seq = ++sent;
            snprintf(json, sizeof json,
                     "{\"step\": %llu, \"epoch\": 0.25, \"time\": 12.345, \"split\": "
                     "\"train\", \"loss\": 0.693147181, \"lr\": 1e-05}",
                     (unsigned long long)sent);
            up.metric = json;
            message_frame(&up.base, &out, &e);
        }
        if (out.len && send(fd, out.s, out.len, MSG_NOSIGNAL) != (ssize_t)out.len)
            return 1;
        str_clear(&out);
        got = recv(fd, buf, sizeof buf, 0);
        if (got <= 0 || frame_feed(&in, buf, (size_t)got, &e))
            return 1;
        while (frame_next(&in, &body, &len, &e) > 0) {
            ProtobufCMessage *m;

            if (!welcome) {
                welcome = 1;
                continue;
            }
            if (message_unpack(&hone__v1__down__descriptor, body, len, &m, &e))
                return 1;
            acked = ((Hone__V1__Down *)m)->received;
            message_free(m);
        }
    }
    return 0;
}

static int pulse(long n)
{
    struct link_hello hello = {.stage = "sft", .rank = 0, .world = 1};
    struct link *l;
    struct err e;
    char json[64];

    if (link_hello_env(&hello, &e) || link_open(&l, &hello, &e))
        return 1;
    usleep(1500000); /* until everybody watches */
    for (long i = 0; i < n; i++) {
        snprintf(json, sizeof json, "{\"at\": %.9f}", clock_now());
        link_metric(l, json);
        usleep(10000);
    }
    link_done(l, 0, "");
    link_close(l);
    return 0;
}

static int wait_for_word(void)
{
    struct link_hello hello = {.stage = "sft", .rank = 0, .world = 1};
    struct link *l;
    struct err e;

    if (link_hello_env(&hello, &e) || link_open(&l, &hello, &e))
        return 1;
    for (;;) {
        if (link_control(l) == CONTROL_STOP) {
            link_close(l);
            return 3;
        }
        usleep(20000);
    }
}

static int check(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    puts("{\"problems\": [], \"plan\": {\"name\": \"bench\", \"workers\": 1, "
         "\"threads\": 1, \"stages\": [{\"name\": \"sft\", \"needs\": []}]}}");
    return 0;
}

static int work(int argc, char **argv)
{
    for (int i = 2; i < argc; i++) {
        if (str_starts(argv[i], "flood="))
            return link_leave_status(flood(atol(argv[i] + 6)));
        if (str_starts(argv[i], "pulse="))
            return link_leave_status(pulse(atol(argv[i] + 6)));
    }
    return link_leave_status(wait_for_word());
}

/* ---- honed ---- */

static double start_honed(void)
{
    double began = clock_now();
    char program[160], log[160];
    struct client *c = NULL;
    struct err e;

    snprintf(program, sizeof program, "%s/honed", dir);
    snprintf(log, sizeof log, "%s/log", dir);
    honed = fork();
    must(honed >= 0, "fork");
    if (!honed) {
        must(freopen(log, "a", stderr) != NULL, "log");
        execl(program, "honed", "--state", state, NULL);
        _exit(99);
    }
    while (client_open(&c, address, "bench", &e) && clock_now() - began < 20)
        usleep(200);
    must(c != NULL, "honed does not start");
    client_close(c);
    return clock_now() - began;
}

static void stop_honed(int signal)
{
    kill(honed, signal);
    waitpid(honed, NULL, 0);
    honed = 0;
}

static struct client *dial(void)
{
    struct client *c = NULL;
    struct err e;

    if (client_open(&c, address, "bench", &e))
        must(0, e.msg);
    return c;
}

static ProtobufCMessage *call(struct client *c, const char *method,
                              const ProtobufCMessage *request,
                              const ProtobufCMessageDescriptor *d)
{
    Hone__V1__Reply *reply;
    ProtobufCMessage *m;
    struct err e;
    uint32_t id;
    int rc;

    if (client_send(c, method, request, &id, &e))
        must(0, e.msg);
    while ((rc = client_next(c, &reply, &e)) == 0)
        if (client_fill(c, &e))
            must(0, e.msg);
    must(rc > 0, "reply");
    if (client_body(reply, d, &m, &e))
        must(0, e.msg);
    message_free(&reply->base);
    return m;
}

static uint64_t submit(struct client *c, const char *set)
{
    Hone__V1__SubmitRequest m = HONE__V1__SUBMIT_REQUEST__INIT;
    Hone__V1__SubmitReply *r;
    char *list[] = {(char *)(uintptr_t)set};
    uint64_t id;

    m.file = job_file;
    m.set = list;
    m.n_set = 1;
    r = (Hone__V1__SubmitReply *)call(c, "Submit", &m.base,
                                      &hone__v1__submit_reply__descriptor);
    must(r->job != NULL, "submit was refused");
    id = r->job->id;
    message_free(&r->base);
    return id;
}

static void cancel(struct client *c, uint64_t id)
{
    Hone__V1__CancelRequest m = HONE__V1__CANCEL_REQUEST__INIT;

    m.id = id;
    m.has_now = m.now = 1;
    message_free(call(c, "Cancel", &m.base, &hone__v1__job__descriptor));
}

static int is_running(struct client *c, uint64_t id, int heard)
{
    Hone__V1__GetJobRequest m = HONE__V1__GET_JOB_REQUEST__INIT;
    Hone__V1__Job *j;
    int yes;

    m.id = id;
    j = (Hone__V1__Job *)call(c, "GetJob", &m.base, &hone__v1__job__descriptor);
    yes = !strcmp(j->state, "running") && (!heard || j->stages[0]->n_ranks > 0);
    message_free(&j->base);
    return yes;
}

static double memory_mb(void)
{
    char path[64], line[256];
    double kb = 0;
    FILE *f;

    snprintf(path, sizeof path, "/proc/%ld/status", (long)honed);
    f = fopen(path, "r");
    must(f != NULL, "status");
    while (fgets(line, sizeof line, f))
        if (str_starts(line, "VmRSS:"))
            kb = atof(line + 6);
    fclose(f);
    return kb / 1024;
}

static int by_value(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;

    return a < b ? -1 : a > b;
}

static double percentile(double *v, size_t n, double p)
{
    qsort(v, n, sizeof *v, by_value);
    return v[(size_t)(p * (double)(n - 1))];
}

/* ---- the figures ---- */

static void measure_start(void)
{
    static struct job_stage stage = {.name = "sft", .state = STAGE_DONE, .n_cores = 1};
    struct job j = {.name = "old", .file = "/old", .run = "/old", .owner = "me"};
    struct store *store;
    struct err e;
    double t = start_honed();

    printf("start to ready, empty state: %.1f ms\n", t * 1e3);
    stop_honed(SIGTERM);
    must(!store_open(&store, state, STORE_EPHEMERAL, &e), "store");
    j.state = JOB_DONE;
    j.stage = &stage;
    j.n_stages = 1;
    for (int i = 0; i < FINISHED; i++)
        must(!store_add_job(store, &j, &e), "store");
    store_close(store);
    t = start_honed();
    printf("start to ready, %d finished jobs: %.1f ms\n", FINISHED, t * 1e3);
}

static double took[CLIENTS * SUBMITS];
static uint64_t ids[CLIENTS * SUBMITS];

static void *submit_some(void *arg)
{
    long first = (long)(intptr_t)arg * SUBMITS;
    struct client *c = dial();

    for (long i = first; i < first + SUBMITS; i++) {
        double began = clock_now();

        ids[i] = submit(c, "sleep");
        took[i] = clock_now() - began;
    }
    client_close(c);
    return NULL;
}

static void measure_submit(void)
{
    pthread_t thread[CLIENTS];
    double began = clock_now(), all;
    struct client *c;

    for (long i = 0; i < CLIENTS; i++)
        must(!pthread_create(&thread[i], NULL, submit_some, (void *)(intptr_t)i), "thread");
    for (int i = 0; i < CLIENTS; i++)
        pthread_join(thread[i], NULL);
    all = clock_now() - began;
    printf("durable submit, %d clients at once (a check that costs nothing): %.0f a "
           "second, median %.1f ms, p99 %.1f ms\n",
           CLIENTS, CLIENTS * SUBMITS / all, percentile(took, CLIENTS * SUBMITS, 0.5) * 1e3,
           percentile(took, CLIENTS * SUBMITS, 0.99) * 1e3);
    c = dial();
    for (int i = CLIENTS * SUBMITS - 1; i >= 0; i--)
        cancel(c, ids[i]);
    client_close(c);
}

static void await_end(struct client *c, uint64_t id)
{
    while (is_running(c, id, 0))
        usleep(2000);
}

static void measure_intake(void)
{
    struct client *c = dial();
    char set[32];
    double began;
    uint64_t id;

    snprintf(set, sizeof set, "flood=%d", FLOOD);
    began = clock_now();
    id = submit(c, set);
    await_end(c, id);
    printf("metric points taken in: %.0f a second\n", FLOOD / (clock_now() - began));
    client_close(c);
}

static void measure_watchers(void)
{
    static struct client *watcher[WATCHERS];
    static struct pollfd p[WATCHERS];
    double *late = mem_array((size_t)WATCHERS * PULSES, sizeof *late);
    struct client *c = dial();
    size_t n = 0, open = WATCHERS;
    char set[32];
    uint64_t id;

    must(late != NULL, "memory");
    snprintf(set, sizeof set, "pulse=%d", PULSES);
    id = submit(c, set);
    for (int i = 0; i < WATCHERS; i++) {
        Hone__V1__WatchRequest m = HONE__V1__WATCH_REQUEST__INIT;
        struct err e;
        uint32_t call_id;

        watcher[i] = dial();
        m.id = id;
        must(!client_send(watcher[i], "Watch", &m.base, &call_id, &e), "watch");
        p[i] = (struct pollfd){client_fd(watcher[i]), POLLIN, 0};
    }
    while (open) {
        must(poll(p, WATCHERS, 20000) > 0, "watchers hear nothing");
        for (int i = 0; i < WATCHERS; i++) {
            Hone__V1__Reply *reply;
            struct err e;

            if (!(p[i].revents & POLLIN) || client_fill(watcher[i], &e))
                continue;
            while (client_next(watcher[i], &reply, &e) > 0) {
                ProtobufCMessage *m;
                const Hone__V1__Event *ev;

                must(!client_body(reply, &hone__v1__event__descriptor, &m, &e), "event");
                ev = (Hone__V1__Event *)m;
                if (ev->metric && n < (size_t)WATCHERS * PULSES)
                    late[n++] = clock_now() - atof(ev->metric + strlen("{\"at\": "));
                if (!reply->more) {
                    open--;
                    p[i].fd = -1;
                }
                message_free(m);
                message_free(&reply->base);
            }
        }
    }
    printf("event from worker to %d watchers (%zu of %d): median %.1f ms, p99 %.1f ms\n",
           WATCHERS, n, WATCHERS * PULSES, percentile(late, n, 0.5) * 1e3,
           percentile(late, n, 0.99) * 1e3);
    for (int i = 0; i < WATCHERS; i++)
        client_close(watcher[i]);
    client_close(c);
    mem_free(late);
}

static void measure_memory_and_adoption(void)
{
    static struct client *watcher[WATCHERS];
    struct client *c = dial();
    uint64_t id[QUEUED];
    double began, t;

    for (int i = 0; i < QUEUED; i++)
        id[i] = submit(c, "sleep");
    for (int i = 0; i < WATCHERS; i++) {
        Hone__V1__WatchRequest m = HONE__V1__WATCH_REQUEST__INIT;
        struct err e;
        uint32_t call_id;

        watcher[i] = dial();
        m.id = id[i];
        must(!client_send(watcher[i], "Watch", &m.base, &call_id, &e), "watch");
    }
    while (!is_running(c, id[0], 1))
        usleep(1000);
    printf("memory, %d queued jobs and %d watchers: %.1f MB\n", QUEUED, WATCHERS,
           memory_mb());
    for (int i = 0; i < WATCHERS; i++)
        client_close(watcher[i]);
    client_close(c);
    stop_honed(SIGKILL);
    began = clock_now();
    t = start_honed();
    c = dial();
    while (!is_running(c, id[0], 1))
        usleep(500);
    printf("SIGKILL until running workers are adopted and heard again (%d jobs): %.0f ms "
           "(ready after %.0f)\n",
           QUEUED, (clock_now() - began) * 1e3, t * 1e3);
    for (int i = QUEUED - 1; i >= 0; i--)
        cancel(c, id[i]);
    client_close(c);
}

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
    printf("scheduling decision, %d queued jobs: %.3f ms\n", FINISHED,
           (clock_now() - began) / 100 * 1e3);
}

int main(int argc, char **argv)
{
    char from[4096], to[160], self[4096] = "";
    struct err e;

    if (argc > 1 && !strcmp(argv[1], "--checks"))
        return checks_serve(check);
    if (getenv("HONE_UPLINK"))
        return work(argc, argv);
    must(argc == 2, "daemon_bench FOLDER-OF-HONED");
    snprintf(dir, sizeof dir, "/tmp/hone-bench-XXXXXX");
    must(mkdtemp(dir) != NULL, "mkdtemp");
    snprintf(from, sizeof from, "%s/honed", argv[1]);
    snprintf(to, sizeof to, "%s/honed", dir);
    must(!file_copy(from, to, &e) && !chmod(to, 0755), "copy honed");
    snprintf(to, sizeof to, "%s/hone-worker", dir);
    must(readlink("/proc/self/exe", self, sizeof self - 1) > 0 && !symlink(self, to),
         "link");
    snprintf(state, sizeof state, "%s/state", dir);
    snprintf(address, sizeof address, "unix:%s/socket", state);
    snprintf(job_file, sizeof job_file, "%s/job.yaml", dir);
    must(!file_write_atomic(job_file, "x\n", 2, &e), "job file");
    setvbuf(stdout, NULL, _IOLBF, 0);
    measure_schedule();
    measure_start();
    measure_submit();
    measure_intake();
    measure_watchers();
    measure_memory_and_adoption();
    stop_honed(SIGTERM);
    file_remove_tree(dir, &e);
    return 0;
}
