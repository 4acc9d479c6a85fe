/* honed: the control daemon.
 *
 *     honed [--config FILE] [--state DIR] [--listen ADDRESS]...
 *     honed token | cert | backup | verify ...             (daemon/main/commands.h)
 *     honed --state DIR --listen ADDRESS --owner FD        (started by hone run)
 *
 * One daemon per state folder: it holds DIR/lock as long as it lives. It may be ended and
 * started again at any time: its workers go on meanwhile, and it takes them up. With
 * --owner it is private: it writes one line to the descriptor once it listens, ends when
 * the other end is closed, and leaves nothing of its state folder. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/args.h"
#include "base/file.h"
#include "base/log.h"
#include "base/standard.h"
#include "base/str.h"
#include "daemon/daemon.h"
#include "daemon/gpus.h"
#include "daemon/lock.h"
#include "daemon/main/commands.h"
#include "daemon/main/config.h"
#include "daemon/main/listen.h"
#include "daemon/retain.h"
#include "daemon/roots.h"

struct options {
    const char *config, *state, *owner, *uplink, *gpus, *check_limit, *memory;
    const char *keep_jobs, *keep_days, *max_open, *max_state, *max_events;
    struct arg_list listen, root;
    int version;
};

struct server {
    struct arena arena; /* of the configuration's texts */
    char state[FILE_PATH_MAX];
    double check_limit, memory; /* memory: GiB, 0: what there is */
    struct limits limits;
    int lock, owner_fd;
    struct listening listening;
    struct auth *auth;
    struct str roots;
    struct cores gpus; /* --gpus */
    struct store *store;
    struct io *io;
    struct daemon daemon;
};

static const struct arg_flag flags[] = {
    ARG_VALUE("--config", "FILE",
              "these flags as YAML, keep_jobs: 500 say; what stands here wins (default: "
              "~/.config/hone/honed.yaml, if it is there)",
              struct options, config),
    ARG_VALUE("--state", "DIR", "folder of the daemon's state", struct options, state),
    ARG_LIST("--listen", "ADDRESS",
             "unix:PATH (default: unix:STATE/socket), tcp:HOST:PORT, https:HOST:PORT, "
             "http:HOST:PORT (repeatable)",
             struct options, listen),
    ARG_LIST("--root", "DIR",
             "a folder that jobs may use, and no other (repeatable; default: whatever "
             "honed's user may)",
             struct options, root),
    ARG_VALUE("--gpus", "LIST",
              "GPUs to give away, as nvidia-smi numbers them, or none (default: those it "
              "sees)",
              struct options, gpus),
    ARG_VALUE("--check-limit", "SECONDS",
              "how long judging a submitted job may take (default: 900)", struct options,
              check_limit),
    ARG_VALUE("--memory", "GIB",
              "what jobs may use together (default: what the machine or the control group "
              "has)",
              struct options, memory),
    ARG_VALUE("--uplink", "HOST:PORT",
              "where workers on other hosts reach this daemon (with --listen tcp:...)",
              struct options, uplink),
    ARG_VALUE("--keep-jobs", "N",
              "jobs that have ended: the newest N are kept, 0: all (default: 10000)",
              struct options, keep_jobs),
    ARG_VALUE("--keep-days", "DAYS", "... and for so long, 0: for ever (default: 0)",
              struct options, keep_days),
    ARG_VALUE("--max-open", "N",
              "jobs of one owner that have not ended, 0: any number (default: 10000)",
              struct options, max_open),
    ARG_VALUE(
        "--max-state", "MIB",
        "size of the state folder above which submits are refused, 0: any (default: 0)",
        struct options, max_state),
    ARG_VALUE("--max-events", "MIB",
              "events kept of one job, the oldest go first, 0: all (default: 16)",
              struct options, max_events),
    ARG_VALUE("--owner", "FD", "private: end when this descriptor's peer has gone",
              struct options, owner),
    ARG_SWITCH("--version", "print the version", struct options, version),
    ARG_END};

static const struct arg_spec spec = {
    "honed",
    "[--state DIR] [--listen ADDRESS]... | token | cert | backup | verify ...",
    "The daemon: queues jobs, schedules their stages, starts workers, streams metrics.\n\n"
    "  honed token --help   tokens that let people in over the network\n"
    "  honed backup FILE    copies the jobs of a daemon, while it runs\n"
    "  honed verify         checks the file with a daemon's jobs\n"
    "  honed cert --help    certificates for TLS, which TCP always has",
    flags,
    0,
    0,
    0};

