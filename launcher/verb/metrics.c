/* hone metrics: the lines of a job's metrics.jsonl, each with its stage. */
#include <stdio.h>
#include <string.h>

#include "launcher/remote.h"
#include "launcher/stream.h"
#include "launcher/verb.h"
#include "proto/message.h"

struct options {
    struct arg_list job;
    const char *to, *stage;
    int json;
};

struct metrics {
    const struct options *o;
    uint64_t job;
};

static int ask(void *ctx, struct client *c, uint32_t *id, struct err *e)
{
    Hone__V1__MetricsRequest m = HONE__V1__METRICS_REQUEST__INIT;
    const struct metrics *x = ctx;

    m.id = x->job;
    m.stage = (char *)(uintptr_t)x->o->stage;
    return client_send(c, "Metrics", &m.base, id, e);
}

/* {"step": ... becomes {"stage": "sft", "step": ... */
static int print_lines(const char *stage, const char *lines, struct err *e)
{
    struct str out = {0};
    int rc;

    for (size_t n; *lines; lines += n + (lines[n] == '\n')) {
        n = strcspn(lines, "\n");
        if (n < 2 || *lines != '{')
            continue;
        str_add(&out, "{\"stage\": ");
        str_add_json(&out, stage, strlen(stage));
        str_add(&out, ", ");
        str_add_bytes(&out, lines + 1, n - 1);
        str_add_char(&out, '\n');
    }
    rc = str_failed(&out) ? err_set(e, ERR_NOMEM, "out of memory") : 0;
    if (!rc)
        fputs(str_get(&out), stdout);
    str_fini(&out);
    return rc;
}

static int take(void *ctx, const Hone__V1__Reply *reply, int *over, struct err *e)
{
    ProtobufCMessage *m;
    const Hone__V1__MetricChunk *chunk;
    int rc = client_body(reply, &hone__v1__metric_chunk__descriptor, &m, e);

    (void)ctx;
    if (rc)
        return rc;
    chunk = (Hone__V1__MetricChunk *)m;
    rc = print_lines(chunk->stage, chunk->lines, e);
    *over = !(reply->has_more && reply->more);
    message_free(m);
    return rc;
}

static int run(int argc, char **argv)
{
    static const struct arg_flag flags[] = {
        ARG_VALUE("--stage", "STAGE", "of this stage alone", struct options, stage),
        REMOTE_FLAGS(struct options), ARG_END};
    static const struct arg_spec spec = {
        "hone metrics",
        "JOB [--stage STAGE] [--to DAEMON] [--json]",
        "The points of a job's metrics so far, one JSON object a line.",
        flags,
        1,
        1,
        offsetof(struct options, job)};
    struct options o = {0};
    struct metrics x = {.o = &o};
    struct stream s = {.ctx = &x, .ask = ask, .take = take};
    struct err e;
    int rc = args_parse(&spec, argc, argv, &o, &e);

    if (rc == ARGS_HELP)
        return 0;
    if (!rc)
        rc = remote_job(o.job.item[0], &x.job, &e);
    if (!rc) {
        s.to = o.to;
        rc = stream_run(&s, &e);
    }
    if (rc)
        err_print(&e, "hone");
    return err_exit_status(rc);
}

const struct verb verb_metrics = {"metrics", "a job's metrics so far", run};
