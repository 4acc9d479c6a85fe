/* The thread beside training that looks at the GPU; see health_watch.h. */
#include "worker/train/health_watch.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"
#include "worker/train/health_internal.h"

enum { ALARMS_MAX = 8, ALARM_BYTES = 256, SLICE_MS = 100 };

struct health_watch {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    char bus[32];
    double seconds, heard; /* clock_now() of the newest answer, or of the start */
    int quit, ended, left; /* left: whoever comes last frees this */
    int known, silent;     /* there is a reading; the silence was told */
    int asked;
    long readings;
    double ecc;       /* errors of the first reading that knew, -1 */
    double off_since; /* clock_now() when it fell off the bus, 0 */
    health_lost *lost;
    void *lost_arg;
    char broken[ALARM_BYTES]; /* why; "" */
    struct health_gpu latest;
    char alarm[ALARMS_MAX][ALARM_BYTES]; /* a ring */
    unsigned long put, taken;
};

/* With the lock held. The oldest give way. */
static void add_alarm(struct health_watch *w, const char *text)
{
    snprintf(w->alarm[w->put++ % ALARMS_MAX], ALARM_BYTES, "%s", text);
    if (w->put - w->taken > ALARMS_MAX)
        w->taken = w->put - ALARMS_MAX;
}

/* With the lock held. The first reason stays. */
static void set_broken(struct health_watch *w, const char *text)
{
    if (!*w->broken)
        snprintf(w->broken, sizeof w->broken, "%s", text);
}

/* The same. */
static void judge_reading(struct health_watch *w, const struct health_gpu *g,
                          const char *alarm)
{
    char text[ALARM_BYTES];

    if (g->lost && w->off_since <= 0) {
        w->off_since = clock_now();
        set_broken(w, alarm);
    }
    if (g->ecc_uncorrected >= 0 && w->ecc < 0)
        w->ecc = g->ecc_uncorrected;
    if (g->ecc_uncorrected > w->ecc && w->ecc >= 0) {
        snprintf(text, sizeof text,
                 "%.64s (%s) has had %.0f uncorrected memory errors since the stage began: "
                 "results may be wrong",
                 g->name, w->bus, g->ecc_uncorrected - w->ecc);
        set_broken(w, text);
    }
}

/* NVIDIA, "Xid errors": those that end a run or spoil its results. */
static const char *xid_meaning(unsigned long long xid)
{
    switch (xid) {
    case 13:
    case 31:
    case 43:
        return "a kernel failed";
    case 48:
    case 94:
    case 95:
        return "uncorrected memory error: results may be wrong";
    case 63:
    case 64:
        return "damaged memory is replaced by spare rows";
    case 74:
        return "NVLink error";
    case 79:
        return "it fell off the bus; the machine needs a reboot";
    case 119:
    case 120:
        return "its firmware does not answer";
    default:
        return "see dmesg";
    }
}

/* Calls may never return from it. */
static int is_off(unsigned long long xid)
{
    return xid == 79 || xid == 119 || xid == 120;
}

static void tell_reading(struct health_watch *w, const struct health_gpu *g,
                         struct str *was)
{
    struct str alarm = {0};
    int bad = health_alarm(g, &alarm);

    pthread_mutex_lock(&w->lock);
    w->latest = *g;
    w->known = 1;
    w->heard = clock_now();
    w->silent = 0;
    if (bad && strcmp(str_get(&alarm), str_get(was)))
        add_alarm(w, str_get(&alarm));
    judge_reading(w, g, str_get(&alarm));
    w->readings++;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    str_fini(was);
    *was = alarm;
}

static void tell_xid(struct health_watch *w, unsigned long long xid)
{
    char text[ALARM_BYTES];

    pthread_mutex_lock(&w->lock);
    snprintf(text, sizeof text, "%.64s (%s) reports Xid %llu: %s", w->latest.name, w->bus,
             xid, xid_meaning(xid));
    add_alarm(w, text);
    if (is_off(xid) && w->off_since <= 0)
        w->off_since = clock_now();
    if (is_off(xid) || xid == 48 || xid == 95)
        set_broken(w, text);
    pthread_mutex_unlock(&w->lock);
}

/* 1: the watch is over. */
static int pause_slice(struct health_watch *w)
{
    struct timespec until;
    int quit;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += SLICE_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    pthread_mutex_lock(&w->lock);
    if (!w->quit)
        pthread_cond_timedwait(&w->changed, &w->lock, &until);
    quit = w->quit;
    pthread_mutex_unlock(&w->lock);
    return quit;
}

/* A reading is wanted now; told once. */
static int is_asked(struct health_watch *w)
{
    int asked;

    pthread_mutex_lock(&w->lock);
    asked = w->asked;
    w->asked = 0;
    pthread_mutex_unlock(&w->lock);
    return asked;
}

static int quits(struct health_watch *w)
{
    int quit;

    pthread_mutex_lock(&w->lock);
    quit = w->quit;
    pthread_mutex_unlock(&w->lock);
    return quit;
}

/* Who is held by a GPU that is off the bus ends here. */
static void end_lost(struct health_watch *w)
{
    char text[ALARM_BYTES];
    health_lost *lost = NULL;

    pthread_mutex_lock(&w->lock);
    if (!w->quit && w->off_since > 0 && clock_now() - w->off_since > HEALTH_GRACE) {
        lost = w->lost;
        w->lost = NULL;
        memcpy(text, w->broken, sizeof text);
    }
    pthread_mutex_unlock(&w->lock);
    if (lost)
        lost(w->lost_arg, text);
}

