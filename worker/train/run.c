/* Running a job; see run.h. `seeds: N` is N runs in RUN/seed-1 ... RUN/seed-N with seeds
 * that count up from the job's own: one after the other, or for a daemon, which has them
 * side by side, a stage of one of them ("seed-2/sft"). */
#include "worker/train/run.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "worker/ckpt/state.h"
#include "worker/link/link.h"
#include "worker/link/report.h"
#include "worker/train/folder.h"
#include "worker/train/loop.h"
#include "worker/train/summary.h"

volatile int run_stop;
struct link *run_link;
static pthread_mutex_t run_link_lock = PTHREAD_MUTEX_INITIALIZER;

static void set_link(struct link *l)
{
    pthread_mutex_lock(&run_link_lock);
    run_link = l;
    pthread_mutex_unlock(&run_link_lock);
}

void run_event(const char *level, const char *text)
{
    pthread_mutex_lock(&run_link_lock);
    link_event(run_link, level, text);
    pthread_mutex_unlock(&run_link_lock);
}

static int leads(const struct run_options *o)
{
    return o->comm->rank == 0;
}

/* Did an earlier attempt finish this stage? */
static int is_done(const char *run, const struct stage_spec *s)
{
    char dir[FILE_PATH_MAX], path[FILE_PATH_MAX];
    json_t *root = NULL;
    const char *state = NULL;
    struct err e;
    int done;

    if (file_join(dir, sizeof dir, run, s->name, &e) ||
        file_join(path, sizeof path, dir, "stage.json", &e) || !file_exists(path) ||
        json_read(path, 1 << 20, &root, &e))
        return 0;
    done = !json_get_string(root, "state", 1, &state, &e) && !strcmp(state, "done");
    json_decref(root);
    if (!s->stage->loss) /* it only measures: there is no final/ */
        return done;
    return done && !file_join(path, sizeof path, dir, "final", &e) &&
           !state_verify(path, &e);
}

/* Load what the stages share; all ranks must have read the same rows. */
static int load_job(struct job *j, const struct spec *spec, const struct run_options *o,
                    struct err *e)
{
    int threads = spec->resources.threads ? (int)spec->resources.threads : o->threads;
    int r = comm_agree(o->comm, job_open(j, spec, o->comm, threads, e), e);

    if (!r)
        r = comm_same(o->comm, "training data", j->data_hash, sizeof j->data_hash, e);
    return r ? r : job_connect(j, e);
}

/* Where a run that no daemon started reports to one: who it is, in *r. *reports: it does.
 */
static int open_report(struct report *r, const struct spec *spec, const struct folder *f,
                       const struct run_options *o, int *reports, struct err *e)
{
    struct link_hello hello = {0};
    int rc = link_hello_env(&hello, e);

    *reports = !rc && hello.address && !hello.job;
    if (!*reports)
        return rc;
    rc = report_open(r, f->path, o->stage, e);
    snprintf(r->name, sizeof r->name, "%s", spec->name);
    if (!realpath(spec->file, r->file))
        snprintf(r->file, sizeof r->file, "%s", spec->file);
    r->workers = (unsigned)o->comm->world;
    for (size_t i = 0; i < spec->n_stages && r->n_stages < REPORT_STAGES_MAX; i++)
        if (!o->stage || !strcmp(o->stage, spec->stage[i].name))
            r->stage[r->n_stages++] = spec->stage[i].name;
    return rc;
}

/* Rank 0's uplink to the daemon, if there is one. seed 0: the job has one; report: NULL
 * unless the run attaches itself, each seed for itself. */
static int open_link(struct link **out, const struct run_options *o, long seed,
                     const char *stage, const struct report *report, struct err *e)
{
    struct link_hello hello = {
        .stage = stage, .rank = 0, .world = o->comm->world, .run = report};
    char journal[FILE_PATH_MAX], name[160];
    int r = 0;

    *out = NULL;
    if (seed && !report &&
        snprintf(name, sizeof name, "seed-%ld/%s", seed, stage) < (int)sizeof name)
        hello.stage = name;
    if (leads(o))
        r = link_hello_env(&hello, e);
    if (!r && report) {
        if (snprintf(journal, sizeof journal, "%s/.hone/uplink-%s", report->run, stage) >=
            (int)sizeof journal)
            r = err_set(e, ERR_CONFIG, "path is too long: %s", report->run);
        hello.journal = journal;
        hello.attempt = (int)report->attempt;
    }
    if (!r && leads(o))
        r = link_open(out, &hello, e);
    return comm_agree(o->comm, r, e);
}

