/* hone ps: jobs of a daemon, newest first. */
#include <stdio.h>

#include "launcher/jobs.h"
#include "launcher/query.h"
#include "launcher/verb.h"
#include "proto/message.h"

/* Limits of the daemon that are near; nothing hangs on it. */
static void warn(struct client *c)
{
    Hone__V1__StatusRequest ask = HONE__V1__STATUS_REQUEST__INIT;
    const Hone__V1__StatusReply *s;
    ProtobufCMessage *m;
    char text[256];
    struct err e;

    if (remote_call(c, "Status", &ask.base, &hone__v1__status_reply__descriptor, &m, &e))
        return;
    s = (Hone__V1__StatusReply *)m;
    for (size_t i = 0; i < s->n_warnings; i++)
        fprintf(stderr, "hone: warning: %s\n",
                remote_clean(text, sizeof text, s->warnings[i]));
    message_free(m);
}

static int fill(const struct query_options *o, union query_request *m, struct err *e)
{
    long limit = 50;
    int rc = args_long("--limit", o->limit, 1, 1000, &limit, e);

    hone__v1__list_request__init(&m->list);
    m->list.states = (char **)(uintptr_t)o->state.item;
    m->list.n_states = (size_t)o->state.n;
    m->list.has_limit = 1;
    m->list.limit = (uint32_t)limit;
    return rc;
}

static void print(struct client *c, const ProtobufCMessage *reply)
{
    jobs_print_table(stdout, (const Hone__V1__JobList *)reply);
    warn(c);
}

static int run(int argc, char **argv)
{
    static const struct arg_flag flags[] = {
        ARG_LIST("--state", "queued|running|pausing|paused|stopping|done|failed|stopped",
                 "only these (repeatable)", struct query_options, state),
        ARG_VALUE("--limit", "N", "at most so many (50)", struct query_options, limit),
        REMOTE_FLAGS(struct query_options), ARG_END};
    static const struct query q = {{"hone ps",
                                    "[--state STATE]... [--limit N] [--to DAEMON] [--json]",
                                    "Jobs of a daemon, newest first.", flags, 0, 0, 0},
                                   "List",
                                   &hone__v1__job_list__descriptor,
                                   fill,
                                   print};

    return query_run(&q, argc, argv);
}

const struct verb verb_ps = {"ps", "jobs of a daemon", run};
