/* What a daemon keeps: see retain.h. */
#include "daemon/retain.h"

#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "daemon/event.h"

enum { FORGET_MAX = 200 }; /* at once: nobody waits long for it */

void retain_defaults(struct limits *l)
{
    *l = (struct limits){.disk_least = 1 << 30,
                         .keep_jobs = 10000,
                         .open_jobs = 10000,
                         .event_bytes = 16 << 20,
                         .look_every = 60};
}

/* ---- how much there is ---- */

/* Bytes of the files in a folder. */
static uint64_t folder_bytes(const char *path)
{
    char file[FILE_PATH_MAX], **name;
    uint64_t sum = 0;
    struct err e;
    size_t n;

    if (file_list(path, &name, &n, &e))
        return 0;
    for (size_t i = 0; i < n; i++) {
        long long size = file_join(file, sizeof file, path, name[i], &e) ? -1
                         : file_is_dir(file)                             ? -1
                                                                         : file_size(file);

        sum += size > 0 ? (uint64_t)size : 0;
        mem_free(name[i]);
    }
    mem_free(name);
    return sum;
}

static void measure(struct daemon *d)
{
    char path[FILE_PATH_MAX];
    struct err e;

    d->held.state_bytes = folder_bytes(d->state);
    if (!file_join(path, sizeof path, d->state, "events", &e))
        d->held.state_bytes += folder_bytes(path);
    if (store_count_ended(d->store, &d->held.ended, &e))
        log_error("count jobs: %s", e.msg);
}

static size_t open_jobs(const struct daemon *d, const char *owner)
{
    size_t n = 0;

    for (size_t i = 0; i < d->n_jobs; i++)
        n += !job_ended(d->jobs[i]) && d->jobs[i]->owner &&
             !strcmp(d->jobs[i]->owner, owner);
    return n;
}

/* ---- limits ---- */

int retain_check(const struct daemon *d, const char *owner, size_t arriving, struct err *e)
{
    const struct limits *l = &d->limits;
    char held[32], most[32];

    if (d->is_private)
        return 0;
    if (l->open_jobs && open_jobs(d, owner) + arriving >= l->open_jobs) {
        err_set(e, ERR_DENIED, "%s has %zu jobs that have not ended, and %llu are allowed",
                owner, open_jobs(d, owner) + arriving, (unsigned long long)l->open_jobs);
        return err_mend(e, "wait for one to end, or hone cancel one");
    }
    if (l->state_bytes && d->held.state_bytes > l->state_bytes) {
        err_set(e, ERR_DENIED, "%s holds %s, and %s are allowed", d->state,
                str_bytes(held, sizeof held, (double)d->held.state_bytes),
                str_bytes(most, sizeof most, (double)l->state_bytes));
        return err_mend(e, "hone rm jobs that have ended, or start honed with more "
                           "--max-state");
    }
    return 0;
}

static int is_near(uint64_t held, uint64_t limit)
{
    return limit && held >= limit - (limit < 10 ? 1 : limit / 10);
}

size_t retain_warnings(const struct daemon *d, const char *owner, struct arena *a,
                       char *out[RETAIN_WARNINGS_MAX])
{
    const struct limits *l = &d->limits;
    char held[32], most[32];
    size_t n = 0, mine;

    if (d->is_private)
        return 0;
    if (is_near(d->held.ended, l->keep_jobs))
        out[n++] = arena_printf(
            a,
            "%llu of the %llu jobs that have ended are kept: the oldest "
            "are forgotten then, with their events",
            (unsigned long long)d->held.ended, (unsigned long long)l->keep_jobs);
    if (is_near(d->held.state_bytes, l->state_bytes))
        out[n++] =
            arena_printf(a, "the state folder holds %s of %s: submits are refused then",
                         str_bytes(held, sizeof held, (double)d->held.state_bytes),
                         str_bytes(most, sizeof most, (double)l->state_bytes));
    mine = owner ? open_jobs(d, owner) : 0;
    if (owner && is_near(mine, l->open_jobs))
        out[n++] = arena_printf(
            a, "%s has %zu of %llu jobs that have not ended: submits are refused then",
            owner, mine, (unsigned long long)l->open_jobs);
    for (size_t i = 0; i < n; i++)
        if (!out[i])
            return 0;
    return n;
}

/* ---- forgetting ---- */

/* The events first: a row without events is forgotten next time, events without a row
 * would stay for ever. */
static void forget(struct daemon *d)
{
    const struct limits *l = &d->limits;
    double before = l->keep_seconds > 0 ? clock_wall() - l->keep_seconds : 0;
    uint64_t id[FORGET_MAX];
    size_t n = 0, gone = 0;
    struct err e;

    if (!l->keep_jobs && l->keep_seconds <= 0)
        return;
    if (store_list_old(d->store, l->keep_jobs, before, id, FORGET_MAX, &n, &e))
        log_error("jobs that have ended: %s", e.msg);
    for (size_t i = 0; i < n; i++) {
        struct job *j = daemon_find_job(d, id[i]);

        if (!j || !job_ended(j) || j->unsaved)
            continue;
        event_remove_journal(d, j);
        daemon_forget_job(d, j);
        id[gone++] = id[i];
    }
    /* All at once: each transaction waits for the disk. */
    if (gone && store_remove_jobs(d->store, id, gone, &e))
        log_error("jobs that have ended: %s", e.msg);
    else if (gone)
        log_info("%zu jobs that had ended are forgotten", gone);
}

static void tell(struct daemon *d)
{
    struct arena a = {0};
    char *text[RETAIN_WARNINGS_MAX];
    size_t n = retain_warnings(d, NULL, &a, text);

    for (size_t i = 0; i < n && n > d->held.told; i++)
        log_warn("%s", text[i]);
    d->held.told = n;
    arena_fini(&a);
}

void retain_tick(struct daemon *d)
{
    double now = d->io->ops->now(d->io);

    if (d->is_private || now < d->held.next)
        return;
    d->held.next = now + d->limits.look_every;
    forget(d);
    measure(d);
    tell(d);
}

double retain_next(const struct daemon *d)
{
    return d->is_private ? INFINITY : d->held.next;
}
