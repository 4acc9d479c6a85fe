/* hone-worker: what trains. `hone-worker JOB.yaml` runs a job's stages (or one) to their
 * end with files and log lines as its output; a verb as the first word answers and ends.
 * Started by mpirun it is one rank of several.
 *
 * SIGINT, SIGTERM and SIGUSR1 (which mpirun passes on) ask for a checkpoint and a stop at
 * the next step boundary; a second one ends the process at once. An error is printed by
 * one rank alone: rank 0, or where that is lost the lowest that is left. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/args.h"
#include "base/log.h"
#include "base/standard.h"
#include "proto/message.h"
#include "worker/dist/cluster.h"
#include "worker/link/checks.h"
#include "worker/link/confine.h"
#include "worker/link/limit.h"
#include "worker/link/link.h"
#include "worker/train/newest.h"
#include "worker/train/run.h"
#include "worker/verb/verb.h"

struct worker_args {
    const char *stage, *out, *report;
    struct arg_list set, job;
    int resume, check;
};

static const struct arg_flag flags[] = {
    ARG_VALUE("--stage", "NAME", "run this stage alone (with seeds: seed-K/NAME)",
              struct worker_args, stage),
    ARG_VALUE("--out", "DIR", "the run's folder; default: runs/<name>-<n>/ beside the job",
              struct worker_args, out),
    ARG_SWITCH("--resume", "go on from the newest good checkpoint", struct worker_args,
               resume),
    ARG_LIST("--set", "KEY=VALUE", "override a key of the job", struct worker_args, set),
    ARG_VALUE("--report", "ADDRESS",
              "tell a honed how it goes: HOST:PORT or unix:PATH (docs/OPERATIONS.md)",
              struct worker_args, report),
    ARG_SWITCH("--check", "check the job and show its plan, start nothing",
               struct worker_args, check),
    ARG_END,
};

static const struct arg_spec spec = {
    .program = "hone-worker",
    .usage = "JOB.yaml [--stage NAME] [--out DIR] [--resume] [--set KEY=VALUE]... "
             "[--report ADDRESS] [--check]",
    .help = "Trains the stages of a job; `mpirun -n N hone-worker JOB.yaml` with N ranks "
            "that share each batch.\nSIGUSR1 or SIGTERM: save a checkpoint and stop. "
            "Also: --describe (stages, options, families and "
            "back ends as JSON),\n--version, and the verbs check, data, doctor, "
            "eval, predict, tokenize, verify (see hone-worker VERB --help).",
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
        sigaction(SIGUSR1, &stop, NULL) || sigaction(SIGPIPE, &ignore, NULL))
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

/* mpirun waits for ever for a host that it cannot reach, deaf to SIGTERM: end it, so that
 * who waits for it hears of our failure. It gets a second to pass our last words on. */
static void end_launcher(void)
{
    static const char *const names[] = {"mpirun", "orterun", "mpiexec",
                                        "orted",  "prterun", "prted"};
    char path[64], name[32] = "";
    FILE *f;

    snprintf(path, sizeof path, "/proc/%d/comm", (int)getppid());
    f = fopen(path, "re");
    if (!f)
        return;
    if (fgets(name, sizeof name, f))
        name[strcspn(name, "\n")] = 0;
    fclose(f);
    sleep(1);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(name, names[i]))
            kill(getppid(), SIGKILL);
}

/* The exit status of ranks that lost one of theirs. */
static int lost_status(void)
{
    const char *job = getenv("HONE_UPLINK_JOB");

    return job && *job ? WORKER_LOST_STATUS : err_exit_status(ERR_FAILED);
}

/* A rank, a host or a GPU is lost: every rank ends at once, one says why. The others
 * leave it the time to do so. */
static void on_lost(void *arg, const char *message, int report, int far)
{
    char words[ERR_MSG_MAX * 2];
    struct err e = {0};

    (void)arg;
    if (!report) {
        sleep(2);
        if (far)
            end_launcher();
        _exit(lost_status());
    }
    err_set(&e, ERR_FAILED, "%s", message);
    newest_mend(&e);
    err_print(&e, "hone");
    snprintf(words, sizeof words, "%s%s%s", e.msg, *e.mend ? "\n  try: " : "", e.mend);
    link_done(run_link, err_exit_status(ERR_FAILED), words);
    usleep(run_link ? 500000 : 0); /* the uplink's thread sends it */
    link_leave_status(lost_status());
    if (far)
        end_launcher();
    _exit(lost_status());
}

