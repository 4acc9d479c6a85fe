/* The watch over the ranks of a host; see watch.h. Fails only to start. */
#include "worker/dist/watch.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"
#include "worker/dist/comm.h"
#include "worker/dist/lag.h"

struct seen { /* of one rank */
    uint32_t beat;
    int silent;  /* looks since it changed */
    int visible; /* /proc shows its process */
};

enum { LATE_SECONDS = 2 };

struct stand {      /* the one for whom all others wait */
    int who, phase; /* -1: nobody */
    long step, joined;
    double since;
};

struct watch {
    const struct window *window;
    const char *host;
    watch_lost *lost;
    watch_lag *tell_lag; /* NULL: not here */
    struct lag lag;
    struct stand stand;
    void *arg;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    int stopping;
    struct seen seen[];
};

uint64_t watch_born(int pid)
{
    char path[64], line[1024], *p;
    unsigned long long born = 0;
    FILE *f;

    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    f = fopen(path, "re");
    if (!f)
        return 0;
    p = fgets(line, sizeof line, f) ? strrchr(line, ')') : NULL; /* the name may hold any */
    fclose(f);
    /* ") S ppid ...": field 3 is the state, field 22 the start time. */
    if (!p || p[1] != ' ' || p[2] == 'Z' || p[2] == 'X')
        return 0;
    for (int field = 3; p && field <= 22; field++)
        p = strchr(p + 1, ' ');
    if (p)
        born = strtoull(p, NULL, 10);
    return born;
}

static int is_gone(const struct window_rank *r)
{
    return watch_born(atomic_load(&r->pid)) != atomic_load(&r->born);
}

/* Does rank i still live, as far as we can tell? *silent: it lives but does not move. */
static int is_lost(struct watch *t, int i, int *silent)
{
    const struct window_rank *r = window_rank(t->window, i);
    struct seen *s = &t->seen[i];
    uint32_t beat = atomic_load(&r->beat);

    *silent = 0;
    if (atomic_load(&r->left))
        return 0;
    if (s->visible && is_gone(r))
        return !atomic_load(&r->left); /* it may have said so just now */
    s->silent = beat == s->beat ? s->silent + 1 : 0;
    s->beat = beat;
    *silent = s->silent >= WATCH_SILENCE;
    return *silent;
}

/* The rank, its process, and its device if it sums on one. */
static void name_rank(const struct watch *t, const struct window_rank *r, char *out,
                      size_t n)
{
    char device[32] = "";

    if (atomic_load(&r->joined))
        snprintf(device, sizeof device, ", device %d", atomic_load(&r->device));
    snprintf(out, n, "rank %d on %s (pid %d%s)", atomic_load(&r->rank), t->host,
             atomic_load(&r->pid), device);
}

static void say(struct watch *t, int i, int silent)
{
    const struct window_rank *r = window_rank(t->window, i);
    char text[ERR_MSG_MAX], name[128];
    int report = 1;

    for (int k = 0; k < t->window->local; k++)
        report &= k == i || is_gone(window_rank(t->window, k));
    report = report && !atomic_exchange(&t->window->head->reported, 1);
    name_rank(t, r, name, sizeof name);
    snprintf(text, sizeof text, "%s %s at step %ld, %s", name,
             silent ? "has not moved for 10 s (is it stopped?)" : "was killed or crashed",
             atomic_load(&r->step) + 1, comm_phase_name(atomic_load(&r->phase)));
    t->lost(t->arg, text, report, 0);
}

static int is_training(int phase)
{
    return phase >= COMM_FORWARD && phase <= COMM_UPDATE;
}

/* All others wait for `who` (-1: not for one). Has it stood still for the patience, and
 * LATE_SECONDS more for who knows better (device_watch.c)? A call of a device's runtime may
 * never return. */
static void look_for_stand(struct watch *t, int who)
{
    const struct window_rank *r = who < 0 ? NULL : window_rank(t->window, who);
    int patience = atomic_load(&t->window->head->patience);
    struct stand now = {.who = who, .since = clock_now()}, *was = &t->stand;
    char name[128], text[ERR_MSG_MAX];

    if (r) {
        now.phase = atomic_load(&r->phase);
        now.step = atomic_load(&r->step);
        now.joined = atomic_load(&r->joined);
    }
    if (!r || was->who != who || was->phase != now.phase || was->step != now.step ||
        was->joined != now.joined) {
        *was = now;
        return;
    }
    if (!patience || now.since - was->since < patience + LATE_SECONDS ||
        atomic_exchange(&t->window->head->reported, 1))
        return;
    name_rank(t, r, name, sizeof name);
    snprintf(text, sizeof text,
             "%s has not come on for %.0f s and all others wait for it: it is at step %ld, "
             "%s",
             name, now.since - was->since, now.step + 1, comm_phase_name(now.phase));
    t->lost(t->arg, text, 1, 0);
}

