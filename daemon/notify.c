/* Notification: see notify.h. */
#include "daemon/notify.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/str.h"

extern char **environ;

static int program_path(const struct daemon *d, const char *program, char *out,
                        struct err *e)
{
    int n = snprintf(out, FILE_PATH_MAX, "%s/notify/%s", d->state, program);

    return n < FILE_PATH_MAX ? 0 : err_set(e, ERR_CONFIG, "notify: the path is too long");
}

int notify_check(const struct daemon *d, const char *program, struct err *e)
{
    char path[FILE_PATH_MAX];
    struct stat st;

    if (!*program || *program == '.' || strchr(program, '/'))
        return err_set(e, ERR_CONFIG, "notify: \"%.100s\" is no name of a program",
                       program);
    if (program_path(d, program, path, e))
        return e->code;
    if (lstat(path, &st) || !S_ISREG(st.st_mode) || access(path, X_OK)) {
        err_set(e, ERR_CONFIG, "notify: %s is no program", path);
        return err_mend(e, "the owner of honed puts programs into %s/notify", d->state);
    }
    return 0;
}

static int start(struct daemon *d, const struct job *j, const char *event, const char *text,
                 struct arena *a, struct err *e)
{
    enum { OWN = 5 };
    char path[FILE_PATH_MAX];
    struct io_command io = {.keep_fd = -1};
    size_t n = 0;
    const char **env, **argv = arena_array(a, 6, sizeof *argv);
    uint64_t child;

    while (environ[n])
        n++;
    env = arena_array(a, n + OWN + 1, sizeof *env);
    if (!env || !argv)
        return err_set(e, ERR_NOMEM, "out of memory");
    if (notify_check(d, j->notify, e) || program_path(d, j->notify, path, e))
        return e->code;
    memcpy(env, environ, n * sizeof *env);
    env[n++] = arena_printf(a, "HONE_JOB=%llu", (unsigned long long)j->id);
    env[n++] = arena_printf(a, "HONE_EVENT=%s", event);
    env[n++] = arena_printf(a, "HONE_NAME=%s", j->name);
    env[n++] = arena_printf(a, "HONE_RUN=%s", j->run);
    env[n++] = arena_printf(a, "HONE_TEXT=%s", text);
    argv[0] = path;
    argv[1] = event;
    argv[2] = arena_printf(a, "%llu", (unsigned long long)j->id);
    argv[3] = j->name;
    argv[4] = text;
    for (size_t i = 0; i < OWN; i++)
        if (!env[n - OWN + i])
            return err_set(e, ERR_NOMEM, "out of memory");
    if (!argv[2])
        return err_set(e, ERR_NOMEM, "out of memory");
    io.argv = argv;
    io.env = env;
    return d->io->ops->spawn(d->io, &io, &child, e);
}

void notify_run(struct daemon *d, const struct job *j, const char *event, const char *text)
{
    struct arena a = {0};
    struct err e;

    if (!j->notify || d->is_private)
        return;
    if (start(d, j, event, text, &a, &e))
        log_error("job %llu: %s", (unsigned long long)j->id, e.msg);
    arena_fini(&a);
}
