/* Pause: a job's workers save and stop, its cores are free for others, nothing of it starts
 * until it is resumed. A run that was started elsewhere saves and stops as well; it is
 * started again where it was, resumed here or not. A job that has ended, or is being
 * cancelled, cannot be paused. */
#include "daemon/daemon.h"
#include "daemon/rpc.h"

RPC_HANDLER(pause, JobRequest, Job)
{
    struct rpc_call *call = ctx;
    struct daemon *d = call->d;
    struct job *j = rpc_find_job(call, in->id, ACCESS_STEER);
    struct err e;
    int rc;

    (void)service;
    (void)reply;
    if (!j)
        return;
    if (job_ended(j) || j->want == WANT_STOP)
        rc = err_set(&e, ERR_CONFIG, "job %llu is %s: it cannot be paused",
                     (unsigned long long)j->id, job_state_name(j->state));
    else
        rc = daemon_want(d, j, WANT_PAUSE, &e);
    rpc_reply_result(call, j, rc, &e);
    daemon_schedule(d);
}
