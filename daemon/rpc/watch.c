/* Watch: a job's events until it ends. */
#include "daemon/watch.h"

#include "daemon/daemon.h"
#include "daemon/rpc.h"

RPC_HANDLER(watch, WatchRequest, Event)
{
    struct rpc_call *call = ctx;
    struct job *j = daemon_find_job(call->d, in->id);
    struct err e;

    (void)service;
    (void)reply; /* the stream ends in watch_job() */
    if (j) {
        watch_begin(call, j);
        return;
    }
    err_set(&e, ERR_CONFIG, "no job %llu", (unsigned long long)in->id);
    rpc_fail(call, &e);
}
