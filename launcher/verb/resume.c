/* hone resume: go on with a paused job. */
#include "launcher/steer.h"
#include "launcher/verb.h"

static int run(int argc, char **argv)
{
    static const struct steer s = {
        {"hone resume", "JOB... [--to DAEMON] [--json]",
         "Goes on from the checkpoints that hone pause left, as soon as there is room.",
         steer_flags, 1, 64, offsetof(struct steer_options, words)},
        "Resume",
        1,
        steer_fill_job};

    return steer_run(&s, argc, argv);
}

const struct verb verb_resume = {"resume", "go on with a paused job", run};
