/* hone retry: try again what failed, or from a stage on. */
#include "launcher/steer.h"
#include "launcher/verb.h"

static int run(int argc, char **argv)
{
    static const struct steer s = {{"hone retry", "JOB [STAGE] [--to DAEMON] [--json]",
                                    "Without STAGE what failed or was stopped goes on from "
                                    "its newest checkpoint; with it,\n"
                                    "that stage and all that need it begin anew.",
                                    steer_flags, 1, 2,
                                    offsetof(struct steer_options, words)},
                                   "Retry",
                                   0,
                                   steer_fill_stage};

    return steer_run(&s, argc, argv);
}

const struct verb verb_retry = {"retry", "try again what failed, or from a stage on", run};
