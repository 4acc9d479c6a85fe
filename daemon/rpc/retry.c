/* Retry: what failed or was stopped goes on from its newest checkpoint, with a new budget
 * of restarts; with a stage: that one and all that need it begin anew, whatever they came
 * to. A job that had ended is queued again. */
#include <string.h>

#include "base/mem.h"
#include "daemon/daemon.h"
#include "daemon/folder.h"
#include "daemon/retain.h"
#include "daemon/rpc.h"

static void again(struct job_stage *s, int fresh)
{
    if (s->state != STAGE_WAITING)
        stage_move(s, STAGE_WAITING);
    memset(s->restarts, 0, sizeof s->restarts);
    s->fresh |= fresh;
    s->asked = ASKED_NOTHING;
    s->message = s->mend = NULL;
    s->not_before = 0;
    s->furthest = fresh ? 0 : s->furthest;
}

/* mark[i]: stage i needs, over any number of steps, the one named. */
static int mark_needy(const struct job *j, const char *name, unsigned char *mark,
                      struct err *e)
{
    int found = 0, more = 1;

    for (size_t i = 0; i < j->n_stages; i++)
        found |= mark[i] = !strcmp(j->stage[i].name, name);
    if (!found)
        return job_no_stage(j, name, e);
    while (more) {
        more = 0;
        for (size_t i = 0; i < j->n_stages; i++)
            for (size_t k = 0; !mark[i] && k < j->stage[i].n_needs; k++)
                if (mark[j->stage[i].needs[k]])
                    more = mark[i] = 1;
    }
    for (size_t i = 0; i < j->n_stages; i++)
        if (mark[i] && j->stage[i].state == STAGE_RUNNING) {
            err_set(e, ERR_CONFIG, "stage %s runs", j->stage[i].name);
            err_field(e, "stage");
            return err_mend(e, "hone pause %llu first", (unsigned long long)j->id);
        }
    return 0;
}

/* What is to be tried again. ERR_CONFIG: nothing is. */
static int choose(const struct job *j, const char *name, unsigned char *mark, struct err *e)
{
    int any = 0;

    if (name)
        return mark_needy(j, name, mark, e);
    for (size_t i = 0; i < j->n_stages; i++) {
        enum stage_state s = j->stage[i].state;

        any |= mark[i] = s == STAGE_FAILED || s == STAGE_STOPPED;
    }
    if (any || j->state == JOB_STOPPED)
        return 0;
    err_set(e, ERR_CONFIG, "job %llu is %s: nothing to try again",
            (unsigned long long)j->id, job_state_name(j->state));
    err_field(e, "stage");
    return err_mend(e, "name the stage to begin with: hone retry %llu STAGE",
                    (unsigned long long)j->id);
}

/* What begins again reads the models of what it needs: of a stage that was skipped before
 * it had learned anything there is none. */
static int check_models(const struct job *j, const unsigned char *mark, struct err *e)
{
    for (size_t i = 0; i < j->n_stages; i++)
        for (size_t k = 0; mark[i] && k < j->stage[i].n_needs; k++) {
            const struct job_stage *s = &j->stage[j->stage[i].needs[k]];

            if (mark[s - j->stage] || s->state != STAGE_SKIPPED ||
                folder_has_stage(j->run, s->name))
                continue;
            err_set(e, ERR_CONFIG,
                    "stage %s needs %s, which was skipped and has no model to give",
                    j->stage[i].name, s->name);
            err_field(e, "stage");
            return err_mend(e, "hone retry %llu %s begins with it",
                            (unsigned long long)j->id, s->name);
        }
    return 0;
}

static int retry(struct daemon *d, struct job *j, const char *name, struct err *e)
{
    unsigned char *mark = mem_array(j->n_stages, 1);
    struct job_mark was = {0};
    int rc = mark ? job_mark(j, &was, e) : err_set(e, ERR_NOMEM, "out of memory");
    int had_ended = job_ended(j);

    if (!rc)
        rc = had_ended ? retain_check(d, j->owner ? j->owner : "", 0, e) : 0;
    if (!rc)
        rc = choose(j, name, mark, e);
    if (!rc)
        rc = check_models(j, mark, e);
    if (rc)
        goto done;
    for (size_t i = 0; i < j->n_stages; i++)
        if (mark[i])
            again(&j->stage[i], name != NULL);
    if (had_ended)
        job_revive(j);
    job_settle(j);
    rc = had_ended ? daemon_keep_job(d, j, e) : 0; /* if not saved: swept out again */
    if (!rc)
        rc = daemon_save(d, j, e);
    if (rc)
        job_restore(j, &was);
    else
        daemon_job_changed(d, j);
done:
    job_mark_fini(&was);
    mem_free(mark);
    return rc;
}

RPC_HANDLER(retry, StageRequest, Job)
{
    struct rpc_call *call = ctx;
    struct daemon *d = call->d;
    struct job *j = rpc_find_job(call, in->id, ACCESS_STEER);
    struct err e;

    (void)service;
    (void)reply;
    if (!j)
        return;
    rpc_reply_result(call, j, retry(d, j, in->stage, &e), &e);
    daemon_schedule(d);
}