/* Does everybody wait for one of us? */
static int find_last(struct watch *t)
{
    int who = -1, working = 0;

    for (int i = 0; i < t->window->ranks; i++) {
        const struct window_rank *r = window_rank(t->window, i);

        if (atomic_load(&r->left) || !is_training(atomic_load(&r->phase)))
            return -1;
        /* Who does not run may look like one who waits: what he waited for has come. */
        if (atomic_load(&r->waits) && t->seen[i].silent <= 1)
            continue;
        who = i;
        working++;
    }
    return working == 1 ? who : -1;
}

static void look_for_lag(struct watch *t)
{
    int who = find_last(t), named;
    char text[ERR_MSG_MAX];
    double share;

    look_for_stand(t, who);
    named = lag_look(&t->lag, who, &share);
    if (named >= 0) {
        const struct window_rank *r = window_rank(t->window, named);

        lag_say(text, sizeof text, atomic_load(&r->rank), t->host, atomic_load(&r->pid),
                share, atomic_load(&r->step), atomic_load(&r->phase));
        t->tell_lag(t->arg, text);
    }
}

static void look_around(struct watch *t)
{
    atomic_fetch_add(&window_rank(t->window, t->window->local)->beat, 1);
    for (int i = 0; i < t->window->ranks; i++) {
        int silent;

        if (i == t->window->local || !is_lost(t, i, &silent))
            continue;
        say(t, i, silent);
        return;
    }
    if (t->tell_lag)
        look_for_lag(t);
}

static void *watch(void *arg)
{
    struct watch *t = arg;

    pthread_mutex_lock(&t->lock);
    while (!t->stopping) {
        struct timespec until;

        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += WATCH_LOOK_MS * 1000000L;
        until.tv_sec += until.tv_nsec / 1000000000L;
        until.tv_nsec %= 1000000000L;
        pthread_cond_timedwait(&t->wake, &t->lock, &until);
        if (!t->stopping)
            look_around(t);
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

int watch_start(struct watch **out, const struct window *w, const char *host,
                watch_lost *lost, watch_lag *lag, void *arg, struct err *e)
{
    struct watch *t = mem_alloc(sizeof *t + (size_t)w->ranks * sizeof *t->seen);
    pthread_condattr_t attr;
    int rc;

    *out = NULL;
    if (!t)
        return err_set(e, ERR_NOMEM, "watch: out of memory");
    t->window = w;
    t->host = host;
    t->lost = lost;
    t->arg = arg;
    t->stand.who = -1;
    t->tell_lag = w->local == 0 ? lag : NULL;
    if (t->tell_lag && lag_open(&t->lag, w->ranks, LAG_SECONDS * 1000 / WATCH_LOOK_MS)) {
        mem_free(t);
        return err_set(e, ERR_NOMEM, "watch: out of memory");
    }
    for (int i = 0; i < w->ranks; i++)
        t->seen[i].visible = !is_gone(window_rank(w, i));
    pthread_mutex_init(&t->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&t->wake, &attr);
    pthread_condattr_destroy(&attr);
    rc = pthread_create(&t->thread, NULL, watch, t);
    if (rc) {
        pthread_cond_destroy(&t->wake);
        pthread_mutex_destroy(&t->lock);
        lag_close(&t->lag);
        mem_free(t);
        return err_errno(e, ERR_FAILED, rc, "watch: start a thread");
    }
    *out = t;
    return 0;
}

void watch_stop(struct watch *t)
{
    if (!t)
        return;
    pthread_mutex_lock(&t->lock);
    t->stopping = 1;
    pthread_cond_signal(&t->wake);
    pthread_mutex_unlock(&t->lock);
    pthread_join(t->thread, NULL);
    pthread_cond_destroy(&t->wake);
    pthread_mutex_destroy(&t->lock);
    lag_close(&t->lag);
    mem_free(t);
}
