/* Remove: forget a job that has ended, with its events; with `files` its run folder goes
 * too, if it still is one. */
#include "daemon/daemon.h"
#include "daemon/event.h"
#include "daemon/rpc.h"

static int remove_files(const struct job *j, struct err *e)
{
    char path[FILE_PATH_MAX];
    int rc = file_join(path, sizeof path, j->run, ".hone", e);

    if (rc || !file_exists(j->run))
        return rc;
    if (!file_is_dir(path))
        return err_set(e, ERR_CONFIG, "%s is no run folder", j->run);
    return file_remove_tree(j->run, e);
}

RPC_HANDLER(remove, RemoveRequest, RemoveReply)
{
    Hone__V1__RemoveReply m = HONE__V1__REMOVE_REPLY__INIT;
    struct rpc_call *call = ctx;
    struct daemon *d = call->d;
    struct job *j = rpc_find_job(call, in->id, ACCESS_STEER);
    struct err e;
    int rc = 0;

    (void)service;
    if (!j)
        return;
    if (!job_ended(j)) {
        err_set(&e, ERR_CONFIG, "job %llu is %s", (unsigned long long)j->id,
                job_state_name(j->state));
        rc = err_mend(&e, "hone cancel %llu first", (unsigned long long)j->id);
    }
    if (!rc && in->has_files && in->files)
        rc = j->attached
                 ? err_set(&e, ERR_CONFIG, "the files of job %llu are elsewhere: %s",
                           (unsigned long long)j->id, j->run)
                 : remove_files(j, &e);
    if (!rc)
        rc = store_remove_job(d->store, j->id, &e);
    if (rc) {
        rpc_fail(call, &e);
        return;
    }
    event_remove_journal(d, j);
    daemon_forget_job(d, j);
    reply(&m, ctx);
}
