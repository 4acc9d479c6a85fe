/* Candidates from a daemon: see complete.h. A daemon has a second to answer: then SIGALRM
 * ends this process, which does nothing else. */
#include "launcher/complete.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "launcher/remote.h"
#include "proto/message.h"

enum { SECONDS = 1, JOBS = 100 };

/* The daemon that the words so far name; NULL: the default. */
static const char *find_to(int n, char **before)
{
    for (int i = 0; i < n; i++) {
        if (!strcmp(before[i], "--to") && i + 1 < n)
            return before[i + 1];
        if (!strncmp(before[i], "--to=", 5))
            return before[i] + 5;
    }
    return NULL;
}

static void ask_jobs(struct client *c, const char *prefix)
{
    Hone__V1__ListRequest m = HONE__V1__LIST_REQUEST__INIT;
    const Hone__V1__JobList *list;
    ProtobufCMessage *reply;
    struct err e;

    m.has_limit = 1;
    m.limit = JOBS;
    if (remote_call(c, "List", &m.base, &hone__v1__job_list__descriptor, &reply, &e))
        return;
    list = (Hone__V1__JobList *)reply;
    for (size_t i = 0; i < list->n_jobs; i++) {
        char number[32], name[128], text[192];

        snprintf(number, sizeof number, "%llu", (unsigned long long)list->jobs[i]->id);
        snprintf(text, sizeof text, "%s, %s",
                 remote_clean(name, sizeof name, list->jobs[i]->name),
                 list->jobs[i]->state ? list->jobs[i]->state : "");
        args_candidate(prefix, number, text);
    }
    message_free(reply);
}

/* Of the first job that the words so far name. */
static void ask_stages(struct client *c, int n, char **before, const char *prefix)
{
    Hone__V1__GetJobRequest m = HONE__V1__GET_JOB_REQUEST__INIT;
    const Hone__V1__Job *j;
    ProtobufCMessage *reply;
    struct err e;

    for (int i = 0; i < n && !m.id; i++)
        if (remote_job(before[i], &m.id, &e))
            m.id = 0;
    if (!m.id || remote_call(c, "GetJob", &m.base, &hone__v1__job__descriptor, &reply, &e))
        return;
    j = (Hone__V1__Job *)reply;
    for (size_t i = 0; i < j->n_stages; i++) {
        char name[128];

        args_candidate(prefix, remote_clean(name, sizeof name, j->stages[i]->name),
                       j->stages[i]->state);
    }
    message_free(reply);
}

static void list_names(const char *prefix)
{
    struct arena a = {0};
    struct config c;
    char name[128];
    struct err e;

    if (!config_read(&c, &a, &e))
        for (const struct node *n = config_first(&c); n; n = n->next)
            args_candidate(prefix, remote_clean(name, sizeof name, n->key), NULL);
    args_candidate(prefix, "here", "honed on this machine");
    arena_fini(&a);
}

void complete_candidates(const char *what, const char *prefix, int n, char **before)
{
    int jobs = !strcmp(what, "JOB"), stages = !strcmp(what, "STAGE") && n > 0;
    struct client *c;
    struct err e;

    if (!strcmp(what, "DAEMON"))
        list_names(prefix);
    if (!jobs && !stages)
        return;
    alarm(SECONDS);
    if (remote_open(&c, find_to(n, before), &e))
        return;
    if (jobs)
        ask_jobs(c, prefix);
    else
        ask_stages(c, n, before, prefix);
    client_close(c);
}
