/* hone checkpoint: save a job and go on. */
#include "launcher/steer.h"
#include "launcher/verb.h"

static int run(int argc, char **argv)
{
    static const struct steer s = {{"hone checkpoint", "JOB... [--to DAEMON] [--json]",
                                    "Workers save at their next step and go on.",
                                    steer_flags, 1, 64,
                                    offsetof(struct steer_options, words)},
                                   "Checkpoint",
                                   1,
                                   steer_fill_job};

    return steer_run(&s, argc, argv);
}

const struct verb verb_checkpoint = {"checkpoint", "save a job and go on", run};
