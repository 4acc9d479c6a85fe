/* hone skip: take a stage as over. */
#include "launcher/steer.h"
#include "launcher/verb.h"

static int run(int argc, char **argv)
{
    static const struct steer s = {
        {"hone skip", "JOB STAGE [--to DAEMON] [--json]",
         "Takes a stage as over. One that runs (or has begun) "
         "trains no further and\nhands on what it has learned; "
         "one that has not begun can be skipped once the\nstages "
         "that need its model are.",
         steer_flags, 2, 2, offsetof(struct steer_options, words)},
        "Skip",
        0,
        steer_fill_stage};

    return steer_run(&s, argc, argv);
}

const struct verb verb_skip = {"skip", "take a stage as over", run};
