/* hone skip: take a stage as over. */
#include "launcher/steer.h"
#include "launcher/verb.h"

static int run(int argc, char **argv)
{
    static const struct steer s = {{"hone skip", "JOB STAGE [--to DAEMON] [--json]",
                                    "A stage that runs saves and stops first. Stages that "
                                    "need its model are skipped first.",
                                    steer_flags, 2, 2,
                                    offsetof(struct steer_options, words)},
                                   "Skip",
                                   0,
                                   steer_fill_stage};

    return steer_run(&s, argc, argv);
}

const struct verb verb_skip = {"skip", "take a stage as over", run};
