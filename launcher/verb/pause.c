/* hone pause: save a job, stop it, free its cores. */
#include "launcher/steer.h"
#include "launcher/verb.h"

static int run(int argc, char **argv)
{
    static const struct steer s = {{"hone pause", "JOB... [--to DAEMON] [--json]",
                                    "Workers save at their next step and stop; hone resume "
                                    "goes on with the same bits.",
                                    steer_flags, 1, 64,
                                    offsetof(struct steer_options, words)},
                                   "Pause",
                                   1,
                                   steer_fill_job};

    return steer_run(&s, argc, argv);
}

const struct verb verb_pause = {"pause", "save a job, stop it, free its cores", run};
