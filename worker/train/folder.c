/* The run's folder; see folder.h. Fails with ERR_CONFIG (in use, another run, a changed
 * job: the first line that differs) and ERR_IO. */
#include "worker/train/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"

enum { JOB_BYTES_MAX = 4 << 20, RUNS_MAX = 1000000 };
static const double lock_patience = 10; /* seconds: a dying worker gives its lock back */

/* flock on `path`, shared or exclusive; waits only on resume. */
static int take_lock(const char *path, int how, int wait, int *fd, struct err *e)
{
    double until = clock_now() + (wait ? lock_patience : 0);

    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (*fd < 0)
        return err_errno(e, ERR_CONFIG, errno, "open %s", path);
    while (flock(*fd, how | LOCK_NB)) {
        if (errno != EWOULDBLOCK && errno != EINTR) {
            int saved = errno;

            close(*fd);
            *fd = -1;
            return err_errno(e, ERR_IO, saved, "lock %s", path);
        }
        if (clock_now() >= until) {
            close(*fd);
            *fd = -1;
            err_set(e, ERR_CONFIG, "%s: another process is working in this folder", path);
            return err_mend(e, "wait for it, or choose another --out");
        }
        usleep(100000);
    }
    return 0;
}

/* RUN from the job's name: the first free number, or on resume the last one taken. */
static int default_path(struct folder *f, const struct spec *spec, int resume,
                        struct err *e)
{
    char path[FILE_PATH_MAX];
    int r;

    for (long n = 1; n < RUNS_MAX; n++) {
        if (snprintf(path, sizeof path, "%s/runs/%s-%ld", spec->folder, spec->name, n) >=
            (int)sizeof path)
            return err_set(e, ERR_CONFIG, "path is too long: %s", spec->folder);
        if (resume && file_exists(path)) {
            memcpy(f->path, path, sizeof path);
            continue;
        }
        if (resume && n > 1)
            return 0;
        if (file_exists(path))
            continue;
        memcpy(f->path, path, sizeof path);
        file_dirname(path, sizeof path, f->path);
        r = file_make_dirs(path, e);
        if (r)
            return r;
        if (!mkdir(f->path, 0777))
            return 0;
        if (errno != EEXIST)
            return err_errno(e, ERR_CONFIG, errno, "create folder %s", f->path);
    }
    return err_set(e, ERR_CONFIG, "%s/runs: no free name for %s", spec->folder, spec->name);
}

/* The resolved job without what leaves the run as it is: `resources` (any number of threads
 * gives the same), `notify` and `stall`. */
static void without_trifles(const char *text, struct str *out)
{
    int inside = 0;

    for (const char *line = text; *line;) {
        const char *end = strchr(line, '\n');
        size_t n = end ? (size_t)(end - line) + 1 : strlen(line);

        if (*line != ' ')
            inside = str_starts(line, "resources:") || str_starts(line, "notify:");
        if (!inside && !str_starts(line + strspn(line, " "), "stall:"))
            str_add_bytes(out, line, n);
        line += n;
    }
}

/* "stages.sft.lr" of the line at `at`: two spaces a level. */
static void place_of(const char *text, const char *at, struct str *out)
{
    enum { LEVELS = 3 };
    const char *key[LEVELS] = {NULL};
    size_t depth = 0;

    for (const char *line = text; *line && line <= at; line += strcspn(line, "\n") + 1) {
        depth = strspn(line, " ") / 2;
        if (depth < LEVELS)
            key[depth] = line + 2 * depth;
        if (!strchr(line, '\n'))
            break;
    }
    for (size_t i = 0; i <= depth && i < LEVELS && key[i]; i++) {
        str_add(out, i ? "." : "");
        str_add_bytes(out, key[i], strcspn(key[i], ":\n"));
    }
}