/* Until the next reading is due; Xids are told as they come. 1: the watch is over. */
static int wait_events(struct health_watch *w, const struct nvml *l, void *set)
{
    double until = clock_now() + w->seconds;
    struct nvml_event event;
    int quit = quits(w);

    while (!quit && clock_now() < until && !is_asked(w)) {
        int rc = set ? l->nvmlEventSetWait_v2(set, &event, SLICE_MS) : NVML_TIMEOUT;

        if (!rc && event.type == NVML_EVENT_XID)
            tell_xid(w, event.data);
        quit = !set || (rc && rc != NVML_TIMEOUT) ? pause_slice(w) : quits(w);
        end_lost(w);
    }
    return quit;
}

static void *open_events(const struct nvml *l, void *gpu)
{
    void *set = NULL;

    if (!l->nvmlEventSetCreate || !l->nvmlDeviceRegisterEvents || !l->nvmlEventSetWait_v2 ||
        !l->nvmlEventSetFree || l->nvmlEventSetCreate(&set))
        return NULL;
    if (!l->nvmlDeviceRegisterEvents(gpu, NVML_EVENT_XID, set))
        return set;
    l->nvmlEventSetFree(set);
    return NULL;
}

static void watch(struct health_watch *w)
{
    struct nvml l = {0};
    struct str was = {0};
    struct health_gpu g;
    char reason[256];
    void *gpu = NULL, *set;
    int rc;

    if (health_library(&l, reason, sizeof reason) || !l.nvmlDeviceGetHandleByPciBusId_v2 ||
        l.nvmlInit_v2())
        return;
    rc = l.nvmlDeviceGetHandleByPciBusId_v2(w->bus, &gpu);
    set = rc ? NULL : open_events(&l, gpu);
    do {
        health_gpu(&l, rc, gpu, w->bus, &g);
        tell_reading(w, &g, &was);
        rc = wait_events(w, &l, set);
        if (!rc) /* a GPU that is lost says so here */
            rc = l.nvmlDeviceGetHandleByPciBusId_v2(w->bus, &gpu);
        else
            break;
    } while (1);
    if (set)
        l.nvmlEventSetFree(set);
    l.nvmlShutdown();
    str_fini(&was);
}

static void drop(struct health_watch *w)
{
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->changed);
    mem_free(w);
}

static void *run(void *arg)
{
    struct health_watch *w = arg;
    int left;

    watch(w);
    pthread_mutex_lock(&w->lock);
    w->ended = 1;
    left = w->left;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    if (left)
        drop(w);
    return NULL;
}

struct health_watch *health_watch_start(const char *bus, double seconds, health_lost *lost,
                                        void *arg)
{
    struct health_watch *w = mem_alloc(sizeof *w);
    pthread_t thread;

    if (!w)
        return NULL;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->changed, NULL);
    snprintf(w->bus, sizeof w->bus, "%s", bus);
    w->seconds = seconds;
    w->ecc = -1;
    w->lost = lost;
    w->lost_arg = arg;
    w->heard = clock_now();
    if (pthread_create(&thread, NULL, run, w)) {
        drop(w);
        return NULL;
    }
    pthread_detach(thread);
    return w;
}

int health_watch_latest(struct health_watch *w, struct health_gpu *out)
{
    int known;

    if (!w)
        return 0;
    pthread_mutex_lock(&w->lock);
    known = w->known;
    *out = w->latest;
    pthread_mutex_unlock(&w->lock);
    return known;
}

int health_watch_alarm(struct health_watch *w, char *text, size_t n)
{
    int told = 0;

    if (!w)
        return 0;
    pthread_mutex_lock(&w->lock);
    if (!w->ended && !w->silent && clock_now() - w->heard > w->seconds + HEALTH_PATIENCE) {
        w->silent = 1;
        add_alarm(w, "NVML does not answer: the driver hangs, or has lost a GPU");
    }
    if (w->taken < w->put) {
        snprintf(text, n, "%s", w->alarm[w->taken++ % ALARMS_MAX]);
        told = 1;
    }
    pthread_mutex_unlock(&w->lock);
    return told;
}

int health_watch_broken(struct health_watch *w, char *text, size_t n)
{
    int broken;

    if (!w)
        return 0;
    pthread_mutex_lock(&w->lock);
    snprintf(text, n, "%s", w->broken);
    broken = *w->broken != 0;
    pthread_mutex_unlock(&w->lock);
    return broken;
}

void health_watch_ask(struct health_watch *w, double seconds)
{
    struct timespec until;
    long readings;

    if (!w)
        return;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += (long)(seconds * 1e9);
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    pthread_mutex_lock(&w->lock);
    readings = w->readings;
    w->asked = 1;
    while (!w->ended && w->readings == readings &&
           !pthread_cond_timedwait(&w->changed, &w->lock, &until))
        ;
    pthread_mutex_unlock(&w->lock);
}

void health_watch_stop(struct health_watch *w)
{
    double until = clock_now() + HEALTH_PATIENCE;
    struct timespec wall;
    int ended;

    if (!w)
        return;
    clock_gettime(CLOCK_REALTIME, &wall);
    wall.tv_sec += HEALTH_PATIENCE;
    pthread_mutex_lock(&w->lock);
    w->quit = 1;
    pthread_cond_broadcast(&w->changed);
    while (!w->ended && clock_now() < until &&
           !pthread_cond_timedwait(&w->changed, &w->lock, &wall))
        ;
    ended = w->ended;
    w->left = !ended;
    pthread_mutex_unlock(&w->lock);
    if (ended)
        drop(w);
}
