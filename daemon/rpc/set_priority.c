/* SetPriority: where a job stands in the queue. What runs already goes on. */
#include "daemon/daemon.h"
#include "daemon/event.h"
#include "daemon/rpc.h"

enum { PRIORITY_MAX = 100 };

static int set(struct daemon *d, struct job *j, int priority, struct err *e)
{
    int old = j->priority, rc;

    if (priority < -PRIORITY_MAX || priority > PRIORITY_MAX) {
        err_set(e, ERR_CONFIG, "priority %d: -%d to %d are possible", priority,
                PRIORITY_MAX, PRIORITY_MAX);
        return err_field(e, "priority");
    }
    if (job_ended(j))
        return err_set(e, ERR_CONFIG, "job %llu is %s", (unsigned long long)j->id,
                       job_state_name(j->state));
    j->priority = priority;
    rc = daemon_save(d, j, e);
    if (rc)
        j->priority = old;
    else
        event_state(d, j);
    daemon_sort_queue(d);
    return rc;
}

RPC_HANDLER(set_priority, PriorityRequest, Job)
{
    struct rpc_call *call = ctx;
    struct daemon *d = call->d;
    struct job *j = rpc_find_job(call, in->id, ACCESS_STEER);
    struct err e;

    (void)service;
    (void)reply;
    if (!j)
        return;
    rpc_reply_result(call, j, set(d, j, in->priority, &e), &e);
    daemon_schedule(d);
}
