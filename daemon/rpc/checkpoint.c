/* Checkpoint: a job's workers save at their next step boundary and go on. A job that does
 * not run has nothing to save. */
#include "daemon/daemon.h"
#include "daemon/rpc.h"
#include "daemon/uplink.h"

RPC_HANDLER(checkpoint, JobRequest, Job)
{
    struct rpc_call *call = ctx;
    struct job *j = rpc_find_job(call, in->id, ACCESS_STEER);

    (void)service;
    (void)reply;
    if (!j)
        return;
    for (size_t i = 0; i < j->n_stages; i++)
        if (j->stage[i].state == STAGE_RUNNING)
            uplink_word(call->d, &j->stage[i], HONE__V1__WORD__CHECKPOINT);
    rpc_reply_job(call, j);
}
