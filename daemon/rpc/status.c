/* Status: the daemon itself: what it has to give, what is in use. */
#include <unistd.h>

#include "daemon/daemon.h"
#include "daemon/retain.h"
#include "daemon/rpc.h"
#include "daemon/watch.h"

static void count_jobs(const struct daemon *d, Hone__V1__StatusReply *m)
{
    struct cores used = {0}, gpus = {0};

    for (size_t i = 0; i < d->n_jobs; i++) {
        const struct job *j = d->jobs[i];

        m->queued += j->state == JOB_QUEUED;
        m->paused += j->state == JOB_PAUSED || j->state == JOB_PAUSING;
        m->running += j->state == JOB_RUNNING || j->state == JOB_STOPPING;
        for (size_t k = 0; k < j->n_stages; k++)
            if (j->stage[k].state == STAGE_RUNNING) {
                cores_join(&used, &j->stage[k].cores);
                cores_join(&gpus, &j->stage[k].gpus);
                m->memory_used += j->stage[k].memory;
            }
    }
    m->cores_used = (uint32_t)cores_count(&used);
    m->gpus_used = (uint32_t)cores_count(&gpus);
}

RPC_HANDLER(status, StatusRequest, StatusReply)
{
    Hone__V1__StatusReply m = HONE__V1__STATUS_REPLY__INIT;
    struct rpc_call *call = ctx;
    struct daemon *d = call->d;
    char *warning[RETAIN_WARNINGS_MAX];
    struct arena scratch = {0};
    struct err e;

    (void)service;
    (void)in;
    if (access_check(&call->who, ACCESS_VIEW, NULL, &e)) {
        rpc_fail(call, &e);
        return;
    }
    m.program = (char *)(uintptr_t) "honed " HONE_VERSION;
    m.state = (char *)(uintptr_t)d->state;
    m.has_pid = m.has_up = m.has_epoch = m.has_cores = m.has_cores_used = m.has_memory = 1;
    m.has_memory_used = m.has_queued = m.has_running = m.has_paused = 1;
    m.has_connections = m.has_watchers = m.has_gpus = m.has_gpus_used = 1;
    m.pid = (uint32_t)getpid();
    m.up = d->io->ops->now(d->io) - d->started;
    m.epoch = store_epoch(d->store);
    m.cores = (uint32_t)cores_count(&d->resources.cores);
    m.gpus = (uint32_t)cores_count(&d->resources.gpus);
    m.memory = d->resources.memory;
    for (const struct conn *c = d->conns; c; c = c->next)
        m.connections++;
    m.watchers = (uint32_t)watch_count(d);
    count_jobs(d, &m);
    m.has_ended = m.has_ended_limit = m.has_state_bytes = m.has_state_limit = 1;
    m.ended = d->held.ended;
    m.ended_limit = d->limits.keep_jobs;
    m.state_bytes = d->held.state_bytes;
    m.state_limit = d->limits.state_bytes;
    m.warnings = warning;
    m.n_warnings = retain_warnings(d, call->who.user, &scratch, warning);
    reply(&m, ctx);
    arena_fini(&scratch);
}
