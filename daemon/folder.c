/* Run folders: see folder.h. A folder holds a run when it has one of the files that every
 * run leaves. */
#include "daemon/folder.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "daemon/lock.h"

enum { RUNS_MAX = 1000000 };

/* A job's name as part of a file name. */
static void safe_name(const char *name, char *out, size_t n)
{
    size_t i = 0;

    for (; name[i] && i + 1 < n; i++) {
        unsigned char c = (unsigned char)name[i];

        out[i] = c <= ' ' || c == '/' || c == 0x7f || (c == '.' && i == 0) ? '_' : (char)c;
    }
    out[i] = '\0';
}

/* The highest n among the entries "<name>-<n>". */
static int highest(const char *runs, const char *name, long *n, struct err *e)
{
    size_t count, len = strlen(name);
    char **entry;
    int rc;

    *n = 0;
    if (!file_exists(runs))
        return 0;
    rc = file_list(runs, &entry, &count, e);
    if (rc)
        return rc;
    for (size_t i = 0; i < count; i++) {
        long k;

        if (str_starts(entry[i], name) && entry[i][len] == '-' &&
            !str_to_long(entry[i] + len + 1, &k) && k > *n && k < RUNS_MAX)
            *n = k;
        mem_free(entry[i]);
    }
    mem_free(entry);
    return 0;
}

/* ---- the newest numbers ---- */

static int changed_at(const char *folder, struct timespec *t)
{
    struct stat st;

    if (stat(folder, &st))
        return 0;
    *t = st.st_mtim;
    return 1;
}