/* The first line in which two resolved jobs differ. */
static int changed(const struct folder *f, const char *was, const char *now, struct err *e)
{
    const char *a = was, *b = now;
    struct str place = {0};

    while (*a && *b) {
        size_t n = strcspn(a, "\n"), m = strcspn(b, "\n");

        if (n != m || memcmp(a, b, n))
            break;
        a += n + (a[n] == '\n');
        b += m + (b[m] == '\n');
    }
    place_of(*b ? now : was, *b ? b : a, &place);
    a += strspn(a, " ");
    b += strspn(b, " ");
    err_set(e, ERR_CONFIG,
            "%s was started with another job: %s in its job.resolved.yaml, where it says "
            "\"%.*s\", now it is \"%.*s\"",
            f->path, str_get(&place), (int)strcspn(a, "\n"), a, (int)strcspn(b, "\n"), b);
    str_fini(&place);
    return err_mend(e, "use the job as it was, or another --out");
}

static int find_job(const struct folder *f, int *found, struct err *e)
{
    char path[FILE_PATH_MAX];
    int r = file_join(path, sizeof path, f->path, "job.resolved.yaml", e);

    *found = !r && file_exists(path);
    return r;
}

static int hash_job(struct folder *f, const char *text, struct err *e)
{
    struct hash_stream *h = hash_new();

    if (!h)
        return err_set(e, ERR_NOMEM, "job: out of memory");
    hash_add(h, text, strlen(text));
    hash_hex(h, f->job_hash);
    hash_free(h);
    return 0;
}

/* The job as it was, with the keys that this build has and the one that wrote it had not:
 * what it left unsaid is the default. Nothing is added (0 bytes) where today it is no job.
 */
static void add_defaults(const char *path, struct str *out)
{
    struct str text = {0};
    struct problems p;
    struct spec was;
    struct err e;

    problems_init(&p, path);
    if (!spec_read(&was, path, NULL, &p, &e)) {
        spec_write_resolved(&was, &text);
        without_trifles(str_get(&text), out);
    }
    spec_fini(&was);
    problems_fini(&p);
    str_fini(&text);
}

/* Compare with the run that is there already: in values, so that a run of a build with
 * fewer keys goes on. Its checkpoints know it by the hash of what was written then. */
static int check_job(struct folder *f, const char *now, struct err *e)
{
    char path[FILE_PATH_MAX];
    struct str was = {0}, filled = {0};
    const char *then;
    char *text = NULL;
    size_t n;
    int r = file_join(path, sizeof path, f->path, "job.resolved.yaml", e);

    if (!r)
        r = file_read(path, JOB_BYTES_MAX, &text, &n, e);
    if (r)
        return r;
    without_trifles(text, &was);
    mem_free(text);
    if (strcmp(str_get(&was), now))
        add_defaults(path, &filled);
    then = str_get(filled.len ? &filled : &was);
    if (str_failed(&was) || str_failed(&filled))
        r = err_set(e, ERR_NOMEM, "%s: out of memory", path);
    else if (strcmp(then, now))
        r = changed(f, then, now, e);
    else
        r = hash_job(f, str_get(&was), e);
    str_fini(&was);
    str_fini(&filled);
    return r;
}

/* A folder of ours may hold a log and hidden files before the run begins, and, when an
 * attempt ended as it began, the copy of the job. */
static int check_empty(const struct folder *f, int resume, struct err *e)
{
    char **names;
    size_t n;
    int r = file_list(f->path, &names, &n, e);

    if (r)
        return r;
    for (size_t i = 0; i < n; i++) {
        if (!r && *names[i] != '.' && strcmp(names[i], "log") &&
            !(resume && !strcmp(names[i], "job.yaml"))) {
            err_set(e, ERR_CONFIG, "%s is not empty: it holds %s", f->path, names[i]);
            r = err_mend(e, "choose another --out");
        }
        mem_free(names[i]);
    }
    mem_free(names);
    return r;
}

static int refuse_run(const struct folder *f, struct err *e)
{
    err_set(e, ERR_CONFIG, "%s holds a run already", f->path);
    return err_mend(e, "go on with it with --resume, or choose another --out");
}

