/* The watch over sums from device to device; see device.h. Fails only to start.
 *
 * What was queued long ago and is not done hangs. The ranks of a host write in their window
 * how many sums each has joined, so that the one that is missing has a name. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "worker/dist/device_internal.h"

enum { LOOK_MS = 100, LEAVE_SECONDS = 2, ABORT_SECONDS = 3 };

/* The lowest rank of this host that has not joined sum `number` (from 1), or NULL. */
static const struct window_rank *find_missing(const struct devices *d, long number)
{
    const struct window *w = &d->cluster->window;

    for (int i = 0; w->head && i < w->ranks; i++) {
        const struct window_rank *r = window_rank(w, i);

        if (i != w->local && atomic_load(&r->joined) < number)
            return r;
    }
    return NULL;
}

static void name_sum(const struct devices *d, long number, char *out, size_t n)
{
    const struct device_label *l = &d->label[(number - 1) % DEVICE_LABELS];
    int bucket = atomic_load(&l->bucket);

    if (bucket < 0)
        snprintf(out, n, "sum %ld (embedding rows, step %ld)", number,
                 atomic_load(&l->step) + 1);
    else
        snprintf(out, n, "sum %ld (bucket %d, step %ld)", number, bucket,
                 atomic_load(&l->step) + 1);
}

static void say_hang(const struct devices *d, long number, double seconds, char *out,
                     size_t n)
{
    const struct window_rank *r = find_missing(d, number);
    char sum[96];
    int phase;

    name_sum(d, number, sum, sizeof sum);
    if (!r) {
        snprintf(out, n,
                 "rank %d on %s (device %d): %s hangs since %.0f s, though every rank of "
                 "this host has joined it: look at the link between the devices and hosts "
                 "(NCCL_DEBUG=INFO says more)",
                 d->comm.rank, d->comm.host, d->own.index, sum, seconds);
        return;
    }
    phase = atomic_load(&r->phase);
    snprintf(out, n,
             "rank %d on %s (pid %d, device %d) is missing from %s since %.0f s: it is at "
             "step %ld, %s",
             atomic_load(&r->rank), d->comm.host, atomic_load(&r->pid),
             atomic_load(&r->device), sum, seconds, atomic_load(&r->step) + 1,
             phase >= 0 && phase < COMM_PHASES ? comm_phase_names[phase] : "working");
}

static void *abort_sums(void *arg)
{
    struct devices *d = arg;

    d->backend->ranks->abort(d->group);
    atomic_store(&d->aborted, 1);
    return NULL;
}

/* End the sums, on a thread of its own: a device that is lost may never answer. */
static void abort_within(struct devices *d)
{
    pthread_t t;

    if (pthread_create(&t, NULL, abort_sums, d))
        return;
    pthread_detach(t);
    for (int i = 0; i < ABORT_SECONDS * 100 && !atomic_load(&d->aborted); i++)
        usleep(10000);
}

/* The ranks that are left end; one of a host says why. */
static void end_all(struct devices *d, const char *text)
{
    struct cluster *k = d->cluster;
    int report = !k->window.head || !atomic_exchange(&k->window.head->reported, 1);

    abort_within(d);
    if (k->lost)
        k->lost(k->lost_arg, text, report, 0);
}

/* A rank that has died makes the library fail, too; the watch over the processes says it
 * better, if it is given a moment. */
static void end_failed(struct devices *d, const struct backend_progress *p)
{
    char text[ERR_MSG_MAX], sum[96];

    for (int i = 0; i < LEAVE_SECONDS * 10 && !atomic_load(&d->stopping); i++)
        usleep(LOOK_MS * 1000);
    if (atomic_load(&d->stopping))
        return;
    name_sum(d, p->done + 1, sum, sizeof sum);
    snprintf(
        text, sizeof text,
        "rank %d on %s (pid %d, device %d, %.60s): %s at %s (NCCL_DEBUG=INFO says more)",
        d->comm.rank, d->comm.host, (int)getpid(), d->own.index, d->own.name, p->failed,
        sum);
    end_all(d, text);
}

static void *watch(void *arg)
{
    struct devices *d = arg;
    long done = -1;
    double since = clock_now();

    while (!atomic_load(&d->stopping)) {
        struct backend_progress p;
        double limit = d->limit > 0 ? d->limit : d->cluster->patience, now;

        usleep(LOOK_MS * 1000);
        d->backend->ranks->look(d->group, &p);
        now = clock_now();
        if (*p.failed) {
            end_failed(d, &p);
            return NULL;
        }
        if (p.done != done || p.done == p.queued)
            since = now;
        done = p.done;
        if (now - since > limit) {
            char text[ERR_MSG_MAX];

            say_hang(d, done + 1, now - since, text, sizeof text);
            end_all(d, text);
            return NULL;
        }
    }
    return NULL;
}

int device_watch_start(struct devices *d, struct err *e)
{
    int rc = pthread_create(&d->thread, NULL, watch, d);

    if (rc)
        return err_errno(e, ERR_FAILED, rc, "watch over the devices: start a thread");
    d->watched = 1;
    return 0;
}

void device_watch_stop(struct devices *d)
{
    if (!d->watched)
        return;
    atomic_store(&d->stopping, 1);
    pthread_join(d->thread, NULL);
    d->watched = 0;
}
