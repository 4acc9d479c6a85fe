/* Watch: a job's events until it ends. */
#include "daemon/watch.h"

#include "daemon/daemon.h"
#include "daemon/rpc.h"

RPC_HANDLER(watch, WatchRequest, Event)
{
    struct rpc_call *call = ctx;
    struct job *j = rpc_find_job(call, in->id, ACCESS_VIEW);

    (void)service;
    (void)reply; /* the stream ends in watch.c */
    if (j)
        watch_begin(call, j, in->has_after ? &in->after : NULL);
}
