/* GetJob: the state of a job. */
#include "daemon/daemon.h"
#include "daemon/rpc.h"
#include "daemon/watch.h"

RPC_HANDLER(get_job, GetJobRequest, Job)
{
    struct rpc_call *call = ctx;
    struct job *j = daemon_find_job(call->d, in->id);
    struct arena a = {0};
    Hone__V1__Job *m = j ? watch_job_message(&a, j) : NULL;
    struct err e;

    (void)service;
    if (!j)
        err_set(&e, ERR_CONFIG, "no job %llu", (unsigned long long)in->id);
    else if (!m)
        err_set(&e, ERR_NOMEM, "out of memory");
    if (m)
        reply(m, ctx);
    else
        rpc_fail(call, &e);
    arena_fini(&a);
}
