/* Logs: a job's log, from a byte on, with `follow` until the job ends. */
#include "daemon/daemon.h"
#include "daemon/rpc.h"
#include "daemon/tail.h"

RPC_HANDLER(logs, LogsRequest, LogChunk)
{
    struct rpc_call *call = ctx;
    struct daemon *d = call->d;
    struct job *j = rpc_find_job(call, in->id, ACCESS_VIEW);

    (void)service;
    (void)reply; /* the stream ends in tail.c */
    if (!j)
        return;
    tail_log(call, j, in->has_offset ? in->offset : 0, in->has_follow && in->follow);
    daemon_schedule(d);
}
