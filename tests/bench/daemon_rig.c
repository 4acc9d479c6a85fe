/* The rig: see daemon_rig.h. */
#include "tests/bench/daemon_rig.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/str.h"
#include "hone.pb-c.h"
#include "proto/message.h"

struct rig rig;

/* Its workers would outlive it, as they should. */
static void kill_honed(void)
{
    char path[64];
    long pid;
    FILE *f;

    snprintf(path, sizeof path, "/proc/%ld/task/%ld/children", (long)rig.honed,
             (long)rig.honed);
    f = fopen(path, "r");
    kill(rig.honed, SIGSTOP);
    while (f && fscanf(f, "%ld", &pid) == 1)
        kill((pid_t)-pid, SIGKILL);
    kill(rig.honed, SIGKILL);
    if (f)
        fclose(f);
}

void must(int ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "daemon_bench: %s\n", what);
    if (rig.honed > 0)
        kill_honed();
    exit(1);
}

/* ---- the folder ---- */

/* hone-worker of the rig is a link to this program. */
void rig_use_worker(const char *program)
{
    char path[160];

    snprintf(path, sizeof path, "%s/hone-worker", rig.dir);
    unlink(path);
    must(!symlink(program, path), "link hone-worker");
}

void rig_open(const char *programs)
{
    char from[4096], to[160], self[4096] = "";
    const char *tmp = getenv("TMPDIR");
    struct err e;

    must(snprintf(rig.dir, sizeof rig.dir, "%s/hone-bench-XXXXXX", tmp ? tmp : "/tmp") <
             (int)sizeof rig.dir,
         "TMPDIR is too long");
    must(mkdtemp(rig.dir) != NULL, "mkdtemp");
    snprintf(from, sizeof from, "%s/honed", programs);
    snprintf(to, sizeof to, "%s/honed", rig.dir);
    must(!file_copy(from, to, &e) && !chmod(to, 0755), "copy honed");
    must(readlink("/proc/self/exe", self, sizeof self - 1) > 0, "this program");
    rig_use_worker(self);
    snprintf(rig.state, sizeof rig.state, "%s/state", rig.dir);
    snprintf(rig.address, sizeof rig.address, "unix:%s/socket", rig.state);
    snprintf(rig.job, sizeof rig.job, "%s/job.yaml", rig.dir);
    must(!file_write_atomic(rig.job, "x\n", 2, &e), "job file");
}

void rig_close(void)
{
    struct err e;

    if (rig.honed)
        rig_stop(SIGTERM);
    file_remove_tree(rig.dir, &e);
}

/* ---- honed and its clients ---- */

double rig_start(void)
{
    double began = clock_now();
    char program[160], log[160];
    struct client *c = NULL;
    struct err e;

    snprintf(program, sizeof program, "%s/honed", rig.dir);
    snprintf(log, sizeof log, "%s/log", rig.dir);
    rig.honed = fork();
    must(rig.honed >= 0, "fork");
    if (!rig.honed) {
        must(freopen(log, "a", stderr) != NULL, "log");
        execl(program, "honed", "--state", rig.state, NULL);
        _exit(99);
    }
    while (client_open(&c, rig.address, "bench", &e) && clock_now() - began < 20)
        usleep(200);
    must(c != NULL, "honed does not start");
    client_close(c);
    return clock_now() - began;
}

void rig_stop(int signal)
{
    kill(rig.honed, signal);
    waitpid(rig.honed, NULL, 0);
    rig.honed = 0;
}

struct client *rig_dial(void)
{
    struct client *c = NULL;
    struct err e;

    if (client_open(&c, rig.address, "bench", &e))
        must(0, e.msg);
    return c;
}

