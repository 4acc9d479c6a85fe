/* hone logs: a job's log. */
#include <stdio.h>

#include "launcher/remote.h"
#include "launcher/stream.h"
#include "launcher/verb.h"
#include "proto/message.h"

struct options {
    struct arg_list job;
    const char *to, *bytes;
    int json, follow;
};

struct logs {
    const struct options *o;
    uint64_t job;
    long long next; /* byte to go on with; below 0: from the end */
};

static int ask(void *ctx, struct client *c, uint32_t *id, struct err *e)
{
    Hone__V1__LogsRequest m = HONE__V1__LOGS_REQUEST__INIT;
    const struct logs *l = ctx;

    m.id = l->job;
    m.has_offset = m.has_follow = 1;
    m.offset = l->next;
    m.follow = l->o->follow;
    return client_send(c, "Logs", &m.base, id, e);
}

static int take(void *ctx, const Hone__V1__Reply *reply, int *over, struct err *e)
{
    struct logs *l = ctx;
    ProtobufCMessage *m;
    const Hone__V1__LogChunk *chunk;
    int rc = client_body(reply, &hone__v1__log_chunk__descriptor, &m, e);

    if (rc)
        return rc;
    chunk = (Hone__V1__LogChunk *)m;
    l->next = (long long)chunk->next;
    if (l->o->json && *chunk->text)
        rc = remote_print_json(m, e);
    else if (!l->o->json)
        fputs(chunk->text, stdout);
    fflush(stdout);
    *over = !(reply->has_more && reply->more);
    message_free(m);
    return rc;
}

static int run(int argc, char **argv)
{
    static const struct arg_flag flags[] = {
        ARG_SWITCH("--follow", "go on until the job ends", struct options, follow),
        ARG_VALUE("--bytes", "N", "only the last N bytes of what is there", struct options,
                  bytes),
        REMOTE_FLAGS(struct options), ARG_END};
    static const struct arg_spec spec = {
        "hone logs",
        "JOB [--follow] [--bytes N] [--to DAEMON] [--json]",
        "The log of a job's workers; --follow also over a restart of the daemon.",
        flags,
        1,
        1,
        offsetof(struct options, job)};
    struct options o = {0};
    struct logs l = {.o = &o};
    struct stream s = {.ctx = &l, .ask = ask, .take = take};
    struct err e;
    long bytes = 0;
    int rc = args_parse(&spec, argc, argv, &o, &e);

    if (rc == ARGS_HELP)
        return 0;
    if (!rc)
        rc = args_long("--bytes", o.bytes, 1, 1L << 40, &bytes, &e);
    if (!rc)
        rc = remote_job(o.job.item[0], &l.job, &e);
    if (!rc) {
        l.next = -bytes;
        s.to = o.to;
        rc = stream_run(&s, &e);
    }
    if (rc)
        err_print(&e, "hone");
    return err_exit_status(rc);
}

const struct verb verb_logs = {"logs", "a job's log", run};
