/* List: jobs, newest first. What has not ended comes from memory, the rest from the store.
 */
#include <string.h>

#include "base/mem.h"
#include "daemon/daemon.h"
#include "daemon/rpc.h"
#include "daemon/show.h"

enum { LIMIT = 100, LIMIT_MAX = 1000 };

struct listing {
    struct daemon *d;
    struct arena arena;
    Hone__V1__JobList m;
    size_t limit;
    int failed;
    struct job **held; /* jobs that the messages borrow from */
    size_t n_held;
};

/* In memory it knows more. */
static struct job *newest_of(struct daemon *d, struct job *j)
{
    for (size_t i = 0; i < d->n_jobs; i++)
        if (d->jobs[i]->id == j->id)
            return d->jobs[i];
    return j;
}

static int take(void *ctx, struct job *j)
{
    struct listing *l = ctx;
    double now = l->d->io->ops->now(l->d->io);
    Hone__V1__Job *m;

    l->held[l->n_held++] = j;
    if (l->m.n_jobs == l->limit) {
        l->m.has_more = l->m.more = 1;
        return 1;
    }
    m = show_job(&l->arena, newest_of(l->d, j), now);
    l->failed |= !m;
    if (m)
        l->m.jobs[l->m.n_jobs++] = m;
    return l->failed;
}

static int list(struct listing *l, const Hone__V1__ListRequest *in, struct err *e)
{
    struct store_filter f = {.before = in->has_before ? in->before : 0};
    int rc;

    for (size_t i = 0; i < in->n_states; i++) {
        int state = job_state_find(in->states[i]);

        if (state < 0) {
            err_set(e, ERR_CONFIG, "no state is called \"%.100s\"", in->states[i]);
            err_field(e, "states");
            return err_mend(e, "queued, running, pausing, paused, stopping, done, failed "
                               "or stopped");
        }
        f.states |= 1u << state;
    }
    l->limit = in->has_limit && in->limit ? in->limit : LIMIT;
    if (l->limit > LIMIT_MAX)
        l->limit = LIMIT_MAX;
    hone__v1__job_list__init(&l->m);
    l->m.jobs = arena_array(&l->arena, l->limit + 1, sizeof *l->m.jobs);
    l->held = arena_array(&l->arena, l->limit + 1, sizeof *l->held);
    if (!l->m.jobs || !l->held)
        return err_set(e, ERR_NOMEM, "out of memory");
    rc = store_load_jobs(l->d->store, &f, take, l, e);
    return rc || !l->failed ? rc : err_set(e, ERR_NOMEM, "out of memory");
}

RPC_HANDLER(list, ListRequest, JobList)
{
    struct rpc_call *call = ctx;
    struct listing l = {.d = call->d};
    struct err e;
    int rc = access_check(&call->who, ACCESS_VIEW, NULL, &e);

    (void)service;
    if (!rc)
        rc = list(&l, in, &e);
    if (rc)
        rpc_fail(call, &e);
    else
        reply(&l.m, ctx);
    for (size_t i = 0; i < l.n_held; i++)
        job_free(l.held[i]);
    arena_fini(&l.arena);
}