ProtobufCMessage *rig_call(struct client *c, const char *method,
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

uint64_t rig_submit(struct client *c, const char *file, const char *set)
{
    Hone__V1__SubmitRequest m = HONE__V1__SUBMIT_REQUEST__INIT;
    Hone__V1__SubmitReply *r;
    char *list[] = {(char *)(uintptr_t)set};
    uint64_t id;

    m.file = (char *)(uintptr_t)(file ? file : rig.job);
    m.set = list;
    m.n_set = 1;
    r = (Hone__V1__SubmitReply *)rig_call(c, "Submit", &m.base,
                                          &hone__v1__submit_reply__descriptor);
    must(r->job != NULL, "submit was refused");
    id = r->job->id;
    message_free(&r->base);
    return id;
}

void rig_cancel(struct client *c, uint64_t id)
{
    Hone__V1__CancelRequest m = HONE__V1__CANCEL_REQUEST__INIT;

    m.id = id;
    m.has_now = m.now = 1;
    message_free(rig_call(c, "Cancel", &m.base, &hone__v1__job__descriptor));
}

int rig_is_running(struct client *c, uint64_t id, int heard)
{
    Hone__V1__GetJobRequest m = HONE__V1__GET_JOB_REQUEST__INIT;
    Hone__V1__Job *j;
    int yes;

    m.id = id;
    j = (Hone__V1__Job *)rig_call(c, "GetJob", &m.base, &hone__v1__job__descriptor);
    yes = !strcmp(j->state, "running") && (!heard || j->stages[0]->n_ranks > 0);
    message_free(&j->base);
    return yes;
}

/* ---- what it takes ---- */

static double resident_mb(pid_t pid)
{
    char path[64], line[256];
    double kb = 0;
    FILE *f;

    snprintf(path, sizeof path, "/proc/%ld/status", (long)pid);
    f = fopen(path, "r");
    must(f != NULL, "status");
    while (fgets(line, sizeof line, f))
        if (str_starts(line, "VmRSS:"))
            kb = atof(line + 6);
    fclose(f);
    return kb / 1024;
}

double rig_cpu(pid_t pid, int with_children)
{
    char path[64], line[1024] = "", *p;
    long ticks[4] = {0};
    FILE *f;

    snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
    f = fopen(path, "r");
    must(f && fgets(line, sizeof line, f), "stat");
    fclose(f);
    p = strrchr(line, ')');
    must(p && sscanf(p + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %ld %ld %ld %ld",
                     &ticks[0], &ticks[1], &ticks[2], &ticks[3]) == 4,
         "stat");
    if (!with_children)
        ticks[2] = ticks[3] = 0;
    return (double)(ticks[0] + ticks[1] + ticks[2] + ticks[3]) /
           (double)sysconf(_SC_CLK_TCK);
}

/* Does a process have this argument first? */
static int is_called(long pid, const char *argument)
{
    char path[64], line[4096];
    size_t n;
    FILE *f;

    snprintf(path, sizeof path, "/proc/%ld/cmdline", pid);
    f = fopen(path, "r");
    if (!f)
        return 0;
    n = fread(line, 1, sizeof line - 1, f);
    line[n] = '\0';
    fclose(f);
    return n && !strcmp(line + strlen(line) + 1, argument);
}

/* The child of honed that was started with --checks, 0: none. */
static pid_t checker(void)
{
    char path[64];
    long pid, found = 0;
    FILE *f;

    snprintf(path, sizeof path, "/proc/%ld/task/%ld/children", (long)rig.honed,
             (long)rig.honed);
    f = fopen(path, "r");
    must(f != NULL, "children");
    while (!found && fscanf(f, "%ld", &pid) == 1)
        if (is_called(pid, "--checks"))
            found = pid;
    fclose(f);
    return (pid_t)found;
}

struct rig_usage rig_usage(void)
{
    struct rig_usage u = {.memory = resident_mb(rig.honed), .cpu = rig_cpu(rig.honed, 0)};
    pid_t child = checker();
    char path[64];
    DIR *d;

    if (child) {
        u.checker_memory = resident_mb(child);
        u.checker_cpu = rig_cpu(child, 1);
    }
    snprintf(path, sizeof path, "/proc/%ld/fd", (long)rig.honed);
    d = opendir(path);
    must(d != NULL, "descriptors");
    while (readdir(d))
        u.descriptors++;
    closedir(d);
    return u;
}

static int by_value(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;

    return a < b ? -1 : a > b;
}

double percentile(double *v, size_t n, double p)
{
    qsort(v, n, sizeof *v, by_value);
    return v[(size_t)(p * (double)(n - 1))];
}

struct client *rig_watch(uint64_t id)
{
    Hone__V1__WatchRequest m = HONE__V1__WATCH_REQUEST__INIT;
    struct client *c = rig_dial();
    struct err e;
    uint32_t call;

    m.id = id;
    m.has_after = 1;
    must(!client_send(c, "Watch", &m.base, &call, &e), "watch");
    return c;
}
