/* Skip: a stage is taken as over without being done. One that runs, or has begun and waits
 * to go on, trains no further: it evaluates what it has learned and leaves final/, from
 * which the stages that need it begin. One that has not begun has nothing for them: unless
 * an earlier attempt left final/, they have to be skipped before it. */
#include <string.h>

#include "daemon/daemon.h"
#include "daemon/event.h"
#include "daemon/folder.h"
#include "daemon/rpc.h"
#include "daemon/work.h"

/* A stage that would have to read its model; NULL: none. */
static const struct job_stage *find_needy(const struct job *j, const struct job_stage *s)
{
    for (size_t i = 0; i < j->n_stages; i++)
        for (size_t k = 0; k < j->stage[i].n_needs; k++)
            if (&j->stage[j->stage[i].needs[k]] == s && !stage_over(j->stage[i].state))
                return &j->stage[i];
    return NULL;
}

/* Nothing is to be done for it any more: there is a model, or nobody wants one. */
static int is_free(const struct job *j, const struct job_stage *s)
{
    return s->state == STAGE_WAITING &&
           (folder_has_stage(j->run, s->name) || !find_needy(j, s));
}

static int check(const struct job *j, const char *name, struct job_stage **out,
                 struct err *e)
{
    struct job_stage *s = NULL;

    if (!name) {
        err_set(e, ERR_CONFIG, "skip: which stage?");
        return err_field(e, "stage");
    }
    for (size_t i = 0; i < j->n_stages; i++)
        if (!strcmp(j->stage[i].name, name))
            s = &j->stage[i];
    *out = s;
    if (!s)
        return job_no_stage(j, name, e);
    if (job_ended(j) || s->state > STAGE_RUNNING)
        return err_set(e, ERR_CONFIG, "stage %s is %s already", name,
                       stage_state_name(s->state));
    if (s->state == STAGE_RUNNING || (s->attempt && !s->fresh) || is_free(j, s))
        return 0;
    err_set(e, ERR_CONFIG,
            "stage %s needs %s, which has not begun: it has no model to give",
            find_needy(j, s)->name, name);
    err_field(e, "stage");
    return err_mend(e, "hone skip %llu %s first, or skip %s once it runs",
                    (unsigned long long)j->id, find_needy(j, s)->name, name);
}

static int skip(struct daemon *d, struct job *j, struct job_stage *s, struct err *e)
{
    struct job_stage was = *s;
    enum job_state state = j->state;
    int rc;

    if (is_free(j, s))
        stage_move(s, STAGE_SKIPPED);
    else
        s->asked = ASKED_SKIP;
    rc = daemon_save(d, j, e);
    if (rc) {
        *s = was;
        j->state = state;
        return rc;
    }
    if (s->state != STAGE_SKIPPED && was.asked != ASKED_SKIP)
        event_note(d, j, s, "info",
                   "skipped: it trains no further, and leaves what it has");
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
    struct job_stage *s = NULL;
    int rc;

    (void)service;
    (void)reply;
    if (!j)
        return;
    rc = check(j, in->stage, &s, &e);
    if (!rc)
        rc = skip(d, j, s, &e);
    rpc_reply_result(call, j, rc, &e);
    daemon_schedule(d);
}
