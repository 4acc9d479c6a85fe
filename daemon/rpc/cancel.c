/* Cancel: stops a job for good, with a checkpoint at the next step boundary or, with `now`,
 * at once. A job that has ended is left as it is. */
#include <math.h>

#include "daemon/daemon.h"
#include "daemon/rpc.h"

RPC_HANDLER(cancel, CancelRequest, Job)
{
    struct rpc_call *call = ctx;
    struct job *j = rpc_find_job(call, in->id, ACCESS_STEER);

    (void)service;
    (void)reply;
    if (!j)
        return;
    daemon_stop_job(call->d, j, in->has_now && in->now ? 0 : INFINITY);
    rpc_reply_job(call, j);
}
