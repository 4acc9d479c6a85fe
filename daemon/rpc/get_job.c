/* GetJob: the state of a job. */
#include "daemon/daemon.h"
#include "daemon/rpc.h"

RPC_HANDLER(get_job, GetJobRequest, Job)
{
    struct rpc_call *call = ctx;
    struct job *j = rpc_find_job(call, in->id, ACCESS_VIEW);

    (void)service;
    (void)reply;
    if (j)
        rpc_reply_job(call, j);
}
