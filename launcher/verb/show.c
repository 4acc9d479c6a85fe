/* hone show: all about a job. */
#include "launcher/jobs.h"
#include "launcher/remote.h"
#include "launcher/verb.h"
#include "proto/message.h"

struct options {
    struct arg_list job;
    const char *to;
    int json;
};

static int show(const struct options *o, struct err *e)
{
    Hone__V1__GetJobRequest m = HONE__V1__GET_JOB_REQUEST__INIT;
    ProtobufCMessage *reply = NULL;
    struct client *c = NULL;
    int rc = remote_job(o->job.item[0], &m.id, e);

    if (!rc)
        rc = remote_open(&c, o->to, e);
    if (!rc)
        rc = remote_call(c, "GetJob", &m.base, &hone__v1__job__descriptor, &reply, e);
    if (!rc && o->json)
        rc = remote_print_json(reply, e);
    else if (!rc)
        jobs_print_details((Hone__V1__Job *)reply);
    if (reply)
        message_free(reply);
    client_close(c);
    return rc;
}

static int run(int argc, char **argv)
{
    static const struct arg_flag flags[] = {REMOTE_FLAGS(struct options), ARG_END};
    static const struct arg_spec spec = {"hone show",
                                         "JOB [--to DAEMON] [--json]",
                                         "State, stages, workers and run folder of a job.",
                                         flags,
                                         1,
                                         1,
                                         offsetof(struct options, job)};
    struct options o = {0};
    struct err e;
    int rc = args_parse(&spec, argc, argv, &o, &e);

    if (rc == ARGS_HELP)
        return 0;
    if (!rc)
        rc = show(&o, &e);
    if (rc)
        err_print(&e, "hone");
    return err_exit_status(rc);
}

const struct verb verb_show = {"show", "all about a job", run};
