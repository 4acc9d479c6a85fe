/* NVML by dlopen; see health.h. The few calls used have kept their form since 2012
 * (NVML API reference); what a GPU does not offer stays -1. */
#include "worker/train/health_internal.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"

/* A question on its way: the asker may give up and leave it to the thread. */
struct question {
    pthread_mutex_t lock;
    pthread_cond_t answered;
    int done, left, code;
    struct health health;
    char reason[256];
};

static int hung; /* the library has not answered once: it is asked no more */

int health_library(struct nvml *l, char *reason, size_t n)
{
    const char *path = getenv("HONE_NVML");

    l->file = dlopen(path && *path ? path : "libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!l->file) {
        snprintf(reason, n, "no NVML: %s", dlerror());
        return ERR_DEVICE;
    }
    *(void **)&l->nvmlErrorString = dlsym(l->file, "nvmlErrorString");
#define X(name, args) *(void **)&l->name = dlsym(l->file, #name);
    NVML_CALLS(X)
#undef X
#define X(name, args) *(void **)&l->name = dlsym(l->file, #name);
    NVML_EVENT_CALLS(X)
#undef X
#define X(name, args) || !l->name
    if (!l->nvmlErrorString NVML_CALLS(X)) {
        snprintf(reason, n, "NVML lacks functions: the driver is too old");
        return ERR_DEVICE;
    }
#undef X
    return 0;
}

void health_gpu(const struct nvml *l, int rc, void *gpu, const char *called,
                struct health_gpu *g)
{
    struct nvml_rates rates;
    struct nvml_memory memory;
    unsigned long long count;
    unsigned x;

    memset(g, 0, sizeof *g);
    snprintf(g->name, sizeof g->name, "%s", called);
    g->busy = g->memory_busy = g->used = g->total = g->celsius = g->watts = -1;
    g->throttled = g->ecc_uncorrected = -1;
    g->lost = rc == NVML_GPU_LOST;
    if (rc) {
        snprintf(g->failed, sizeof g->failed, "%.60s%s", l->nvmlErrorString(rc),
                 rc == NVML_GPU_LOST ? " (it fell off the bus)" : "");
        return;
    }
    l->nvmlDeviceGetName(gpu, g->name, sizeof g->name);
    if (!l->nvmlDeviceGetUtilizationRates(gpu, &rates)) {
        g->busy = rates.gpu;
        g->memory_busy = rates.memory;
    }
    if (!l->nvmlDeviceGetMemoryInfo(gpu, &memory)) {
        g->used = (double)memory.used;
        g->total = (double)memory.total;
    }
    if (!l->nvmlDeviceGetTemperature(gpu, NVML_TEMPERATURE_GPU, &x))
        g->celsius = x;
    if (!l->nvmlDeviceGetPowerUsage(gpu, &x))
        g->watts = x / 1000.0;
    if (!l->nvmlDeviceGetCurrentClocksThrottleReasons(gpu, &count))
        g->throttled = (double)count;
    if (!l->nvmlDeviceGetTotalEccErrors(gpu, NVML_UNCORRECTED, NVML_VOLATILE, &count))
        g->ecc_uncorrected = (double)count;
}

static void read_gpu(const struct nvml *l, unsigned i, struct health_gpu *g)
{
    char called[32];
    void *gpu = NULL;
    int rc = l->nvmlDeviceGetHandleByIndex_v2(i, &gpu);

    snprintf(called, sizeof called, "GPU %u", i);
    health_gpu(l, rc, gpu, called, g);
}

static int ask(struct question *q)
{
    struct nvml l = {0};
    unsigned n = 0;
    int rc = health_library(&l, q->reason, sizeof q->reason);

    if (rc)
        return rc;
    rc = l.nvmlInit_v2();
    if (!rc) {
        rc = l.nvmlDeviceGetCount_v2(&n);
        for (unsigned i = 0; !rc && i < n && i < HEALTH_GPUS_MAX; i++)
            read_gpu(&l, i, &q->health.gpu[q->health.n++]);
    }
    if (rc)
        snprintf(q->reason, sizeof q->reason, "NVML: %.200s", l.nvmlErrorString(rc));
    else
        l.nvmlShutdown();
    return rc ? ERR_DEVICE : 0;
}