/* One stage with its uplink; the daemon hears how it ended. The data is read when the
 * first stage that is not done needs it. */
static int run_stage(struct job *j, const struct spec *spec, const struct stage_spec *s,
                     const struct folder *f, const struct run_options *o, long seed,
                     const struct report *report, int *ran, struct err *e)
{
    struct loop_options loop = {.job = j,
                                .stage = s,
                                .run_dir = f->path,
                                .job_hash = f->job_hash,
                                .resume = o->resume,
                                .stop = &run_stop,
                                .lost = o->lost};
    char words[ERR_MSG_MAX * 2];
    int done = leads(o) && is_done(f->path, s);
    int r = open_link(&loop.link, o, seed, s->name, report, e);

    set_link(loop.link);
    if (!r)
        r = o->comm->broadcast(o->comm, &done, sizeof done, 0, e);
    if (!r && done) {
        log_info("%s: done already", s->name);
    } else if (!r) {
        *ran = 1;
        r = j->spec ? 0 : load_job(j, spec, o, e);
        if (!r)
            r = loop_run(&loop, e);
    }
    if (!r)
        memset(e, 0, sizeof *e);
    snprintf(words, sizeof words, "%s%s%s", e->msg, *e->mend ? "\n  try: " : "", e->mend);
    link_done(loop.link, r ? err_exit_status(r) : 0, words);
    set_link(NULL);
    link_close(loop.link);
    return r;
}

/* Log lines of a whole run also go to RUN/log; a daemon keeps its workers' own. */
static int open_log(const struct folder *f, struct err *e)
{
    char path[FILE_PATH_MAX];
    int r = file_join(path, sizeof path, f->path, "log", e), fd;

    if (r)
        return -1;
    fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    log_set_file(fd);
    return fd;
}

static int run_stages(struct job *j, struct spec *spec, const struct run_options *o,
                      const struct folder *f, long seed, int *ran, struct err *e)
{
    struct report *report = leads(o) ? mem_alloc(sizeof *report) : NULL;
    int reports = 0, r = 0;

    if (leads(o))
        r = report ? open_report(report, spec, f, o, &reports, e)
                   : err_set(e, ERR_NOMEM, "uplink: out of memory");
    r = comm_agree(o->comm, r, e);
    for (size_t i = 0; !r && i < spec->n_stages; i++)
        if (!o->stage || !strcmp(o->stage, spec->stage[i].name))
            r = run_stage(j, spec, &spec->stage[i], f, o, seed, reports ? report : NULL,
                          ran, e);
    links_end();
    mem_free(report);
    return r;
}

/* Does the summary say that the run came to its end? */
static int is_whole(const char *run)
{
    char path[FILE_PATH_MAX];
    json_t *root = NULL;
    const char *state = NULL;
    struct err e;
    int whole;

    if (file_join(path, sizeof path, run, "summary.json", &e) ||
        json_read(path, 64 << 20, &root, &e))
        return 0;
    whole = !json_get_string(root, "state", 1, &state, &e) && !strcmp(state, "done");
    json_decref(root);
    return whole;
}

/* Work in the folder that is ours now. */
static int run_in(const struct folder *f, struct job *j, struct spec *spec,
                  const struct run_options *o, long seed, struct err *e)
{
    double started = clock_wall(), begin = clock_now();
    const char *state;
    int log = (o->stage && !seed) || !leads(o) ? -1 : open_log(f, e), ran = 0, r, w;
    struct err second;

    if (o->comm->world > 1)
        log_info("%s: run in %s, %d ranks", spec->name, f->path, o->comm->world);
    else
        log_info("%s: run in %s", spec->name, f->path);
    r = run_stages(j, spec, o, f, seed, &ran, e);
    state = !r ? "done" : r == ERR_STOPPED ? "stopped" : "failed";
    if (!leads(o) || (!r && !ran && is_whole(f->path)))
        w = 0; /* rank 0 writes it; or its summary says when it ran */
    else if (o->stage)
        w = summary_write_run(f->path, spec, r ? state : NULL, started, 0, r ? &second : e);
    else
        w = summary_write_run(f->path, spec, state, started, clock_now() - begin,
                              r ? &second : e);
    log_set_file(-1);
    if (log >= 0)
        close(log);
    return comm_agree(o->comm, r ? r : w, e);
}

