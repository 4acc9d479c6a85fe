/* Churn: see daemon_soak.h. One client does everything in turn; a job's life is a second
 * or less, so that minutes here are months of a team's daemon in number of jobs. */
#include "tests/bench/daemon_soak.h"

#include <dirent.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "hone.pb-c.h"
#include "proto/message.h"
#include "tests/bench/daemon_rig.h"

enum { KEPT = 24, BUSY = 6, WATCHED = 8, SAMPLES_MAX = 4096 };
enum { WAL_KB = 4200 }; /* SQLite empties it at 1,000 pages */

/* One look at the daemon. */
struct sample {
    double at;
    long jobs;
    double v[7];
};
static const struct {
    const char *name;
    double more, times; /* allowed beside what the warm-up had at most */
} grown[] = {{"honed MB", 1.0, 1.05},       {"checker MB", 1.0, 1.05},
             {"descriptors", 4, 1},         {"jobs.db KB", 64, 1.1},
             {"jobs.db-wal KB", WAL_KB, 1}, {"events/ files", 4, 1},
             {"honed's children", 4, 1}};
enum { FIGURES = sizeof grown / sizeof *grown };

static struct {
    uint64_t id[KEPT];
    size_t n;
    uint64_t done; /* submitted so far */
    struct client *c;
    struct client *watcher[WATCHED];
} churn;

static double size_kb(const char *name)
{
    char path[FILE_PATH_MAX];
    struct stat st;

    snprintf(path, sizeof path, "%s/%s", rig.state, name);
    return stat(path, &st) ? 0 : (double)st.st_size / 1024;
}

static double count_events(void)
{
    char path[FILE_PATH_MAX], **name;
    size_t n;
    struct err e;

    snprintf(path, sizeof path, "%s/events", rig.state);
    must(!file_list(path, &name, &n, &e), "events");
    for (size_t i = 0; i < n; i++)
        mem_free(name[i]);
    mem_free(name);
    return (double)n;
}

static double count_children(void)
{
    char path[64];
    double n = 0;
    long pid;
    FILE *f;

    snprintf(path, sizeof path, "/proc/%ld/task/%ld/children", (long)rig.honed,
             (long)rig.honed);
    f = fopen(path, "r");
    must(f != NULL, "children");
    while (fscanf(f, "%ld", &pid) == 1)
        n++;
    fclose(f);
    return n;
}

static struct sample look(double began)
{
    struct rig_usage u = rig_usage();

    return (struct sample){clock_now() - began,
                           (long)churn.done,
                           {u.memory, u.checker_memory, (double)u.descriptors,
                            size_kb("jobs.db"), size_kb("jobs.db-wal"), count_events(),
                            count_children()}};
}

/* Ask for something; a refusal is an answer too (the job may have ended meanwhile). */
static void ask(const char *method, const ProtobufCMessage *m)
{
    Hone__V1__Reply *reply;
    struct err e;
    uint32_t id;
    int rc;

    must(!client_send(churn.c, method, m, &id, &e), "send");
    while ((rc = client_next(churn.c, &reply, &e)) == 0)
        must(!client_fill(churn.c, &e), "honed is gone");
    must(rc > 0, "reply");
    message_free(&reply->base);
}

static void ask_job(const char *method, uint64_t id)
{
    Hone__V1__JobRequest m = HONE__V1__JOB_REQUEST__INIT;

    m.id = id;
    ask(method, &m.base);
}

static int has_ended(uint64_t id)
{
    Hone__V1__GetJobRequest m = HONE__V1__GET_JOB_REQUEST__INIT;
    Hone__V1__Job *j;
    int yes;

    m.id = id;
    j = (Hone__V1__Job *)rig_call(churn.c, "GetJob", &m.base, &hone__v1__job__descriptor);
    yes = !strcmp(j->state, "done") || !strcmp(j->state, "failed") ||
          !strcmp(j->state, "stopped");
    message_free(&j->base);
    return yes;
}