static int same_time(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

void folder_forget(struct folder_hints *h)
{
    for (int i = 0; i < FOLDER_HINTS; i++)
        mem_free(h->item[i].runs);
    memset(h, 0, sizeof *h);
}

/* The newest number, by what we know or by looking. */
static int newest(const struct folder_hints *h, const char *runs, const char *name, long *k,
                  struct err *e)
{
    struct timespec now;

    if (!changed_at(runs, &now))
        return highest(runs, name, k, e);
    for (int i = 0; i < FOLDER_HINTS; i++) {
        const struct folder_hint *f = &h->item[i];

        if (f->runs && !strcmp(f->runs, runs) && !strcmp(f->name, name) &&
            same_time(&f->changed, &now)) {
            *k = f->newest;
            return 0;
        }
    }
    return highest(runs, name, k, e);
}

/* We have made runs/name-k; until then the folder had been changed at `before` last. */
static void note_newest(struct folder_hints *h, const char *runs, const char *name, long k,
                        const struct timespec *before)
{
    struct folder_hint *mine = NULL;
    struct timespec now;

    if (!changed_at(runs, &now))
        return;
    for (int i = 0; i < FOLDER_HINTS; i++) {
        struct folder_hint *f = &h->item[i];

        if (!f->runs || strcmp(f->runs, runs))
            continue;
        if (same_time(&f->changed, before))
            f->changed = now; /* for other names it is as it was */
        if (!strcmp(f->name, name))
            mine = f;
    }
    if (!mine) {
        mine = &h->item[h->next++ % FOLDER_HINTS];
        mem_free(mine->runs);
        mine->runs = mem_strdup(runs); /* NULL: it is none */
        snprintf(mine->name, sizeof mine->name, "%s", name);
    }
    mine->newest = k;
    mine->changed = now;
}

/* runs/name-k, or the next that is free; with `resume` one that is there will do. */
static int take(const char *runs, const char *name, int resume, long *k, char *out,
                size_t n, int *made, struct err *e)
{
    for (;; ++*k) {
        if (snprintf(out, n, "%s/%s-%ld", runs, name, *k) >= (int)n)
            return err_set(e, ERR_CONFIG, "%s: the path is too long", runs);
        if (resume && file_is_dir(out))
            return 0;
        *made = !mkdir(out, 0777);
        if (*made)
            return 0;
        if (errno != EEXIST) {
            err_errno(e, ERR_CONFIG, errno, "create %s", out);
            return err_mend(e, "choose a folder with --out");
        }
    }
}

int folder_choose(struct folder_hints *h, const char *file, const char *name, int resume,
                  char *out, size_t n, int *made, struct err *e)
{
    char runs[FILE_PATH_MAX], safe[FOLDER_NAME_MAX];
    struct timespec before = {0};
    long k;
    int rc;

    *made = 0;
    file_dirname(out, n, file);
    rc = file_join(runs, sizeof runs, out, "runs", e);
    safe_name(name, safe, sizeof safe);
    if (!rc)
        rc = newest(h, runs, safe, &k, e);
    if (rc)
        return rc;
    if (!(resume && k)) {
        rc = file_make_dirs(runs, e);
        if (rc) {
            char mend[] = "choose a folder with --out";

            return err_mend(e, "%s", mend);
        }
        k++;
    }
    changed_at(runs, &before);
    rc = take(runs, safe, resume, &k, out, n, made, e);
    if (!rc && *made)
        note_newest(h, runs, safe, k, &before);
    return rc;
}

static int holds_run(const char *path)
{
    static const char *const sign[] = {"job.yaml", "job.resolved.yaml", "summary.json",
                                       ".hone"};
    char name[FILE_PATH_MAX];
    struct err e;

    for (size_t i = 0; i < sizeof sign / sizeof *sign; i++)
        if (!file_join(name, sizeof name, path, sign[i], &e) && file_exists(name))
            return 1;
    return 0;
}

/* Files of somebody else are not written among: hidden ones alone are tolerated. */
static int check_empty(const char *path, struct err *e)
{
    char **entry;
    size_t n;
    int rc = file_list(path, &entry, &n, e);

    if (rc)
        return rc;
    for (size_t i = 0; i < n; i++) {
        if (!rc && *entry[i] != '.') {
            err_set(e, ERR_CONFIG, "--out: %s is not empty: it holds %s", path, entry[i]);
            rc = err_mend(e, "choose another folder");
        }
        mem_free(entry[i]);
    }
    mem_free(entry);
    return rc;
}

int folder_claim(const char *path, int resume, int *made, struct err *e)
{
    int rc;

    *made = !file_exists(path);
    if (*made) {
        rc = file_make_dirs(path, e);
        return rc ? err_wrap(e, "--out") : 0;
    }
    if (!file_is_dir(path))
        return err_set(e, ERR_CONFIG, "--out: %s is not a folder", path);
    if (access(path, W_OK | X_OK))
        return err_errno(e, ERR_CONFIG, errno, "--out: %s", path);
    if (!resume && holds_run(path)) {
        err_set(e, ERR_CONFIG, "--out: %s holds another run", path);
        return err_mend(e, "add --resume to go on with it, or choose another folder");
    }
    return holds_run(path) ? 0 : check_empty(path, e);
}

int folder_has_stage(const char *run, const char *stage)
{
    char path[FILE_PATH_MAX];

    return snprintf(path, sizeof path, "%s/%s/final", run, stage) < (int)sizeof path &&
           file_is_dir(path);
}

int folder_lock(const char *run, int *fd, long *holder, struct err *e)
{
    char path[FILE_PATH_MAX];
    int rc = file_join(path, sizeof path, run, ".hone", e);

    *fd = -1;
    if (!rc)
        rc = file_make_dirs(path, e);
    if (!rc)
        rc = file_join(path, sizeof path, run, ".hone/lock", e);
    return rc ? rc : lock_try(path, fd, holder, e);
}

void folder_release(const char *run, int made)
{
    char path[FILE_PATH_MAX];
    struct err e;

    if (!made)
        return;
    if (!file_join(path, sizeof path, run, ".hone", &e))
        file_remove_tree(path, &e);
    rmdir(run);
}
