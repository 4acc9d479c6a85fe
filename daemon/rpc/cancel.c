/* Cancel: stops a job for good, with a checkpoint at the next step boundary or, with `now`,
 * at once. A job that has ended is left as it is. */
#include <math.h>

#include "daemon/daemon.h"
#include "daemon/rpc.h"

RPC_HANDLER(cancel, CancelRequest, Job)
{
    struct rpc_call *call = ctx;
    struct daemon *d = call->d;
    struct job *j = rpc_find_job(call, in->id, ACCESS_STEER);
    struct err e;

    (void)service;
    (void)reply;
    if (!j)
        return;
    rpc_reply_result(call, j,
                     daemon_stop_job(d, j, in->has_now && in->now ? 0 : INFINITY, &e), &e);
    daemon_schedule(d);
}