int state_folder(const char *state, char *out, size_t n, struct err *e)
{
    const char *base = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    int rc;

    if (state)
        return snprintf(out, n, "%s", state) >= (int)n
                   ? err_set(e, ERR_USAGE, "--state: the path is too long")
                   : 0;
    rc = config_state(out, n, e);
    if (rc)
        return rc < 0 ? rc : 0;
    if (base && base[0] == '/')
        return file_join(out, n, base, "hone", e);
    if (home && home[0] == '/')
        return file_join(out, n, home, ".local/state/hone", e);
    err_set(e, ERR_USAGE, "no folder for the state: HOME is not set");
    return err_mend(e, "honed --state DIR");
}

/* Workers elsewhere dial it as a client would: it must be one of ours. */
static int check_uplink(const struct options *o, struct err *e)
{
    struct address a;
    int tcp = 0, rc = o->uplink ? address_parse(o->uplink, &a, e) : 0;

    if (rc)
        return err_wrap(e, "--uplink");
    for (int i = 0; i < o->listen.n; i++)
        tcp |= str_starts(o->listen.item[i], "tcp:");
    if (o->uplink && (a.kind != ADDRESS_TCP || !tcp)) {
        err_set(e, ERR_USAGE, "--uplink %.200s: honed does not listen on TCP", o->uplink);
        return err_mend(e, "--listen tcp:0.0.0.0:PORT --uplink HOST:PORT");
    }
    return 0;
}

static int resolve_limits(struct limits *l, const struct options *o, struct err *e)
{
    const double most = 1e12;
    double days = 0;
    const struct {
        const char *flag, *text;
        uint64_t *out;
        uint64_t unit;
    } count[] = {{"--keep-jobs", o->keep_jobs, &l->keep_jobs, 1},
                 {"--max-open", o->max_open, &l->open_jobs, 1},
                 {"--max-state", o->max_state, &l->state_bytes, 1 << 20},
                 {"--max-events", o->max_events, &l->event_bytes, 1 << 20}};
    int rc = args_double("--keep-days", o->keep_days, 0, 1e6, &days, e);

    retain_defaults(l);
    l->keep_seconds = days * 86400;
    for (size_t i = 0; !rc && i < sizeof count / sizeof *count; i++) {
        double n = 0;

        rc = count[i].text ? args_double(count[i].flag, count[i].text, 0, most, &n, e) : 0;
        if (!rc && count[i].text)
            *count[i].out = (uint64_t)(n * (double)count[i].unit);
    }
    return rc;
}

static int resolve(struct server *s, const struct options *o, struct err *e)
{
    long fd = -1;
    int rc;

    rc = state_folder(o->state, s->state, sizeof s->state, e);
    if (!rc)
        rc = check_uplink(o, e);
    if (!rc)
        rc = args_long("--owner", o->owner, 3, 1 << 20, &fd, e);
    if (!rc && o->gpus)
        rc = gpus_parse(o->gpus, &s->gpus, e);
    if (!rc)
        rc = args_double("--memory", o->memory, 1e-3, 1e6, &s->memory, e);
    if (!rc)
        rc = args_double("--check-limit", o->check_limit, 1e-3, 1e9, &s->check_limit, e);
    if (!rc)
        rc = resolve_limits(&s->limits, o, e);
    if (rc)
        return rc;
    s->owner_fd = (int)fd;
    if (fd >= 0 && fcntl(s->owner_fd, F_SETFD, FD_CLOEXEC)) /* not for workers */
        return err_errno(e, ERR_USAGE, errno, "--owner %ld", fd);
    return 0;
}

static int take_state(struct server *s, struct err *e)
{
    char path[FILE_PATH_MAX];
    long holder;
    int rc = file_make_dirs(s->state, e);

    if (!rc)
        rc = file_join(path, sizeof path, s->state, "lock", e);
    if (!rc)
        rc = lock_try(path, &s->lock, &holder, e);
    if (rc > 0) {
        err_set(e, ERR_CONFIG, "%s belongs to another honed (process %ld)", s->state,
                holder);
        return err_mend(e, "choose another folder with --state");
    }
    return rc;
}

