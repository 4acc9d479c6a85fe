/* Verbs that change a job: see steer.h. */
#include "launcher/steer.h"

#include <stdio.h>

#include "launcher/jobs.h"
#include "launcher/remote.h"
#include "proto/message.h"

const struct arg_flag steer_flags[] = {REMOTE_FLAGS(struct steer_options), ARG_END};

int steer_fill_job(const struct steer_options *o, uint64_t job, union steer_request *m,
                   struct err *e)
{
    (void)o;
    (void)e;
    hone__v1__job_request__init(&m->job);
    m->job.id = job;
    return 0;
}

int steer_fill_stage(const struct steer_options *o, uint64_t job, union steer_request *m,
                     struct err *e)
{
    (void)e;
    hone__v1__stage_request__init(&m->stage);
    m->stage.id = job;
    if (o->words.n > 1)
        m->stage.stage = (char *)(uintptr_t)o->words.item[1];
    return 0;
}

static int steer_one(const struct steer *s, const struct steer_options *o, struct client *c,
                     const char *word, struct err *e)
{
    union steer_request m;
    ProtobufCMessage *reply;
    uint64_t id;
    int rc = remote_job(word, &id, e);

    if (!rc)
        rc = s->fill(o, id, &m, e);
    if (!rc)
        rc = remote_call(c, s->method, &m.base, &hone__v1__job__descriptor, &reply, e);
    if (rc)
        return rc;
    if (o->json)
        rc = remote_print_json(reply, e);
    else
        jobs_print_line((Hone__V1__Job *)reply);
    message_free(reply);
    return rc;
}

int steer_run(const struct steer *s, int argc, char **argv)
{
    struct steer_options o = {0};
    struct client *c = NULL;
    struct err e;
    int rc = args_parse(&s->spec, argc, argv, &o, &e);

    if (rc == ARGS_HELP)
        return 0;
    if (!rc)
        rc = remote_open(&c, o.to, &e);
    for (int i = 0; !rc && i < (s->each ? o.words.n : 1); i++)
        rc = steer_one(s, &o, c, o.words.item[i], &e);
    client_close(c);
    if (rc)
        err_print(&e, "hone");
    return err_exit_status(rc);
}