static void await_end(uint64_t id)
{
    double until = clock_now() + 30;

    while (!has_ended(id)) {
        must(clock_now() < until, "a job does not end");
        usleep(2000);
    }
}

/* The oldest job goes. */
static void forget(void)
{
    Hone__V1__RemoveRequest m = HONE__V1__REMOVE_REQUEST__INIT;

    await_end(churn.id[0]);
    m.id = churn.id[0];
    m.has_files = m.files = 1;
    message_free(rig_call(churn.c, "Remove", &m.base, &hone__v1__remove_reply__descriptor));
    memmove(churn.id, churn.id + 1, --churn.n * sizeof *churn.id);
}

static void hear(void)
{
    for (int i = 0; i < WATCHED; i++) {
        struct pollfd p = {churn.watcher[i] ? client_fd(churn.watcher[i]) : -1, POLLIN, 0};
        Hone__V1__Reply *reply;
        struct err e;

        while (churn.watcher[i] && poll(&p, 1, 0) > 0) {
            must(!client_fill(churn.watcher[i], &e), "a watcher is cut off");
            while (client_next(churn.watcher[i], &reply, &e) > 0)
                message_free(&reply->base);
        }
    }
}

/* A job comes, something is done to those that are there. */
static void turn(void)
{
    uint64_t k = churn.done++;
    struct client **w = &churn.watcher[k % WATCHED];
    Hone__V1__ListRequest list = HONE__V1__LIST_REQUEST__INIT;
    uint64_t id;

    while (churn.n == KEPT)
        forget();
    id = churn.id[churn.n++] = rig_submit(churn.c, NULL, k % 5 ? "report=20" : "sleep");
    client_close(*w); /* one that may still have something to hear */
    *w = rig_watch(id);
    if (k % 7 == 0)
        ask_job("Pause", id);
    if (k % 7 == 0)
        ask_job("Resume", id);
    if (k % 3 == 0)
        ask("List", &list.base);
    if (k % 5 == 0)
        rig_cancel(churn.c, id);
    hear();
    if (churn.n > BUSY)
        await_end(churn.id[churn.n - BUSY]);
}

static void print_sample(const struct sample *s)
{
    printf("| %.0f | %ld", s->at, s->jobs);
    for (int i = 0; i < FIGURES; i++)
        printf(" | %.*f", i < 2 ? 2 : 0, s->v[i]);
    printf(" |\n");
}

/* The most of the last third against the most of the second. */
static int compare(const struct sample *s, size_t n)
{
    int bad = 0;

    for (int i = 0; i < FIGURES; i++) {
        double before = 0, after = 0;

        for (size_t k = n / 3; k < n; k++)
            if (k < 2 * n / 3)
                before = s[k].v[i] > before ? s[k].v[i] : before;
            else
                after = s[k].v[i] > after ? s[k].v[i] : after;
        if (after <= before * grown[i].times + grown[i].more)
            continue;
        printf("FAILED: %s grew from %.2f to %.2f\n", grown[i].name, before, after);
        bad++;
    }
    return bad;
}

int soak_run(double seconds)
{
    static struct sample sample[SAMPLES_MAX];
    double began, every = seconds / 30, next;
    size_t n = 0;
    int bad;

    rig_start();
    churn.c = rig_dial();
    began = clock_now();
    next = began + every;
    printf("| seconds | jobs");
    for (int i = 0; i < FIGURES; i++)
        printf(" | %s", grown[i].name);
    printf(" |\n");
    while (clock_now() < began + seconds && n < SAMPLES_MAX) {
        turn();
        if (clock_now() < next)
            continue;
        sample[n] = look(began);
        print_sample(&sample[n++]);
        next += every;
    }
    must(n >= 9, "too few samples: a longer soak");
    bad = compare(sample, n);
    while (churn.n)
        forget();
    for (int i = 0; i < WATCHED; i++)
        client_close(churn.watcher[i]);
    client_close(churn.c);
    printf("%s: %llu jobs in %.0f s\n", bad ? "it grew" : "nothing grew",
           (unsigned long long)churn.done, clock_now() - began);
    return bad;
}