/* Rank 0 claims the folder; the others hear which one it is and must see it too. */
static int claim_folder(struct folder *f, const struct spec *spec,
                        const struct run_options *o, const char *out, struct err *e)
{
    int lock = -1, stage_lock = -1;
    int r = leads(o) ? folder_open(f, spec, out, o->stage, o->resume, e) : 0;

    r = comm_agree(o->comm, r, e);
    if (r || o->comm->world == 1)
        return r;
    if (leads(o)) {
        lock = f->run_lock;
        stage_lock = f->stage_lock;
    }
    r = o->comm->broadcast(o->comm, f, sizeof *f, 0, e);
    f->run_lock = lock;
    f->stage_lock = stage_lock;
    if (!r && !file_is_dir(f->path)) {
        r = err_set(e, ERR_CONFIG, "the run's folder %s is not there", f->path);
        err_mend(e, "put it on a file system that all hosts share");
    }
    return comm_agree(o->comm, r, e);
}

static int run_once(struct spec *spec, const struct run_options *o, const char *out,
                    long seed, struct err *e)
{
    struct folder f = {.run_lock = -1, .stage_lock = -1};
    struct job j = {0};
    int r = 0;

    if (o->stage && !spec_find_stage(spec, o->stage)) {
        err_set(e, ERR_CONFIG, "%s: no stage \"%s\"", spec->file, o->stage);
        return err_mend(e, "name one of its stages");
    }
    /* A new run leaves no folder behind when its data is wrong. */
    if (!o->stage && !o->resume)
        r = load_job(&j, spec, o, e);
    if (!r)
        r = claim_folder(&f, spec, o, out, e);
    if (!r)
        r = run_in(&f, &j, spec, o, seed, e);
    folder_close(&f);
    job_close(&j);
    return r;
}

/* The job as every rank reads it. */
static int compare_specs(const struct spec *spec, const struct run_options *o,
                         struct err *e)
{
    struct str text = {0};
    int r;

    spec_write_resolved(spec, &text);
    r = comm_agree(o->comm,
                   str_failed(&text) ? err_set(e, ERR_NOMEM, "job: out of memory") : 0, e);
    if (!r)
        r = comm_same(o->comm, "a job file", str_get(&text), text.len, e);
    str_fini(&text);
    return r;
}

static void first_problem(const struct problems *p, int r, struct err *e)
{
    int i = 0;

    while (i < p->n - 1 && p->item[i].warning)
        i++;
    err_set(e, r, "%s%s%s", p->item[i].where, *p->item[i].where ? ": " : "",
            p->item[i].message);
}

static int read_spec(struct spec *spec, const struct run_options *o, const char *const *set,
                     struct err *e)
{
    struct problems p;
    int r;

    problems_init(&p, o->file);
    r = spec_read(spec, o->file, set, &p, e);
    if (p.n && leads(o))
        problems_print(&p, "hone");
    if (r && p.errors && leads(o))
        err_set(e, r, "%s: %d %s, nothing was started", o->file, p.errors,
                p.errors == 1 ? "problem" : "problems");
    else if (r && p.errors) /* rank 0 has printed its own alone */
        first_problem(&p, r, e);
    problems_fini(&p);
    r = comm_agree(o->comm, r, e);
    return r ? r : compare_specs(spec, o, e);
}

/* RUN/seed-<k>: the job with one seed. seed: its value. */
static int run_seed(const struct run_options *o, const char *run, long k, long seed,
                    struct err *e)
{
    char path[FILE_PATH_MAX], assignment[64], told[32];
    const char **set;
    struct spec spec;
    struct err second;
    size_t n = 0;
    int r;