/* One stage alone (a daemon's worker): other stages' folders are expected. */
static int check_stage(struct folder *f, const char *stage, int resume, struct err *e)
{
    static const char *const traces[] = {"stage.json", "metrics.jsonl", "final"};
    char dir[FILE_PATH_MAX], path[FILE_PATH_MAX];
    int r = file_join(dir, sizeof dir, f->path, stage, e);

    for (size_t i = 0; !r && !resume && i < sizeof traces / sizeof *traces; i++) {
        r = file_join(path, sizeof path, dir, traces[i], e);
        if (!r && file_exists(path)) {
            err_set(e, ERR_CONFIG, "%s holds a run of this stage already", dir);
            r = err_mend(e, "go on with it with --resume, or choose another --out");
        }
    }
    if (!r)
        r = file_make_dirs(dir, e);
    if (!r)
        r = file_join(path, sizeof path, dir, ".lock", e);
    return r ? r : take_lock(path, LOCK_EX, resume, &f->stage_lock, e);
}

static int write_job(const struct folder *f, const struct spec *spec, const char *resolved,
                     struct err *e)
{
    char path[FILE_PATH_MAX], *text = NULL;
    size_t n;
    int r = file_join(path, sizeof path, f->path, "job.yaml", e);

    if (!r && !file_exists(path)) {
        r = file_read(spec->file, JOB_BYTES_MAX, &text, &n, e);
        if (!r)
            r = file_write_atomic(path, text, n, e);
        mem_free(text);
    }
    if (!r)
        r = file_join(path, sizeof path, f->path, "job.resolved.yaml", e);
    return r ? r : file_write_atomic(path, resolved, strlen(resolved), e);
}

/* A whole run wants a folder of its own. */
static int inspect(const struct folder *f, const char *stage, int resume, int *found,
                   struct err *e)
{
    int r = find_job(f, found, e);

    if (r || stage)
        return r;
    if (*found)
        return resume ? 0 : refuse_run(f, e);
    return check_empty(f, resume, e);
}

/* Under the lock: is this folder ours to use? Then make it so. */
static int claim(struct folder *f, const struct spec *spec, const char *stage, int resume,
                 struct err *e)
{
    struct str resolved = {0}, now = {0};
    int found = 0, r;

    spec_write_resolved(spec, &resolved);
    without_trifles(str_get(&resolved), &now);
    if (str_failed(&resolved) || str_failed(&now)) {
        r = err_set(e, ERR_NOMEM, "job: out of memory");
        goto done;
    }
    r = inspect(f, stage, resume, &found, e);
    if (!r)
        r = found ? check_job(f, str_get(&now), e) : hash_job(f, str_get(&now), e);
    if (!r && stage && *stage)
        r = check_stage(f, stage, resume, e);
    if (!r && !found)
        r = write_job(f, spec, str_get(&resolved), e);
done:
    str_fini(&resolved);
    str_fini(&now);
    return r;
}

int folder_open(struct folder *f, const struct spec *spec, const char *out,
                const char *stage, int resume, struct err *e)
{
    char lock[FILE_PATH_MAX];
    int found, r;

    memset(f, 0, sizeof *f);
    f->run_lock = f->stage_lock = -1;
    r = out ? file_join(f->path, sizeof f->path, "", out, e)
            : default_path(f, spec, resume, e);
    if (!r && file_is_dir(f->path)) /* before even a lock is written */
        r = inspect(f, stage, resume, &found, e);
    if (!r)
        r = file_make_dirs(f->path, e);
    if (!r)
        r = file_join(lock, sizeof lock, f->path, ".lock", e);
    if (!r)
        r = take_lock(lock, stage ? LOCK_SH : LOCK_EX, resume, &f->run_lock, e);
    if (!r)
        r = claim(f, spec, stage, resume, e);
    if (r)
        folder_close(f);
    return r;
}

void folder_close(struct folder *f)
{
    if (f->run_lock >= 0)
        close(f->run_lock);
    if (f->stage_lock >= 0)
        close(f->stage_lock);
    f->run_lock = f->stage_lock = -1;
}