static int start(struct server *s, const struct options *o, struct err *e)
{
    int rc = take_state(s, e);

    if (!rc)
        rc = store_open(&s->store, s->state,
                        s->owner_fd >= 0 ? STORE_EPHEMERAL : STORE_DURABLE, e);
    if (!rc)
        rc = auth_open(&s->auth, s->state, e);
    if (!rc)
        rc = roots_open(&o->root, &s->roots, e);
    if (!rc)
        rc = listen_open(&s->listening, s->state, &o->listen, s->auth, e);
    if (rc)
        return rc;
    rc = io_uv_open(&s->io, s->listening.unix_fd, s->owner_fd, e);
    if (rc)
        return rc;
    daemon_init(&s->daemon, s->io, s->store, s->state, s->listening.address,
                s->owner_fd >= 0);
    s->daemon.check_limit = s->check_limit;
    s->daemon.limits = s->limits;
    s->daemon.auth = s->auth;
    s->daemon.far = o->uplink;
    if (s->memory > 0)
        s->daemon.resources.memory = (uint64_t)(s->memory * (1 << 30));
    s->daemon.roots = s->roots.len ? s->roots.s : NULL;
    if (o->gpus)
        s->daemon.resources.gpus = s->gpus;
    rc = listen_start(&s->listening, s->io, e);
    if (!rc)
        rc = launch_find("hone-worker", s->daemon.worker, sizeof s->daemon.worker, e);
    if (!rc && launch_find("hone", s->daemon.hone, sizeof s->daemon.hone, e))
        s->daemon.hone[0] = '\0';
    if (!rc)
        rc = daemon_recover(&s->daemon, e);
    if (!rc && s->owner_fd < 0)
        log_info("honed %s is ready at %s", HONE_VERSION, s->listening.address);
    if (!rc && s->owner_fd >= 0 && write(s->owner_fd, "ready\n", 6) != 6)
        rc = err_errno(e, ERR_FAILED, errno, "tell the owner");
    return rc;
}

/* Remove what we made in a private state folder, and the folder if nothing else is in it.
 */
static void remove_state(const struct server *s)
{
    static const char *const ours[] = {"jobs.db", "jobs.db-wal", "jobs.db-shm", "lock"};
    char path[FILE_PATH_MAX];
    struct err e;

    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        if (!file_join(path, sizeof path, s->state, ours[i], &e))
            unlink(path);
    if (!file_join(path, sizeof path, s->state, "events", &e))
        file_remove_tree(path, &e);
    rmdir(s->state);
}

static void stop(struct server *s)
{
    daemon_fini(&s->daemon);
    io_uv_close(s->io);
    store_close(s->store);
    listen_close(&s->listening);
    auth_close(s->auth);
    str_fini(&s->roots);
    arena_fini(&s->arena);
    if (s->owner_fd >= 0 && s->lock >= 0)
        remove_state(s);
    if (s->lock >= 0)
        close(s->lock);
}

static const struct {
    const char *name;
    int (*run)(int argc, char **argv, struct err *e);
} commands[] = {{"token", token_main},
                {"cert", cert_main},
                {"backup", backup_main},
                {"verify", verify_main}};

static int find_command(const char *name)
{
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (!strcmp(name, commands[i].name))
            return (int)i;
    return -1;
}

/* -1: it is none of the commands. */
static int command(int argc, char **argv)
{
    struct err e;
    int rc, i;

    args_swap_complete(argc, argv, argc > 2 && find_command(argv[2]) >= 0);
    i = argc > 1 ? find_command(argv[1]) : -1;
    if (i < 0)
        return -1;
    rc = commands[i].run(argc - 1, argv + 1, &e);
    if (rc < 0)
        err_print(&e, "hone");
    return standard_close("honed", rc < 0 ? err_exit_status(rc) : 0);
}

int main(int argc, char **argv)
{
    static struct server s = {.check_limit = CHECK_LIMIT,
                              .lock = -1,
                              .owner_fd = -1,
                              .listening = {.unix_fd = -1}};
    struct options o = {0};
    struct err e;
    int rc;

    standard_open();
    rc = command(argc, argv);
    if (rc >= 0)
        return rc;
    rc = args_parse(&spec, argc, argv, &o, &e);
    if (rc == ARGS_HELP)
        return standard_close("honed", 0);
    if (!rc && !o.owner) /* one of hone run is as its user's flags say */
        rc = config_read(&spec, o.config, &o, &s.arena, &e);
    if (!rc && o.version) {
        printf("honed %s\n", HONE_VERSION);
        return standard_close("honed", 0);
    }
    signal(SIGPIPE, SIG_IGN);
    if (!rc)
        rc = resolve(&s, &o, &e);
    if (!rc && s.owner_fd >= 0)
        log_set_level(LOG_WARN);
    if (!rc)
        rc = start(&s, &o, &e);
    if (rc)
        err_print(&e, "hone");
    else
        io_uv_run(s.io);
    stop(&s);
    return err_exit_status(rc);
}
