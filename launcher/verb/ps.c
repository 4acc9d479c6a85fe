/* hone ps: jobs of a daemon, newest first. */
#include <stdio.h>
#include <stdlib.h>

#include "launcher/jobs.h"
#include "launcher/remote.h"
#include "launcher/verb.h"
#include "proto/message.h"

struct options {
    const char *to, *limit;
    struct arg_list state;
    int json;
};

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

static int list(const struct options *o, struct err *e)
{
    Hone__V1__ListRequest m = HONE__V1__LIST_REQUEST__INIT;
    ProtobufCMessage *reply = NULL;
    struct client *c = NULL;
    long limit = 50;
    int rc = args_long("--limit", o->limit, 1, 1000, &limit, e);

    m.states = (char **)(uintptr_t)o->state.item;
    m.n_states = (size_t)o->state.n;
    m.has_limit = 1;
    m.limit = (uint32_t)limit;
    if (!rc)
        rc = remote_open(&c, o->to, e);
    if (!rc)
        rc = remote_call(c, "List", &m.base, &hone__v1__job_list__descriptor, &reply, e);
    if (!rc && o->json)
        rc = remote_print_json(reply, e);
    else if (!rc)
        jobs_print_table(stdout, (Hone__V1__JobList *)reply);
    if (!rc && !o->json)
        warn(c);
    if (reply)
        message_free(reply);
    client_close(c);
    return rc;
}

static int run(int argc, char **argv)
{
    static const struct arg_flag flags[] = {
        ARG_LIST("--state", "queued|running|pausing|paused|stopping|done|failed|stopped",
                 "only these (repeatable)", struct options, state),
        ARG_VALUE("--limit", "N", "at most so many (50)", struct options, limit),
        REMOTE_FLAGS(struct options), ARG_END};
    static const struct arg_spec spec = {
        "hone ps",
        "[--state STATE]... [--limit N] [--to DAEMON] [--json]",
        "Jobs of a daemon, newest first.",
        flags,
        0,
        0,
        0};
    struct options o = {0};
    struct err e;
    int rc = args_parse(&spec, argc, argv, &o, &e);

    if (rc == ARGS_HELP)
        return 0;
    if (!rc)
        rc = list(&o, &e);
    if (rc)
        err_print(&e, "hone");
    return err_exit_status(rc);
}

const struct verb verb_ps = {"ps", "jobs of a daemon", run};
