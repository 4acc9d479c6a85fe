/* What metrics cost training: see daemon_training.h. A thread's CPU time is the first
 * number of /proc/PID/task/TID/schedstat, in nanoseconds. */
#include "tests/bench/daemon_training.h"

#include <dirent.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/str.h"
#include "hone.pb-c.h"
#include "proto/message.h"
#include "tests/bench/daemon_rig.h"

enum { REPORTS = 2000 };

/* What has come: points are counted, the last one kept. 1: the stream is over. */
static int take_points(struct client *c, long *points, char *last, size_t size)
{
    Hone__V1__Reply *reply;
    struct err e;
    int over = 0;

    must(!client_fill(c, &e), "the watcher is cut off");
    while (client_next(c, &reply, &e) > 0) {
        ProtobufCMessage *m;
        const Hone__V1__Event *ev;

        must(!client_body(reply, &hone__v1__event__descriptor, &m, &e), "event");
        ev = (Hone__V1__Event *)m;
        if (ev->metric) {
            ++*points;
            snprintf(last, size, "%s", ev->metric);
        }
        over = !reply->more;
        message_free(m);
        message_free(&reply->base);
    }
    return over;
}

static double report_cost(struct client *c)
{
    struct client *w;
    char set[32], last[256] = "";
    long n = 0;

    snprintf(set, sizeof set, "report=%d", REPORTS);
    w = rig_watch(rig_submit(c, NULL, set));
    while (!take_points(w, &n, last, sizeof last))
        ;
    client_close(w);
    must(n == REPORTS + 1 && str_starts(last, "{\"cost\": "), "reports");
    return atof(last + strlen("{\"cost\": "));
}

static double thread_seconds(long pid, long thread)
{
    char path[96];
    double ns = -1;
    FILE *f;

    snprintf(path, sizeof path, "/proc/%ld/task/%ld/schedstat", pid, thread);
    f = fopen(path, "r");
    if (!f)
        return -1;
    if (fscanf(f, "%lf", &ns) != 1)
        ns = -1;
    fclose(f);
    return ns / 1e9;
}

static int is_uplink(long pid, long thread)
{
    char path[96], name[32] = "";
    FILE *f;

    snprintf(path, sizeof path, "/proc/%ld/task/%ld/comm", pid, thread);
    f = fopen(path, "r");
    if (!f)
        return 0;
    if (!fgets(name, sizeof name, f))
        name[0] = '\0';
    fclose(f);
    return str_starts(name, "hone-uplink");
}

/* A worker's threads; figures of one that has ended stay as they were. */
static void look(long pid, struct training_cost *out)
{
    double all = 0, uplink = 0;
    char path[64];
    struct dirent *entry;
    DIR *d;

    snprintf(path, sizeof path, "/proc/%ld/task", pid);
    d = opendir(path);
    while (d && (entry = readdir(d))) {
        long thread;
        double t;

        if (str_to_long(entry->d_name, &thread) || (t = thread_seconds(pid, thread)) < 0)
            continue;
        all += t;
        uplink += is_uplink(pid, thread) ? t : 0;
    }
    if (d)
        closedir(d);
    out->worker = all > out->worker ? all : out->worker;
    out->uplink = uplink > out->uplink ? uplink : out->uplink;
}

static long worker_of(struct client *c, uint64_t id)
{
    Hone__V1__GetJobRequest m = HONE__V1__GET_JOB_REQUEST__INIT;
    Hone__V1__Job *j;
    long pid = 0;

    m.id = id;
    j = (Hone__V1__Job *)rig_call(c, "GetJob", &m.base, &hone__v1__job__descriptor);
    if (j->stages[0]->n_ranks)
        pid = (long)j->stages[0]->ranks[0]->pid;
    message_free(&j->base);
    return pid;
}

static uint64_t submit_stage(struct client *c, const char *job)
{
    Hone__V1__SubmitRequest m = HONE__V1__SUBMIT_REQUEST__INIT;
    Hone__V1__SubmitReply *r;
    char out[160];
    char *stage[] = {(char *)"sft"};
    uint64_t id;

    snprintf(out, sizeof out, "%s/training", rig.dir);
    m.file = (char *)(uintptr_t)job;
    m.out = out;
    m.stages = stage;
    m.n_stages = 1;
    r = (Hone__V1__SubmitReply *)rig_call(c, "Submit", &m.base,
                                          &hone__v1__submit_reply__descriptor);
    for (size_t i = 0; i < r->n_problems; i++)
        fprintf(stderr, "daemon_bench: %s\n", r->problems[i]->message);
    must(r->job != NULL, "the job was refused");
    id = r->job->id;
    message_free(&r->base);
    return id;
}

void training_measure(const char *worker, const char *job, struct training_cost *out)
{
    struct client *c = rig_dial(), *w;
    char real[FILE_PATH_MAX], last[4096] = "";
    double before, cost = report_cost(c);
    long pid = 0;
    uint64_t id;

    memset(out, 0, sizeof *out);
    must(realpath(worker, real) != NULL, "hone-worker");
    rig_use_worker(real);
    id = submit_stage(c, job);
    before = thread_seconds(rig.honed, rig.honed);
    w = rig_watch(id);
    for (int over = 0; !over;) {
        struct pollfd p = {client_fd(w), POLLIN, 0};

        if (poll(&p, 1, 20) > 0)
            over = take_points(w, &out->points, last, sizeof last);
        if (pid)
            look(pid, out);
        else
            pid = worker_of(c, id);
    }
    out->honed = thread_seconds(rig.honed, rig.honed) - before;
    out->calls = cost * (double)out->points;
    must(out->points > 0 && out->worker > 0, "nothing was trained");
    client_close(w);
    client_close(c);
}
