/* hone-worker: what trains. `hone-worker JOB.yaml` runs a job's stages (or one) to their
 * end with files and log lines as its output; a verb as the first word answers and ends.
 *
 * SIGINT and SIGTERM ask for a checkpoint and a stop at the next step boundary; a second
 * one ends the process at once. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/args.h"
#include "base/standard.h"
#include "worker/link/link.h"
#include "worker/train/run.h"
#include "worker/verb/verb.h"

struct worker_args {
    const char *stage, *out;
    struct arg_list set, job;
    int resume, check;
};

static const struct arg_flag flags[] = {
    ARG_VALUE("--stage", "NAME", "run this stage alone", struct worker_args, stage),
    ARG_VALUE("--out", "DIR", "the run's folder; default: runs/<name>-<n>/ beside the job",
              struct worker_args, out),
    ARG_SWITCH("--resume", "go on from the newest good checkpoint", struct worker_args,
               resume),
    ARG_LIST("--set", "KEY=VALUE", "override a key of the job", struct worker_args, set),
    ARG_SWITCH("--check", "check the job and show its plan, start nothing",
               struct worker_args, check),
    ARG_END,
};

static const struct arg_spec spec = {
    .program = "hone-worker",
    .usage =
        "JOB.yaml [--stage NAME] [--out DIR] [--resume] [--set KEY=VALUE]... [--check]",
    .help =
        "Trains the stages of a job. Also: --describe (stages, options, families and "
        "back ends as JSON),\n--version, and the verbs check, data, doctor, eval, predict, "
        "tokenize, verify (see hone-worker VERB --help).",
    .flags = flags,
    .words_min = 1,
    .words_max = 1,
    .words = offsetof(struct worker_args, job),
};

static void on_signal(int sig)
{
    if (run_stop) {
        signal(sig, SIG_DFL);
        raise(sig);
    }
    run_stop = 1;
}

static int set_signals(struct err *e)
{
    struct sigaction stop = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    struct sigaction ignore = {.sa_handler = SIG_IGN};

    if (sigaction(SIGINT, &stop, NULL) || sigaction(SIGTERM, &stop, NULL) ||
        sigaction(SIGPIPE, &ignore, NULL))
        return err_errno(e, ERR_FAILED, errno, "signal handlers");
    return 0;
}

static int check(const struct worker_args *a)
{
    char *argv[ARGS_LIST_MAX * 2 + 4];
    int n = 0;

    argv[n++] = (char *)"check";
    argv[n++] = (char *)a->job.item[0];
    for (int i = 0; i < a->set.n; i++) {
        argv[n++] = (char *)"--set";
        argv[n++] = (char *)a->set.item[i];
    }
    argv[n] = NULL;
    return verb_check(n, argv);
}

static int train(int argc, char **argv)
{
    struct worker_args a = {0};
    struct err e = {0};
    int r = args_parse(&spec, argc, argv, &a, &e);

    if (!r && a.check)
        return check(&a);
    if (!r)
        r = set_signals(&e);
    if (!r) {
        struct run_options o = {.file = a.job.item[0],
                                .set = a.set.item,
                                .stage = a.stage,
                                .out = a.out,
                                .resume = a.resume};

        r = run_job(&o, &e);
    }
    return verb_result(r, &e);
}

static int run(int argc, char **argv)
{
    const struct verb *v = argc > 1 ? verb_find(argv[1]) : NULL;

    if (argc == 2 && !strcmp(argv[1], "--version")) {
        printf("hone-worker %s\n", HONE_VERSION);
        return 0;
    }
    if (argc == 2 && !strcmp(argv[1], "--describe"))
        return verb_describe();
    if (v)
        return v->run(argc - 1, argv + 1);
    return train(argc, argv);
}

int main(int argc, char **argv)
{
    standard_open();
    return link_leave_status(standard_close("hone", run(argc, argv)));
}
