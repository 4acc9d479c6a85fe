/* Skip: a stage is taken as over without being done. One that runs saves and stops first.
 * Stages that need it read its final model; where there is none, they have to be skipped
 * before it. */
#include <string.h>

#include "daemon/daemon.h"
#include "daemon/folder.h"
#include "daemon/rpc.h"
#include "daemon/work.h"

static int find_needy(const struct job *j, size_t stage, size_t *needy)
{
    for (size_t i = 0; i < j->n_stages; i++)
        for (size_t k = 0; k < j->stage[i].n_needs; k++)
            if (j->stage[i].needs[k] == stage && !stage_over(j->stage[i].state)) {
                *needy = i;
                return 1;
            }
    return 0;
}

static int check(const struct job *j, const char *name, size_t *stage, struct err *e)
{
    size_t i = 0, needy;

    if (!name)
        return err_set(e, ERR_CONFIG, "skip: which stage?");
    while (i < j->n_stages && strcmp(j->stage[i].name, name) != 0)
        i++;
    *stage = i;
    if (i == j->n_stages)
        return err_set(e, ERR_CONFIG, "job %llu has no stage \"%.100s\"",
                       (unsigned long long)j->id, name);
    if (job_ended(j) || j->stage[i].state > STAGE_RUNNING)
        return err_set(e, ERR_CONFIG, "stage %s is %s already", name,
                       stage_state_name(j->stage[i].state));
    if (!folder_has_stage(j->run, name) && find_needy(j, i, &needy)) {
        err_set(e, ERR_CONFIG, "stage %s needs %s, which has no final model yet",
                j->stage[needy].name, name);
        return err_mend(e, "hone skip %llu %s first", (unsigned long long)j->id,
                        j->stage[needy].name);
    }
    return 0;
}

static int skip(struct daemon *d, struct job *j, struct job_stage *s, struct err *e)
{
    struct job_stage was = *s;
    enum job_state state = j->state;
    int rc;

    if (s->state == STAGE_WAITING)
        stage_move(s, STAGE_SKIPPED);
    else
        s->asked = ASKED_SKIP;
    rc = daemon_save(d, j, e);
    if (rc) {
        *s = was;
        j->state = state;
        return rc;
    }
    work_ask(d, s, ASKED_SKIP);
    daemon_job_changed(d, j);
    return 0;
}

RPC_HANDLER(skip, StageRequest, Job)
{
    struct rpc_call *call = ctx;
    struct daemon *d = call->d;
    struct job *j = rpc_find_job(call, in->id, ACCESS_STEER);
    struct err e;
    size_t i = 0;
    int rc;

    (void)service;
    (void)reply;
    if (!j)
        return;
    rc = check(j, in->stage, &i, &e);
    if (!rc)
        rc = skip(d, j, &j->stage[i], &e);
    rpc_reply_result(call, j, rc, &e);
    daemon_schedule(d);
}
