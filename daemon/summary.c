/* The summary of a job that was ended: see summary.h. The folder is the user's, and what
 * lies in it may have become a link since: it is opened without following one, held to the
 * folders that jobs may use as it lies there now, and written through its descriptor. */
#include "daemon/summary.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/log.h"
#include "daemon/roots.h"

enum { BYTES_MAX = 64 << 20, FD_PATH_MAX = 64 };

/* A path that names what the descriptor is open on, whatever is renamed. */
static const char *fd_path(char out[FD_PATH_MAX], int fd, const char *name)
{
    snprintf(out, FD_PATH_MAX, "/proc/self/fd/%d%s%s", fd, *name ? "/" : "", name);
    return out;
}

/* What is there, or a new one that says nothing else. */
static int read_summary(int dir, const struct job *j, json_t **out, struct err *e)
{
    char path[FD_PATH_MAX];
    int fd = openat(dir, "summary.json", O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    int rc;

    *out = NULL;
    if (fd >= 0) {
        rc = json_read(fd_path(path, fd, ""), BYTES_MAX, out, e);
        close(fd);
        if (!rc && !json_is_object(*out)) {
            json_decref(*out);
            rc = err_set(e, ERR_CORRUPT, "not an object");
        }
        return rc;
    }
    if (errno != ENOENT)
        return err_errno(e, ERR_IO, errno, "open");
    *out = json_pack("{s:s, s:{}}", "name", j->name, "stages");
    return *out ? 0 : err_set(e, ERR_NOMEM, "out of memory");
}

static int set_state(json_t *o, const char *state, const char *message)
{
    int bad = json_object_set_new(o, "state", json_string(state));

    if (message)
        bad |= json_object_set_new(o, "message", json_string(message));
    else
        json_object_del(o, "message");
    return bad;
}

static int is_lost(const struct job_stage *s)
{
    return s->state == STAGE_FAILED || s->state == STAGE_STOPPED;
}

/* Its name within its seed's folder. */
static const char *short_name(const struct job_stage *s)
{
    const char *slash = s->seed ? strchr(s->name, '/') : NULL;

    return slash ? slash + 1 : s->name;
}

/* The folder of a seed (0: that of the job, whose stages are those without a number). */
static int write_summary(int dir, const struct job *j, unsigned seed, const char *state,
                         const char *message, struct err *e)
{
    char path[FD_PATH_MAX];
    json_t *o, *stages;
    int bad, rc = read_summary(dir, j, &o, e);

    if (rc)
        return rc;
    bad = set_state(o, state, message);
    stages = json_object_get(o, "stages");
    for (size_t i = 0; i < j->n_stages; i++) {
        const struct job_stage *s = &j->stage[i];
        json_t *of = json_object_get(stages, short_name(s));

        if (s->seed != seed || !is_lost(s) || !json_is_object(stages))
            continue;
        if (json_is_object(of)) {
            bad |= set_state(of, stage_state_name(s->state), s->message);
        } else {
            of = json_object();
            bad |= set_state(of, stage_state_name(s->state), s->message);
            bad |= json_object_set_new(stages, short_name(s), of);
        }
    }
    rc = bad ? err_set(e, ERR_NOMEM, "out of memory")
             : json_write(fd_path(path, dir, "summary.json"), o, e);
    json_decref(o);
    return rc;
}

/* -1: it is not there, or a worker has never begun with it. */
static int open_folder(int at, const char *name)
{
    int dir = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

    if (dir >= 0 && faccessat(dir, "job.resolved.yaml", F_OK, AT_SYMLINK_NOFOLLOW)) {
        close(dir);
        return -1;
    }
    return dir;
}

static int write_seeds(int run, const struct job *j, struct err *e)
{
    unsigned written = 0; /* stages stand in order of their seeds */
    int rc = 0;

    for (size_t i = 0; !rc && i < j->n_stages; i++) {
        const struct job_stage *s = &j->stage[i];
        char name[32];
        int dir;

        if (!s->seed || s->seed == written || !is_lost(s))
            continue;
        written = s->seed;
        snprintf(name, sizeof name, "seed-%u", s->seed);
        dir = open_folder(run, name);
        if (dir < 0)
            continue;
        rc = write_summary(dir, j, s->seed, stage_state_name(s->state), s->message, e);
        close(dir);
    }
    return rc;
}

void summary_end(struct daemon *d, const struct job *j)
{
    char path[FD_PATH_MAX];
    struct err e;
    int run, rc;

    if (j->attached || (j->state != JOB_FAILED && j->state != JOB_STOPPED))
        return;
    run = open_folder(AT_FDCWD, j->run);
    if (run < 0)
        return;
    rc = roots_check(d->roots, fd_path(path, run, ""), &e);
    if (!rc)
        rc = write_seeds(run, j, &e);
    if (!rc)
        rc = write_summary(run, j, 0, job_state_name(j->state), j->message, &e);
    if (rc)
        log_error("job %llu: summary.json: %s", (unsigned long long)j->id, e.msg);
    close(run);
}
