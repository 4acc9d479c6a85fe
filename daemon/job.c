/* Jobs: see job.h. */
#include "daemon/job.h"

#include <math.h>
#include <unistd.h>

#include "base/mem.h"

const char *stage_state_name(enum stage_state s)
{
    static const char *const name[] = {"waiting", "running", "done", "failed", "stopped"};

    return name[s];
}

const char *job_state_name(enum job_state s)
{
    static const char *const name[] = {"queued", "running", "stopping",
                                       "done",   "failed",  "stopped"};

    return name[s];
}

int job_ended(const struct job *j)
{
    return j->state >= JOB_DONE;
}

void stage_move(struct job_stage *s, enum stage_state to)
{
    static const unsigned arrows[] = {
        [STAGE_WAITING] = 1u << STAGE_RUNNING | 1u << STAGE_FAILED,
        [STAGE_RUNNING] = 1u << STAGE_DONE | 1u << STAGE_FAILED | 1u << STAGE_STOPPED,
        [STAGE_DONE] = 0,
        [STAGE_FAILED] = 0,
        [STAGE_STOPPED] = 0,
    };

    invariant(arrows[s->state] & 1u << to);
    s->state = to;
}

enum stage_state stage_outcome(int exit_status, int signal)
{
    if (signal)
        return STAGE_FAILED;
    return exit_status == 0 ? STAGE_DONE : exit_status == 3 ? STAGE_STOPPED : STAGE_FAILED;
}

/* Of a failed stage: its worker's status where interface.md gives it a meaning, else 1. */
static int failure_status(const struct job_stage *s)
{
    return s->status == 2 ? 2 : 1;
}

static int end(struct job *j, enum job_state state, int status)
{
    j->state = state;
    j->exit_status = status;
    return 1;
}

int job_settle(struct job *j)
{
    size_t count[STAGE_STOPPED + 1] = {0};
    const struct job_stage *failed = NULL;

    if (job_ended(j))
        return 0;
    for (size_t i = 0; i < j->n_stages; i++) {
        count[j->stage[i].state]++;
        if (j->stage[i].state == STAGE_FAILED && !failed)
            failed = &j->stage[i];
    }
    if (count[STAGE_RUNNING]) {
        j->state = j->stop ? JOB_STOPPING : JOB_RUNNING;
        return 0;
    }
    if (failed) {
        const char *message = arena_printf(&j->arena, "stage %s: %s", failed->name,
                                           failed->message ? failed->message : "failed");

        j->message = message ? message : "a stage failed";
        j->mend = failed->mend;
        return end(j, JOB_FAILED, failure_status(failed));
    }
    if (count[STAGE_DONE] == j->n_stages)
        return end(j, JOB_DONE, 0);
    if (count[STAGE_STOPPED] || j->stop)
        return end(j, JOB_STOPPED, 3);
    j->state = count[STAGE_DONE] ? JOB_RUNNING : JOB_QUEUED;
    return 0;
}

struct job *job_new(void)
{
    struct job *j = mem_alloc(sizeof *j);

    if (!j)
        return NULL;
    j->lock = -1;
    j->kill_at = INFINITY;
    return j;
}

void job_free(struct job *j)
{
    if (!j)
        return;
    for (size_t i = 0; i < j->n_stages; i++) {
        mem_free(j->stage[i].phase);
        mem_free(j->stage[i].figures);
    }
    if (j->lock >= 0)
        close(j->lock);
    arena_fini(&j->arena);
    mem_free(j);
}