static struct comm *of_ranks; /* NULL: there is one */

/* The same for a device that took its process with it. */
static void on_gpu_lost(void *arg, const char *message, int report, int far)
{
    on_lost(arg, message, report && (!of_ranks || cluster_speaks(of_ranks)), far);
}

/* --report is HONE_UPLINK; who was started by a daemon reports to that one. */
static int set_report(const struct worker_args *a, struct err *e)
{
    const char *job = getenv("HONE_UPLINK_JOB");
    struct link_hello hello = {0};

    if (a->report && job && *job)
        return err_set(e, ERR_USAGE, "--report: a daemon started this worker");
    if (a->report && setenv("HONE_UPLINK", a->report, 1))
        return err_set(e, ERR_NOMEM, "--report: out of memory");
    return link_hello_env(&hello, e); /* what is wrong there is wrong before all else */
}

/* A rank for which all others wait: training goes on, somebody should know. */
static void on_lag(void *arg, const char *message)
{
    (void)arg;
    log_warn("%s", message);
    run_event("warning", message);
}

static int open_ranks(struct comm **out, struct err *e)
{
    struct cluster_setup s = {.lost = on_lost, .lag = on_lag};
    int r;

    *out = NULL;
    if (!mpi_launched())
        return 0;
    r = mpi_load(&s.mpi, e);
    return r ? r : cluster_open(out, &s, e);
}

/* The last word of a run over several ranks: once for all of them. */
static int end_ranks(struct comm *c, int r, struct err *e)
{
    int locals, broken = cluster_is_broken(c);
    int speaks = c->rank == 0 || (broken && cluster_local(c, &locals) == 0);

    cluster_close(c, !r || *c->verdict == r);
    r = r && speaks ? verb_result(r, e) : err_exit_status(r);
    if (broken)
        end_launcher();
    return broken && r == err_exit_status(ERR_FAILED) ? lost_status() : r;
}

static int train(int argc, char **argv)
{
    struct worker_args a = {0};
    struct err e = {0};
    struct comm *ranks;
    int r = open_ranks(&ranks, &e);

    of_ranks = ranks;
    if (r)
        return verb_result(r, &e);
    r = limit_processes(&e);
    if (ranks && ranks->rank)
        log_set_level(LOG_ERROR);
    if (!r)
        r = args_parse(&spec, argc, argv, &a, &e);
    if (!r && a.check) {
        cluster_close(ranks, 1);
        return check(&a);
    }
    if (!r)
        r = set_signals(&e);
    if (!r && (!ranks || ranks->rank == 0))
        r = set_report(&a, &e);
    if (ranks)
        r = comm_agree(ranks, r, &e);
    if (!r) {
        struct run_options o = {.file = a.job.item[0],
                                .set = a.set.item,
                                .stage = a.stage,
                                .out = a.out,
                                .resume = a.resume,
                                .comm = ranks ? ranks : comm_self(),
                                .lost = on_gpu_lost,
                                .threads = ranks ? cluster_threads(ranks) : 0};

        r = run_job(&o, &e);
    }
    return ranks ? end_ranks(ranks, r, &e) : verb_result(r, &e);
}

static int run(int argc, char **argv)
{
    int checks = argc == 2 && !strcmp(argv[1], "--checks");
    const struct verb *v;
    struct err e;

    args_swap_complete(argc, argv, argc > 2 && verb_find(argv[2]));
    v = argc > 1 ? verb_find(argv[1]) : NULL;
    if (argc == 3 && !strcmp(argv[1], "--complete")) {
        for (const struct verb *x = verbs; x->name; x++)
            args_candidate(argv[2], x->name, x->help);
        args_candidate(argv[2], "--describe", "stages, options, families as JSON");
        args_candidate(argv[2], "--version", "print the version");
    }
    if (checks)
        checks_go_first();
    if (limit_memory(&e) || confine(&e))
        return verb_result(e.code, &e);
    if (argc == 2 && !strcmp(argv[1], "--version")) {
        printf("hone-worker %s\n", HONE_VERSION);
        return 0;
    }
    if (argc == 2 && !strcmp(argv[1], "--describe"))
        return verb_describe();
    if (checks)
        return checks_serve(verb_check);
    if (v)
        return v->run(argc - 1, argv + 1);
    return train(argc, argv);
}

int main(int argc, char **argv)
{
    standard_open();
    return link_leave_status(standard_close("hone", run(argc, argv)));
}
