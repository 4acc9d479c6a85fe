/* hone cancel: stop a job for good. */
#include "launcher/remote.h"
#include "launcher/steer.h"
#include "launcher/verb.h"

static int fill(const struct steer_options *o, uint64_t job, union steer_request *m,
                struct err *e)
{
    (void)e;
    hone__v1__cancel_request__init(&m->cancel);
    m->cancel.id = job;
    m->cancel.has_now = 1;
    m->cancel.now = o->now;
    return 0;
}

static int run(int argc, char **argv)
{
    static const struct arg_flag flags[] = {
        ARG_SWITCH("--now", "at once, without a checkpoint", struct steer_options, now),
        REMOTE_FLAGS(struct steer_options), ARG_END};
    static const struct steer s = {
        {"hone cancel", "JOB... [--now] [--to DAEMON] [--json]",
         "Workers save at their next step and stop; hone retry goes on if need be.", flags,
         1, 64, offsetof(struct steer_options, words)},
        "Cancel",
        1,
        fill};

    return steer_run(&s, argc, argv);
}

const struct verb verb_cancel = {"cancel", "stop a job for good", run};
