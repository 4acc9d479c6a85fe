/* The local back end: one hone-worker on this machine, started directly. */
#include <string.h>

#include "base/str.h"
#include "launcher/backend/launch.h"

extern char **environ;

enum { OWN_NAMES = 11 };

/* Does one of the n "NAME=VALUE" in `list` set the variable of `entry`? */
static int is_set(const char *const *list, size_t n, const char *entry)
{
    size_t len = strcspn(entry, "=") + 1;

    for (size_t i = 0; i < n; i++)
        if (!strncmp(list[i], entry, len))
            return 1;
    return 0;
}

/* Which GPUs a process sees. */
static int is_choice(const char *entry)
{
    return str_starts(entry, "CUDA_VISIBLE_DEVICES=") ||
           str_starts(entry, "CUDA_DEVICE_ORDER=");
}

/* The environment without older HONE_UPLINK variables (where we choose GPUs: and without
 * that choice), then the m of `extra`, with room for `more`. */
static const char **inherit(struct arena *a, const char *const *extra, size_t m, int choose,
                            size_t more, size_t *n)
{
    size_t count = 0;
    const char **env;

    while (environ[count])
        count++;
    env = arena_array(a, count + m + more + 1, sizeof *env);
    *n = 0;
    for (size_t i = 0; env && i < count; i++)
        if (!str_starts(environ[i], "HONE_UPLINK") && !is_set(extra, m, environ[i]) &&
            !(choose && is_choice(environ[i])))
            env[(*n)++] = environ[i];
    for (size_t i = 0; env && i < m; i++)
        env[(*n)++] = extra[i];
    return env;
}

static int finish(const char **argv, size_t n_argv, const char **env, size_t n_env,
                  struct launch_command *out, struct err *e)
{
    for (size_t i = 0; i < n_argv; i++)
        if (!argv[i])
            return err_set(e, ERR_NOMEM, "start a worker: out of memory");
    for (size_t i = 0; i < n_env; i++)
        if (!env[i])
            return err_set(e, ERR_NOMEM, "start a worker: out of memory");
    out->argv = argv;
    out->env = env;
    return 0;
}

int launch_worker(const struct launch_request *r, const char *const *before,
                  size_t n_before, const char *const *extra, size_t n_extra,
                  struct arena *a, struct launch_command *out, struct err *e)
{
    size_t n_env, n = 0;
    const char **env = inherit(a, extra, n_extra, r->gpus != NULL, OWN_NAMES, &n_env);
    const char **argv = arena_array(a, n_before + 7 + 2 * r->n_set + 1, sizeof *argv);

    if (!env || !argv)
        return err_set(e, ERR_NOMEM, "start a worker: out of memory");
    for (size_t i = 0; i < n_before; i++)
        argv[n++] = before[i];
    argv[n++] = r->worker;
    argv[n++] = r->file;
    if (r->stage) {
        argv[n++] = "--stage";
        argv[n++] = r->stage;
    }
    argv[n++] = "--out";
    argv[n++] = r->run;
    if (r->resume)
        argv[n++] = "--resume";
    for (size_t i = 0; i < r->n_set; i++) {
        argv[n++] = "--set";
        argv[n++] = r->set[i];
    }
    env[n_env++] = arena_printf(a, "HONE_UPLINK=%s", r->uplink);
    env[n_env++] = arena_printf(a, "HONE_UPLINK_TOKEN=%s", r->token);
    env[n_env++] = arena_printf(a, "HONE_UPLINK_JOB=%llu", r->job);
    env[n_env++] = arena_printf(a, "HONE_UPLINK_ATTEMPT=%u", r->attempt);
    if (r->far)
        env[n_env++] = arena_printf(a, "HONE_UPLINK_FAR=%s", r->far);
    if (r->far && r->authority)
        env[n_env++] = arena_printf(a, "HONE_UPLINK_AUTHORITY=%s", r->authority);
    if (r->status)
        env[n_env++] = arena_printf(a, "HONE_UPLINK_STATUS=%s", r->status);
    if (r->gpus) {
        env[n_env++] = arena_printf(a, "CUDA_VISIBLE_DEVICES=%s", r->gpus);
        env[n_env++] = "CUDA_DEVICE_ORDER=PCI_BUS_ID";
    }
    if (r->memory)
        env[n_env++] = arena_printf(a, "HONE_LIMIT_MEMORY=%llu", r->memory);
    if (r->orphan_stop)
        env[n_env++] = "HONE_UPLINK_ORPHAN=stop";
    return finish(argv, n, env, n_env, out, e);
}

static int local_command(const struct launch_request *r, struct arena *a,
                         struct launch_command *out, struct err *e)
{
    return launch_worker(r, NULL, 0, NULL, 0, a, out, e);
}

const struct launch_backend launch_local = {"local", local_command};

int launch_check(const char *worker, const char *file, const char *const *set, size_t n_set,
                 int brief, struct arena *a, struct launch_command *out, struct err *e)
{
    size_t n_env, n = 0;
    const char **env = inherit(a, NULL, 0, 0, 0, &n_env);
    const char **argv = arena_array(a, 5 + 2 * n_set + 1, sizeof *argv);

    if (!env || !argv)
        return err_set(e, ERR_NOMEM, "start a worker: out of memory");
    argv[n++] = worker;
    argv[n++] = "check";
    argv[n++] = file;
    argv[n++] = "--json";
    if (brief)
        argv[n++] = "--brief";
    for (size_t i = 0; i < n_set; i++) {
        argv[n++] = "--set";
        argv[n++] = set[i];
    }
    return finish(argv, n, env, n_env, out, e);
}
