/* Control: a word to a job's workers. STOP saves and stops, ABORT kills, CHECKPOINT saves
 * and goes on. A job that has ended is left as it is. */
#include <math.h>

#include "daemon/daemon.h"
#include "daemon/rpc.h"
#include "daemon/uplink.h"
#include "daemon/watch.h"

static void obey(struct daemon *d, struct job *j, Hone__V1__Word word)
{
    if (job_ended(j))
        return;
    if (word == HONE__V1__WORD__STOP)
        daemon_stop_job(d, j, INFINITY);
    else if (word == HONE__V1__WORD__ABORT)
        daemon_stop_job(d, j, 0);
    else
        for (size_t i = 0; i < j->n_stages; i++)
            if (j->stage[i].state == STAGE_RUNNING)
                uplink_word(d, &j->stage[i], word);
}

RPC_HANDLER(control, ControlRequest, Job)
{
    struct rpc_call *call = ctx;
    struct daemon *d = call->d;
    struct job *j = daemon_find_job(d, in->id);
    struct arena a = {0};
    Hone__V1__Job *m = NULL;
    struct err e;

    (void)service;
    if (j) {
        obey(d, j, in->word);
        m = watch_job_message(&a, j);
    }
    if (m) {
        reply(m, ctx);
    } else {
        if (j)
            err_set(&e, ERR_NOMEM, "out of memory");
        else
            err_set(&e, ERR_CONFIG, "no job %llu", (unsigned long long)in->id);
        rpc_fail(call, &e);
    }
    arena_fini(&a);
}
