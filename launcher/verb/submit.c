/* hone submit: give a job to a daemon and come back.
 *
 * The job has a request id: a submit that got no answer (the connection was lost) is asked
 * again, and is one job all the same. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "launcher/remote.h"
#include "launcher/request.h"
#include "launcher/verb.h"
#include "proto/message.h"

enum { TRIES = 5 };

struct options {
    struct arg_list job, set;
    const char *out, *stages, *to, *priority, *notify, *request_id, *launcher;
    int resume, json;
};

static int make_id(char out[33], struct err *e)
{
    unsigned char random[16];

    if (getrandom(random, sizeof random, 0) != sizeof random)
        return err_errno(e, ERR_FAILED, errno, "random numbers");
    for (size_t i = 0; i < sizeof random; i++)
        snprintf(out + 2 * i, 3, "%02x", random[i]);
    return 0;
}

static int ask(const struct options *o, const Hone__V1__SubmitRequest *m,
               ProtobufCMessage **reply, struct err *e)
{
    int rc = 0;

    for (int i = 0; i < TRIES; i++) {
        struct client *c;

        rc = remote_open(&c, o->to, e);
        if (rc)
            return rc; /* it was never asked, or is not there any more */
        rc = remote_call(c, "Submit", &m->base, &hone__v1__submit_reply__descriptor, reply,
                         e);
        client_close(c);
        if (rc != ERR_UNREACHABLE)
            return rc;
        usleep(200000u << i);
    }
    return rc;
}

static int tell(const struct options *o, const Hone__V1__SubmitReply *r, struct err *e)
{
    char name[128], run[FILE_PATH_MAX];

    if (!o->json)
        for (size_t i = 0; i < r->n_problems; i++)
            request_print_problem(r->problems[i]);
    if (o->json && remote_print_json(&r->base, e))
        return e->code;
    if (!r->job)
        return ERR_CONFIG;
    if (!o->json)
        printf("job %llu %s -> %s\n", (unsigned long long)r->job->id,
               remote_clean(name, sizeof name, r->job->name),
               remote_clean(run, sizeof run, r->job->run));
    return 0;
}

/* --launcher X is --set resources.launcher=X; word: room for it. */
static int set_launcher(struct options *o, char *word, size_t n, struct err *e)
{
    if (!o->launcher)
        return 0;
    if (o->set.n == ARGS_LIST_MAX ||
        snprintf(word, n, "resources.launcher=%s", o->launcher) >= (int)n)
        return err_set(e, ERR_USAGE, "--launcher: too long, or too many --set");
    o->set.item[o->set.n++] = word;
    o->set.item[o->set.n] = NULL;
    return 0;
}

/* e->msg "": the problems have been printed. */
static int submit(struct options *o, struct err *e)
{
    Hone__V1__SubmitRequest m = HONE__V1__SUBMIT_REQUEST__INIT;
    ProtobufCMessage *reply = NULL;
    static struct request r;
    char id[33], launcher[64];
    long priority = 0;
    int rc = args_long("--priority", o->priority, -100, 100, &priority, e);

    if (!rc)
        rc = set_launcher(o, launcher, sizeof launcher, e);
    if (!rc)
        rc = make_id(id, e);
    if (!rc)
        rc = request_make(&r, o->job.item[0], o->out, o->stages, &o->set, o->resume, e);
    if (!rc) {
        request_message(&r, &m);
        m.request_id = o->request_id ? (char *)(uintptr_t)o->request_id : id;
        m.has_priority = 1;
        m.priority = (int)priority;
        m.notify = (char *)(uintptr_t)o->notify;
        rc = ask(o, &m, &reply, e);
    }
    if (!rc) {
        e->msg[0] = '\0';
        rc = tell(o, (Hone__V1__SubmitReply *)reply, e);
    }
    if (reply)
        message_free(reply);
    request_fini(&r);
    return rc;
}

static int run(int argc, char **argv)
{
    static const struct arg_flag flags[] = {
        ARG_LIST("--set", "KEY=VALUE", "override a key of the job file", struct options,
                 set),
        ARG_VALUE("--out", "DIR", "run folder (default: runs/NAME-N/ beside the job file)",
                  struct options, out),
        ARG_VALUE("--stages", "A,B", "only these stages", struct options, stages),
        ARG_SWITCH("--resume", "go on from the newest good checkpoint", struct options,
                   resume),
        ARG_VALUE("--launcher", "local|slurm",
                  "who starts the workers: --set resources.launcher=...", struct options,
                  launcher),
        ARG_VALUE("--priority", "N", "-100 to 100, higher first (0)", struct options,
                  priority),
        ARG_VALUE("--notify", "PROGRAM",
                  "of the daemon's notify folder, run on done, failed, stopped, alarm",
                  struct options, notify),
        ARG_VALUE("--request-id", "TEXT", "submits with the same one are one job",
                  struct options, request_id),
        REMOTE_FLAGS(struct options),
        ARG_END};
    static const struct arg_spec spec = {
        "hone submit",
        "JOB.yaml [--set KEY=VALUE]... [--out DIR] [--stages A,B] [--resume]\n"
        "                   [--launcher slurm] [--priority N] [--notify PROGRAM] [--to "
        "DAEMON] [--json]",
        "Gives the job to a daemon (honed): it is checked, stored and queued; then hone "
        "ps,\n"
        "watch, logs, pause, resume, cancel. Paths are those of the daemon's machine.",
        flags,
        1,
        1,
        offsetof(struct options, job)};
    static struct options o;
    struct err e;
    int rc = args_parse(&spec, argc, argv, &o, &e);

    if (rc == ARGS_HELP)
        return 0;
    if (!rc)
        rc = submit(&o, &e);
    if (rc && e.msg[0])
        err_print(&e, "hone");
    return err_exit_status(rc);
}

const struct verb verb_submit = {"submit", "give a job to a daemon", run};