static void drop(struct question *q)
{
    pthread_mutex_destroy(&q->lock);
    pthread_cond_destroy(&q->answered);
    mem_free(q);
}

static void *answer(void *arg)
{
    struct question *q = arg;
    int code = ask(q), left;

    pthread_mutex_lock(&q->lock);
    q->code = code;
    q->done = 1;
    left = q->left;
    pthread_cond_signal(&q->answered);
    pthread_mutex_unlock(&q->lock);
    if (left)
        drop(q);
    return NULL;
}

/* 1 when it came in time. */
static int await(struct question *q)
{
    struct timespec until;
    int done;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += HEALTH_PATIENCE;
    pthread_mutex_lock(&q->lock);
    while (!q->done && !pthread_cond_timedwait(&q->answered, &q->lock, &until))
        ;
    done = q->done;
    q->left = !done;
    pthread_mutex_unlock(&q->lock);
    return done;
}

static int is_hung(struct err *e)
{
    err_set(e, ERR_DEVICE, "NVML does not answer: the driver hangs, or has lost a GPU");
    return err_mend(e, "look for NVRM and Xid in dmesg; a lost GPU needs a reboot");
}

int health_read(struct health *h, struct err *e)
{
    struct question *q;
    pthread_t thread;
    int rc;

    memset(h, 0, sizeof *h);
    if (hung)
        return is_hung(e);
    q = mem_alloc(sizeof *q);
    if (!q)
        return err_set(e, ERR_NOMEM, "out of memory for the GPUs' state");
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->answered, NULL);
    rc = pthread_create(&thread, NULL, answer, q);
    if (rc) {
        drop(q);
        return err_errno(e, ERR_DEVICE, rc, "a thread for the GPUs' state");
    }
    pthread_detach(thread);
    if (!await(q)) {
        hung = 1;
        return is_hung(e);
    }
    rc = q->code;
    *h = q->health;
    if (rc)
        err_set(e, rc, "%s", q->reason);
    drop(q);
    return rc;
}

void health_line(const struct health_gpu *g, struct str *out)
{
    char a[32], b[32];

    str_add(out, g->name);
    if (g->failed[0]) {
        str_addf(out, ": %s", g->failed);
        return;
    }
    str_addf(out, ": ");
    if (g->busy >= 0)
        str_addf(out, "%.0f %% busy, ", g->busy);
    if (g->total >= 0)
        str_addf(out, "%s of %s", str_bytes(a, sizeof a, g->used),
                 str_bytes(b, sizeof b, g->total));
    if (g->celsius >= 0)
        str_addf(out, ", %.0f C", g->celsius);
    if (g->watts >= 0)
        str_addf(out, ", %.0f W", g->watts);
}

int health_alarm(const struct health_gpu *g, struct str *out)
{
    unsigned long long why = g->throttled > 0 ? (unsigned long long)g->throttled : 0;

    if (g->failed[0])
        str_addf(out, "%s does not answer: %s", g->name, g->failed);
    else if (g->ecc_uncorrected > 0)
        str_addf(out, "%s has %.0f uncorrected memory errors: results may be wrong",
                 g->name, g->ecc_uncorrected);
    else if (why & HEALTH_HOT)
        str_addf(out, "%s is too hot (%.0f C) and runs slower", g->name, g->celsius);
    else if (why & (HEALTH_HW_SLOWDOWN | HEALTH_POWER_BRAKE))
        str_addf(out, "%s is slowed down by its power supply or board", g->name);
    else
        return 0;
    return 1;
}
