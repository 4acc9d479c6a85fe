/* hone rm: forget jobs that have ended. Asks first. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "launcher/jobs.h"
#include "launcher/remote.h"
#include "launcher/verb.h"
#include "proto/message.h"

struct options {
    struct arg_list job;
    const char *to;
    int json, yes, files;
};

/* 1: yes. */
static int is_sure(const Hone__V1__Job *j, int files)
{
    char name[128], run[512], answer[16] = "";

    fprintf(stderr, "remove job %llu %s (%s)%s%s? [y/N] ", (unsigned long long)j->id,
            remote_clean(name, sizeof name, j->name), j->state ? j->state : "",
            files ? " and all of " : "",
            files ? remote_clean(run, sizeof run, j->run) : "");
    fflush(stderr);
    return fgets(answer, sizeof answer, stdin) && (*answer == 'y' || *answer == 'Y');
}

static int confirm(const struct options *o, struct client *c, uint64_t id, int *sure,
                   struct err *e)
{
    Hone__V1__GetJobRequest m = HONE__V1__GET_JOB_REQUEST__INIT;
    ProtobufCMessage *reply;
    int rc;

    *sure = o->yes;
    if (o->yes)
        return 0;
    if (!isatty(STDIN_FILENO)) {
        err_set(e, ERR_USAGE, "removing asks first, and nobody is there to answer");
        return err_mend(e, "--yes");
    }
    m.id = id;
    rc = remote_call(c, "GetJob", &m.base, &hone__v1__job__descriptor, &reply, e);
    if (rc)
        return rc;
    *sure = is_sure((Hone__V1__Job *)reply, o->files);
    message_free(reply);
    return 0;
}

static int remove_one(const struct options *o, struct client *c, const char *word,
                      struct err *e)
{
    Hone__V1__RemoveRequest m = HONE__V1__REMOVE_REQUEST__INIT;
    ProtobufCMessage *reply;
    int sure = 0, rc = remote_job(word, &m.id, e);

    if (!rc)
        rc = confirm(o, c, m.id, &sure, e);
    if (rc || !sure)
        return rc;
    m.has_files = 1;
    m.files = o->files;
    rc = remote_call(c, "Remove", &m.base, &hone__v1__remove_reply__descriptor, &reply, e);
    if (rc)
        return rc;
    message_free(reply);
    if (o->json)
        printf("{\"removed\": %llu}\n", (unsigned long long)m.id);
    else
        printf("job %llu: removed\n", (unsigned long long)m.id);
    return 0;
}

static int run(int argc, char **argv)
{
    static const struct arg_flag flags[] = {
        ARG_SWITCH("--files", "the run folder too", struct options, files),
        ARG_SWITCH("--yes", "do not ask", struct options, yes),
        REMOTE_FLAGS(struct options), ARG_END};
    static const struct arg_spec spec = {
        "hone rm",
        "JOB... [--files] [--yes] [--to DAEMON] [--json]",
        "Forgets jobs that have ended, and their events; the run folders stay without "
        "--files.",
        flags,
        1,
        ARGS_LIST_MAX,
        offsetof(struct options, job)};
    struct options o = {0};
    struct client *c = NULL;
    struct err e;
    int rc = args_parse(&spec, argc, argv, &o, &e);

    if (rc == ARGS_HELP)
        return 0;
    if (!rc)
        rc = remote_open(&c, o.to, &e);
    for (int i = 0; !rc && i < o.job.n; i++)
        rc = remove_one(&o, c, o.job.item[i], &e);
    client_close(c);
    if (rc)
        err_print(&e, "hone");
    return err_exit_status(rc);
}

const struct verb verb_rm = {"rm", "forget jobs that have ended", run};
