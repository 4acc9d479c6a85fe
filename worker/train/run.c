/* Running a job; see run.h. `seeds: N` is N runs in RUN/seed-1 ... RUN/seed-N with seeds
 * that count up from the job's own. */
#include "worker/train/run.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "worker/ckpt/state.h"
#include "worker/link/link.h"
#include "worker/train/folder.h"
#include "worker/train/loop.h"
#include "worker/train/summary.h"

volatile int run_stop;

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

/* One stage with its uplink; the daemon hears how it ended. The data is read when the
 * first stage that is not done needs it. */
static int run_stage(struct job *j, const struct spec *spec, const struct stage_spec *s,
                     const struct folder *f, int resume, int *ran, struct err *e)
{
    struct link_hello hello = {.stage = s->name, .rank = 0, .world = 1};
    struct loop_options o = {.job = j,
                             .stage = s,
                             .run_dir = f->path,
                             .job_hash = f->job_hash,
                             .resume = resume,
                             .stop = &run_stop};
    char words[ERR_MSG_MAX * 2];
    int r = link_hello_env(&hello, e);

    if (!r)
        r = link_open(&o.link, &hello, e);
    if (r)
        return r;
    if (is_done(f->path, s)) {
        log_info("%s: done already", s->name);
    } else {
        *ran = 1;
        r = j->spec ? 0 : job_open(j, spec, e);
        if (!r)
            r = loop_run(&o, e);
    }
    if (!r)
        memset(e, 0, sizeof *e);
    snprintf(words, sizeof words, "%s%s%s", e->msg, *e->mend ? "\n  try: " : "", e->mend);
    link_done(o.link, r ? err_exit_status(r) : 0, words);
    link_close(o.link);
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
                      const struct folder *f, int *ran, struct err *e)
{
    int r = 0;

    for (size_t i = 0; !r && i < spec->n_stages; i++)
        if (!o->stage || !strcmp(o->stage, spec->stage[i].name))
            r = run_stage(j, spec, &spec->stage[i], f, o->resume, ran, e);
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
                  const struct run_options *o, struct err *e)
{
    double started = clock_wall(), begin = clock_now();
    const char *state;
    int log = o->stage ? -1 : open_log(f, e), ran = 0, r, w;
    struct err second;

    log_info("%s: run in %s", spec->name, f->path);
    r = run_stages(j, spec, o, f, &ran, e);
    state = !r ? "done" : r == ERR_STOPPED ? "stopped" : "failed";
    if (!r && !ran && is_whole(f->path))
        w = 0; /* its summary says when it ran */
    else if (o->stage)
        w = summary_write_run(f->path, spec, r ? state : NULL, started, 0, r ? &second : e);
    else
        w = summary_write_run(f->path, spec, state, started, clock_now() - begin,
                              r ? &second : e);
    log_set_file(-1);
    if (log >= 0)
        close(log);
    return r ? r : w;
}

static int run_once(struct spec *spec, const struct run_options *o, const char *out,
                    struct err *e)
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
        r = job_open(&j, spec, e);
    if (!r)
        r = folder_open(&f, spec, out, o->stage, o->resume, e);
    if (!r)
        r = run_in(&f, &j, spec, o, e);
    folder_close(&f);
    job_close(&j);
    return r;
}

static int read_spec(struct spec *spec, const struct run_options *o, const char *const *set,
                     struct err *e)
{
    struct problems p;
    int r;

    problems_init(&p, o->file);
    r = spec_read(spec, o->file, set, &p, e);
    if (p.n)
        problems_print(&p, "hone");
    if (r && p.errors)
        err_set(e, r, "%s: %d %s, nothing was started", o->file, p.errors,
                p.errors == 1 ? "problem" : "problems");
    problems_fini(&p);
    return r;
}

/* RUN/seed-<k>: the job with one seed. */
static int run_seed(const struct run_options *o, const char *run, long k, long seed,
                    struct err *e)
{
    char path[FILE_PATH_MAX], assignment[64];
    const char **set;
    struct spec spec;
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
    r = read_spec(&spec, o, set, e);
    if (!r)
        r = run_once(&spec, o, path, e);
    spec_fini(&spec);
    mem_free(set);
    return r;
}

/* RUN/seed-1 ... RUN/seed-N, each a whole run of its own; RUN/summary.json over all. */
static int run_seeds(const struct spec *spec, const struct run_options *o, struct err *e)
{
    double started = clock_wall(), begin = clock_now();
    struct job j = {0};
    struct folder f;
    int r;

    if (o->stage) {
        err_set(e, ERR_CONFIG, "--stage and seeds: %ld do not go together", spec->seeds);
        return err_mend(e, "give --set seeds=1 --set seed=N");
    }
    /* Wrong data leaves no folder behind; each seed reads it again. */
    r = o->resume ? 0 : job_open(&j, spec, e);
    job_close(&j);
    if (!r)
        r = folder_open(&f, spec, o->out, NULL, o->resume, e);
    if (r)
        return r;
    for (long k = 1; !r && k <= spec->seeds; k++)
        r = run_seed(o, f.path, k, spec->seed + k - 1, e);
    if (!r)
        r = summary_write_seeds(f.path, spec, started, clock_now() - begin, e);
    folder_close(&f);
    return r;
}

int run_job(const struct run_options *o, struct err *e)
{
    struct spec spec;
    int r = read_spec(&spec, o, o->set, e);

    if (!r)
        r = spec.seeds > 1 ? run_seeds(&spec, o, e) : run_once(&spec, o, o->out, e);
    spec_fini(&spec);
    return r;
}
