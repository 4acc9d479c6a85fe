/* hone priority: where a job stands in the queue. */
#include "launcher/steer.h"
#include "launcher/verb.h"

static int fill(const struct steer_options *o, uint64_t job, union steer_request *m,
                struct err *e)
{
    long n = 0;
    int rc = args_long("priority", o->words.item[1], -100, 100, &n, e);

    hone__v1__priority_request__init(&m->priority);
    m->priority.id = job;
    m->priority.priority = (int)n;
    return rc;
}

static int run(int argc, char **argv)
{
    static const struct steer s = {
        {"hone priority", "JOB N [--to DAEMON] [--json]",
         "N from -100 to 100, higher first; jobs of the same priority go in order of\n"
         "submission. What runs already goes on.",
         steer_flags, 2, 2, offsetof(struct steer_options, words)},
        "SetPriority",
        0,
        fill};

    return steer_run(&s, argc, argv);
}

const struct verb verb_priority = {"priority", "where a job stands in the queue", run};
