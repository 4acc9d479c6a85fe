/* hone top: the daemon and its jobs, drawn again every second on a terminal, else once. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/str.h"
#include "launcher/jobs.h"
#include "launcher/remote.h"
#include "launcher/screen.h"
#include "launcher/verb.h"
#include "proto/message.h"

enum { JOBS = 30 };

struct options {
    const char *to;
    int json;
};

static void print_status(FILE *out, const Hone__V1__StatusReply *s)
{
    char up[32], used[32], memory[32], program[64], state[256];

    fprintf(out, "%s, up %s, %s\n", remote_clean(program, sizeof program, s->program),
            str_duration(up, sizeof up, s->up),
            remote_clean(state, sizeof state, s->state));
    fprintf(out, "%u running, %u queued, %u paused; cores %u of %u", s->running, s->queued,
            s->paused, s->cores_used, s->cores);
    if (s->gpus)
        fprintf(out, ", GPUs %u of %u", s->gpus_used, s->gpus);
    fprintf(out, ", memory %s of %s planned; %u connections, %u watchers\n",
            str_bytes(used, sizeof used, (double)s->memory_used),
            str_bytes(memory, sizeof memory, (double)s->memory), s->connections,
            s->watchers);
    for (size_t i = 0; i < s->n_warnings; i++)
        fprintf(out, "warning: %s\n", remote_clean(state, sizeof state, s->warnings[i]));
    fprintf(out, "\n");
}

/* The text over what is on the screen, as far as there is room. */
static void put_screen(const char *text)
{
    size_t columns, lines, n = 0;

    screen_size(STDOUT_FILENO, &columns, &lines);
    fputs("\033[H", stdout);
    for (const char *s = text; *s && n + 1 < lines; n++) {
        size_t len = strcspn(s, "\n"), fits = screen_cut(s, columns - 1);

        printf("%.*s\033[K\n", (int)(fits < len ? fits : len), s);
        s += len + (s[len] == '\n');
    }
    fputs("\033[J", stdout);
    fflush(stdout);
}

static int ask(struct client *c, ProtobufCMessage **status, ProtobufCMessage **list,
               struct err *e)
{
    Hone__V1__StatusRequest m = HONE__V1__STATUS_REQUEST__INIT;
    Hone__V1__ListRequest l = HONE__V1__LIST_REQUEST__INIT;
    int rc =
        remote_call(c, "Status", &m.base, &hone__v1__status_reply__descriptor, status, e);

    l.has_limit = 1;
    l.limit = JOBS;
    if (!rc)
        rc = remote_call(c, "List", &l.base, &hone__v1__job_list__descriptor, list, e);
    return rc;
}

static int draw(const struct options *o, struct client *c, int live, struct err *e)
{
    ProtobufCMessage *status = NULL, *list = NULL;
    char *text = NULL;
    size_t n;
    FILE *out = open_memstream(&text, &n);
    int rc = out ? ask(c, &status, &list, e) : err_set(e, ERR_NOMEM, "out of memory");

    if (!rc && o->json) {
        rc = remote_print_json(status, e);
    } else if (!rc) {
        print_status(out, (Hone__V1__StatusReply *)status);
        jobs_print_table(out, (Hone__V1__JobList *)list);
    }
    if (out && fclose(out) && !rc)
        rc = err_set(e, ERR_NOMEM, "out of memory");
    if (!rc && live)
        put_screen(text);
    else if (!rc && !o->json)
        fputs(text, stdout);
    free(text);
    if (status)
        message_free(status);
    if (list)
        message_free(list);
    return rc;
}

/* Again every second, also over a restart of the daemon. */
static int follow(const struct options *o, struct client **c, struct err *e)
{
    int rc = 0;

    fputs("\033[2J", stdout);
    do {
        if (!rc)
            rc = draw(o, *c, 1, e);
        if (rc == ERR_UNREACHABLE) {
            char line[ERR_MSG_MAX + 32];

            client_close(*c);
            *c = NULL;
            snprintf(line, sizeof line, "%s; trying again", e->msg);
            put_screen(line);
        }
        sleep(1);
        if (!*c)
            rc = remote_open(c, o->to, e);
    } while (!rc || rc == ERR_UNREACHABLE);
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
    int rc = args_parse(&spec, argc, argv, &o, &e);

    if (rc == ARGS_HELP)
        return 0;
    if (!rc)
        rc = remote_open(&c, o.to, &e);
    if (!rc && !o.json && screen_is_live(STDOUT_FILENO))
        rc = follow(&o, &c, &e);
    else if (!rc)
        rc = draw(&o, c, 0, &e);
    client_close(c);
    if (rc)
        err_print(&e, "hone");
    return err_exit_status(rc);
}

const struct verb verb_top = {"top", "a daemon and its jobs at a glance", run};