    if (snprintf(path, sizeof path, "%s/seed-%ld", run, k) >= (int)sizeof path)
        return err_set(e, ERR_CONFIG, "path is too long: %s", run);
    while (o->set && o->set[n])
        n++;
    set = mem_array(n + 3, sizeof *set);
    if (!set)
        return err_set(e, ERR_NOMEM, "seed %ld: out of memory", seed);
    if (n)
        memcpy(set, o->set, n * sizeof *set);
    snprintf(assignment, sizeof assignment, "seed=%ld", seed);
    set[n] = assignment;
    set[n + 1] = "seeds=1";
    snprintf(told, sizeof told, "seed-%ld/", k);
    log_set_prefix(told);
    r = read_spec(&spec, o, set, e);
    if (!r)
        r = run_once(&spec, o, path, k, e);
    /* The summary over all seeds goes by it, also where the folder could not be had. */
    if (r && o->stage && leads(o) && file_is_dir(path))
        summary_set_state(path, &spec, r == ERR_STOPPED ? "stopped" : "failed", &second);
    log_set_prefix("");
    spec_fini(&spec);
    mem_free(set);
    return r;
}

/* "seed-2/sft" */
static int find_seed(const struct spec *spec, const char *stage, long *k, const char **name,
                     struct err *e)
{
    char *end = NULL;

    *k = str_starts(stage, "seed-") ? strtol(stage + strlen("seed-"), &end, 10) : 0;
    if (*k >= 1 && *k <= spec->seeds && *end == '/') {
        *name = end + 1;
        return 0;
    }
    err_set(e, ERR_CONFIG, "%s: seeds: %ld, and no stage \"%.100s\"", spec->file,
            spec->seeds, stage);
    return err_mend(e, "--stage seed-K/NAME, K from 1 to %ld", spec->seeds);
}

/* One stage of one seed, for a daemon; the others may run beside it. */
static int run_seed_stage(const struct spec *spec, const struct run_options *o,
                          struct err *e)
{
    double started = clock_wall();
    struct folder f = {.run_lock = -1, .stage_lock = -1};
    struct run_options shared = *o, one = *o;
    struct err second;
    long k;
    int r = find_seed(spec, o->stage, &k, &one.stage, e), w = 0;

    shared.stage = "";
    if (!r)
        r = claim_folder(&f, spec, &shared, o->out, e);
    if (r)
        return r;
    r = run_seed(&one, f.path, k, spec->seed + k - 1, e);
    if (leads(o))
        w = summary_write_seeds(f.path, spec, started, 0, r ? &second : e);
    folder_close(&f);
    return comm_agree(o->comm, r ? r : w, e);
}

/* RUN/seed-1 ... RUN/seed-N, each a whole run of its own; RUN/summary.json over all. */
static int run_seeds(const struct spec *spec, const struct run_options *o, struct err *e)
{
    double started = clock_wall(), begin = clock_now();
    struct job j = {0};
    struct folder f = {.run_lock = -1, .stage_lock = -1};
    int r;

    if (o->stage)
        return run_seed_stage(spec, o, e);
    /* Wrong data leaves no folder behind; each seed reads it again. */
    r = o->resume ? 0 : load_job(&j, spec, o, e);
    job_close(&j);
    if (!r)
        r = claim_folder(&f, spec, o, o->out, e);
    if (r) {
        folder_close(&f);
        return r;
    }
    for (long k = 1; !r && k <= spec->seeds; k++)
        r = run_seed(o, f.path, k, spec->seed + k - 1, e);
    if (!r && leads(o))
        r = summary_write_seeds(f.path, spec, started, clock_now() - begin, e);
    folder_close(&f);
    return r;
}

/* One build on all hosts: another might compute other bits, or speak otherwise. */
static int compare_builds(const struct run_options *o, struct err *e)
{
    char hash[33] = "";
    int r = o->comm->world > 1 ? hash_file("/proc/self/exe", hash, e) : 0;

    r = comm_agree(o->comm, r, e);
    return r ? r : comm_same(o->comm, "a build of hone-worker", hash, sizeof hash, e);
}

int run_job(const struct run_options *options, struct err *e)
{
    struct run_options o = *options;
    struct spec spec;
    int r;

    if (!o.comm)
        o.comm = comm_self();
    r = compare_builds(&o, e);
    if (r)
        return r;
    r = read_spec(&spec, &o, o.set, e);
    if (!r)
        r = spec.seeds > 1 ? run_seeds(&spec, &o, e) : run_once(&spec, &o, o.out, 0, e);
    spec_fini(&spec);
    return comm_agree(o.comm, r, e);
}
