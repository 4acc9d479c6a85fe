/* Resume: a paused job goes on, from the checkpoints it left, as soon as there is room. One
 * that is still pausing goes on once its workers have stopped; one that was started
 * elsewhere is wanted again, and starts there. */
#include "daemon/daemon.h"
#include "daemon/event.h"
#include "daemon/rpc.h"

RPC_HANDLER(resume, JobRequest, Job)
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
    if (job_ended(j) || j->want == WANT_STOP) {
        err_set(&e, ERR_CONFIG, "job %llu is %s", (unsigned long long)j->id,
                job_state_name(j->state));
        rc = err_mend(&e, "hone retry %llu", (unsigned long long)j->id);
    } else {
        rc = daemon_want(d, j, WANT_RUN, &e);
        if (!rc && j->attached)
            event_note(d, j, NULL, "info",
                       "wanted again: start it where it was, with --resume and --report");
    }
    rpc_reply_result(call, j, rc, &e);
    daemon_schedule(d);
}
