/* The watch over sums from device to device; see device.h. Fails only to start.
 *
 * What was queued long ago and is not done hangs. The ranks of a host write in their window
 * how many sums each has joined, and the first of them tells it to the other hosts twice a
 * second (beacon.h), so that the one that is missing has a name. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "worker/dist/device_internal.h"

enum { LOOK_MS = 100, LATE_MS = 1500, LEAVE_SECONDS = 2, ABORT_SECONDS = 3 };

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

/* The same of another host, as its first rank tells ours. */
static int find_far(const struct devices *d, long number, struct beacon_rank *out,
                    char *host, size_t n)
{
    struct beacon *b = d->cluster->beacon;

    return b && beacon_find(b, number, out, host, n);
}

static void say_hang(const struct devices *d, long number, double seconds, char *out,
                     size_t n)
{
    const struct window_rank *w = find_missing(d, number);
    struct beacon_rank r;
    char sum[96], host[64];

    name_sum(d, number, sum, sizeof sum);
    snprintf(host, sizeof host, "%s", d->comm.host);
    if (w)
        r = (struct beacon_rank){.rank = atomic_load(&w->rank),
                                 .pid = atomic_load(&w->pid),
                                 .phase = atomic_load(&w->phase),
                                 .device = atomic_load(&w->device),
                                 .step = atomic_load(&w->step)};
    if (w || find_far(d, number, &r, host, sizeof host))
        snprintf(out, n,
                 "rank %d on %s (pid %d, device %d) is missing from %s since %.0f s: it is "
                 "at step %ld, %s",
                 r.rank, host, r.pid, r.device, sum, seconds, (long)r.step + 1,
                 comm_phase_name(r.phase));
    else
        snprintf(out, n,
                 "rank %d on %s (device %d): %s hangs since %.0f s, though every rank has "
                 "joined it, as far as is known: look at the link between the devices and "
                 "hosts (NCCL_DEBUG=INFO says more)",
                 d->comm.rank, d->comm.host, d->own.index, sum, seconds);
}

/* Is it this rank that says so? The first rank of a host knows most, and of the hosts the
 * first that waits speaks. */
static int speaks(const struct devices *d, long number)
{
    struct cluster *k = d->cluster;

    if (k->beacon && !beacon_speaks(k->beacon, number)) {
        cluster_speaks(&k->comm); /* that our end is no news to the others of this host */
        return 0;
    }
    for (int i = 0; k->hosts > 1 && !k->beacon && i < LATE_MS / LOOK_MS; i++) {
        usleep(LOOK_MS * 1000);
        if (atomic_load(&d->stopping))
            return 0;
    }
    return cluster_speaks(&k->comm);
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
static void end_all(struct devices *d, const char *text, int report)
{
    struct cluster *k = d->cluster;

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
    end_all(d, text, cluster_speaks(&d->cluster->comm));
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
            end_all(d, text, speaks(d, done + 1));
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
