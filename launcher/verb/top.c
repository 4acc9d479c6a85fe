/* hone top: the daemon and its jobs, drawn again every second on a terminal, else once. */
#include <stdio.h>
#include <unistd.h>

#include "base/str.h"
#include "launcher/jobs.h"
#include "launcher/remote.h"
#include "launcher/verb.h"
#include "proto/message.h"

enum { JOBS = 30 };

struct options {
    const char *to;
    int json;
};

static void print_status(const Hone__V1__StatusReply *s)
{
    char up[32], used[32], memory[32], program[64], state[256];

    printf("%s, up %s, %s\n", remote_clean(program, sizeof program, s->program),
           str_duration(up, sizeof up, s->up), remote_clean(state, sizeof state, s->state));
    printf("cores %u of %u, GPUs %u of %u, memory %s of %s planned; %u running, %u queued, "
           "%u paused; "
           "%u connections, %u watchers\n",
           s->cores_used, s->cores, s->gpus_used, s->gpus,
           str_bytes(used, sizeof used, (double)s->memory_used),
           str_bytes(memory, sizeof memory, (double)s->memory), s->running, s->queued,
           s->paused, s->connections, s->watchers);
    for (size_t i = 0; i < s->n_warnings; i++)
        printf("warning: %s\n", remote_clean(state, sizeof state, s->warnings[i]));
}

static int draw(const struct options *o, struct client *c, int clear, struct err *e)
{
    Hone__V1__StatusRequest ask = HONE__V1__STATUS_REQUEST__INIT;
    Hone__V1__ListRequest m = HONE__V1__LIST_REQUEST__INIT;
    ProtobufCMessage *status = NULL, *list = NULL;
    int rc = remote_call(c, "Status", &ask.base, &hone__v1__status_reply__descriptor,
                         &status, e);

    m.has_limit = 1;
    m.limit = JOBS;
    if (!rc && o->json) {
        rc = remote_print_json(status, e);
    } else if (!rc) {
        rc = remote_call(c, "List", &m.base, &hone__v1__job_list__descriptor, &list, e);
        if (!rc) {
            if (clear)
                fputs("\033[H\033[2J", stdout);
            print_status((Hone__V1__StatusReply *)status);
            printf("\n");
            jobs_print_table(stdout, (Hone__V1__JobList *)list);
            fflush(stdout);
        }
    }
    if (status)
        message_free(status);
    if (list)
        message_free(list);
    return rc;
}

static int run(int argc, char **argv)
{
    static const struct arg_flag flags[] = {REMOTE_FLAGS(struct options), ARG_END};
    static const struct arg_spec spec = {
        "hone top",
        "[--to DAEMON] [--json]",
        "What the daemon has to give, what is in use, and its newest jobs; again every\n"
        "second on a terminal. --json: the daemon's state alone.",
        flags,
        0,
        0,
        0};
    struct options o = {0};
    struct client *c = NULL;
    struct err e;
    int again, rc = args_parse(&spec, argc, argv, &o, &e);

    if (rc == ARGS_HELP)
        return 0;
    again = !o.json && isatty(STDOUT_FILENO);
    if (!rc)
        rc = remote_open(&c, o.to, &e);
    if (!rc)
        rc = draw(&o, c, again, &e);
    while (!rc && again) {
        sleep(1);
        rc = draw(&o, c, 1, &e);
    }
    client_close(c);
    if (rc)
        err_print(&e, "hone");
    return err_exit_status(rc);
}

const struct verb verb_top = {"top", "a daemon and its jobs at a glance", run};
