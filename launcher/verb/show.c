/* hone show: all about a job. */
#include "launcher/jobs.h"
#include "launcher/query.h"
#include "launcher/verb.h"

static int fill(const struct query_options *o, union query_request *m, struct err *e)
{
    hone__v1__get_job_request__init(&m->job);
    return remote_job(o->words.item[0], &m->job.id, e);
}

static void print(struct client *c, const ProtobufCMessage *reply)
{
    (void)c;
    jobs_print_details((const Hone__V1__Job *)reply);
}

static int run(int argc, char **argv)
{
    static const struct arg_flag flags[] = {REMOTE_FLAGS(struct query_options), ARG_END};
    static const struct query q = {{"hone show", "JOB [--to DAEMON] [--json]",
                                    "State, stages, workers and run folder of a job.",
                                    flags, 1, 1, offsetof(struct query_options, words)},
                                   "GetJob",
                                   &hone__v1__job__descriptor,
                                   fill,
                                   print};

    return query_run(&q, argc, argv);
}

const struct verb verb_show = {"show", "all about a job", run};
