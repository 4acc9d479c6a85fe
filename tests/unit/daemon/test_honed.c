/* The real hone and honed with a stand-in for hone-worker: this program itself, linked as
 * `hone-worker` beside copies of the two. The control plane is tested without an engine:
 * order of stages, exit statuses, and what is left when any of the processes is killed.
 *
 * The stand-in's `check JOB` prints the job file, which is its verdict; a stage does what
 * `--set <stage>=<steps>:<milliseconds>:<end>` says, end being an exit status, or "hang"
 * (it ignores every word), or "kill" (SIGKILL to itself after its steps). It leaves
 * RUN/<stage>.began (its process id), and RUN/<stage>.saved when it was stopped. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "worker/link/link.h"

static const char verdict[] =
    "{\"problems\": [], \"plan\": {\"name\": \"toy\", \"workers\": 1, \"threads\": 0, "
    "\"stages\": [{\"name\": \"ppo\", \"needs\": [\"sft\", \"rm\"], \"steps\": 3}, "
    "{\"name\": \"sft\", \"needs\": []}, {\"name\": \"rm\", \"needs\": [\"sft\"]}]}}\n";

/* ---- the stand-in ---- */

static volatile sig_atomic_t told_to_stop;

static void on_term(int sig)
{
    (void)sig;
    told_to_stop = 1;
}

static int print_file(const char *path)
{
    char *text;
    size_t n;
    struct err e;

    if (file_read(path, 1 << 20, &text, &n, &e))
        return 1;
    fwrite(text, 1, n, stdout);
    mem_free(text);
    return strstr(path, "bad") ? 2 : 0;
}

static void leave(const char *run, const char *stage, const char *what)
{
    char path[FILE_PATH_MAX], pid[32];
    struct err e;

    snprintf(path, sizeof path, "%s/%s.%s", run, stage, what);
    snprintf(pid, sizeof pid, "%ld", (long)getpid());
    if (file_write_atomic(path, pid, strlen(pid), &e))
        exit(9);
}

static int stand_in_stage(const char *run, const char *stage, long steps, long ms,
                          const char *end)
{
    struct link_hello hello = {.stage = stage, .rank = 0, .world = 1};
    struct link *l;
    struct err e;
    int hang = !strcmp(end, "hang"), status = atoi(end);

    signal(SIGTERM, on_term);
    if (link_hello_env(&hello, &e) || link_open(&l, &hello, &e))
        return 8;
    leave(run, stage, "began");
    for (long i = 0; i < steps; i++) {
        enum link_control word = link_control(l);
        char json[64];

        if (!hang && (word == CONTROL_STOP || told_to_stop)) {
            leave(run, stage, "saved");
            link_done(l, 3, "stopped on request");
            link_close(l);
            return 3;
        }
        snprintf(json, sizeof json, "{\"step\": %ld, \"split\": \"train\"}", i + 1);
        link_metric(l, json);
        link_progress(l, "train", i + 1, steps, "{\"loss\": 0.5}");
        usleep((useconds_t)ms * 1000);
    }
    if (!strcmp(end, "kill"))
        raise(SIGKILL);
    leave(run, stage, "done");
    link_done(l, status, status ? "it went wrong\n  try: the mend" : "");
    link_close(l);
    return status;
}

static int stand_in(int argc, char **argv)
{
    const char *stage = NULL, *run = NULL, *set = "3:1:0";
    char end[16] = "0";
    long steps = 3, ms = 1;

    if (argc > 2 && !strcmp(argv[1], "check"))
        return print_file(argv[2]);
    for (int i = 2; i + 1 < argc; i++) {
        if (!strcmp(argv[i], "--stage"))
            stage = argv[i + 1];
        if (!strcmp(argv[i], "--out"))
            run = argv[i + 1];
        if (!strcmp(argv[i], "--set") && stage && str_starts(argv[i + 1], stage) &&
            argv[i + 1][strlen(stage)] == '=')
            set = argv[i + 1] + strlen(stage) + 1;
    }
    if (!stage || !run || sscanf(set, "%ld:%ld:%15s", &steps, &ms, end) != 3)
        return 7;
    return stand_in_stage(run, stage, steps, ms, end);
}

/* ---- running hone ---- */

struct rig {
    char dir[64]; /* hone, honed, hone-worker; job.yaml; run */
    char out[4 << 10], err[8 << 10];
};

static void path_in(const struct rig *r, const char *name, char *out)
{
    struct err e;

    assert_int_equal(file_join(out, FILE_PATH_MAX, r->dir, name, &e), 0);
}

static void write_text(const struct rig *r, const char *name, const char *text)
{
    char path[FILE_PATH_MAX];
    struct err e;

    path_in(r, name, path);
    assert_int_equal(file_write_atomic(path, text, strlen(text), &e), 0);
}

static void copy_program(const struct rig *r, const char *name)
{
    char from[FILE_PATH_MAX], to[FILE_PATH_MAX];
    const char *bin = getenv("HONE_BIN");
    struct err e;

    assert_int_equal(file_join(from, sizeof from, bin, name, &e), 0);
    path_in(r, name, to);
    assert_int_equal(file_copy(from, to, &e), 0);
    assert_int_equal(chmod(to, 0755), 0);
}

static int set_up(void **state)
{
    struct rig *r = calloc(1, sizeof *r);
    char self[FILE_PATH_MAX] = "", link[FILE_PATH_MAX];

    snprintf(r->dir, sizeof r->dir, "%s/hone-test-XXXXXX", "/tmp");
    if (!mkdtemp(r->dir) || readlink("/proc/self/exe", self, sizeof self - 1) < 0)
        return -1;
    copy_program(r, "hone");
    copy_program(r, "honed");
    path_in(r, "hone-worker", link);
    if (symlink(self, link))
        return -1;
    write_text(r, "job.yaml", verdict);
    setenv("TMPDIR", r->dir, 1);
    unsetenv("XDG_RUNTIME_DIR");
    *state = r;
    return 0;
}

static int tear_down(void **state)
{
    struct rig *r = *state;
    struct err e;

    file_remove_tree(r->dir, &e);
    free(r);
    return 0;
}

static void redirect(const struct rig *r, const char *name, int fd)
{
    char path[FILE_PATH_MAX];
    int to;

    snprintf(path, sizeof path, "%s/%s", r->dir, name);
    to = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (to < 0 || dup2(to, fd) < 0)
        _exit(99);
}

/* hone run DIR/job.yaml --out DIR/run ARGS... in the background. */
static pid_t start(const struct rig *r, const char *job, const char *const *args)
{
    char program[FILE_PATH_MAX], file[FILE_PATH_MAX], out[FILE_PATH_MAX];
    const char *argv[32] = {program, "run", file, "--out", out};
    int n = 5;
    pid_t pid;

    path_in(r, "hone", program);
    path_in(r, job, file);
    path_in(r, "run", out);
    while (args && *args)
        argv[n++] = *args++;
    argv[n] = NULL;
    pid = fork();
    assert_true(pid >= 0);
    if (pid)
        return pid;
    redirect(r, "stdout", 1);
    redirect(r, "stderr", 2);
    execv(program, (char **)(uintptr_t)argv);
    _exit(99);
}

static void read_text(const struct rig *r, const char *name, char *out, size_t n)
{
    char path[FILE_PATH_MAX], *text;
    size_t len;
    struct err e;

    path_in(r, name, path);
    assert_int_equal(file_read(path, 1 << 20, &text, &len, &e), 0);
    snprintf(out, n, "%s", text);
    mem_free(text);
}

static int finish(struct rig *r, pid_t pid)
{
    int status;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    read_text(r, "stdout", r->out, sizeof r->out);
    read_text(r, "stderr", r->err, sizeof r->err);
    assert_null(strstr(r->err, "Sanitizer")); /* of honed, whose status nobody sees */
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int is_there(const struct rig *r, const char *name)
{
    char path[FILE_PATH_MAX];

    path_in(r, name, path);
    return file_exists(path);
}

/* Wait for a file at most `seconds`. */
static int await(const struct rig *r, const char *name, double seconds)
{
    double until = clock_now() + seconds;

    while (!is_there(r, name) && clock_now() < until)
        usleep(2000);
    return is_there(r, name);
}

static pid_t worker_of(const struct rig *r, const char *stage)
{
    char name[64], text[32];
    long pid;

    snprintf(name, sizeof name, "run/%s.began", stage);
    assert_true(await(r, name, 10));
    read_text(r, name, text, sizeof text);
    assert_int_equal(str_to_long(text, &pid), 0);
    return (pid_t)pid;
}

static pid_t parent_of(pid_t pid)
{
    char path[64], line[512] = "";
    int parent = 0;
    FILE *f;

    snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
    f = fopen(path, "r");
    assert_non_null(f);
    assert_non_null(fgets(line, sizeof line, f));
    fclose(f);
    assert_int_equal(sscanf(strrchr(line, ')') + 1, " %*c %d", &parent), 1);
    return parent;
}

/* Gone, or a zombie that nobody here can wait for. */
static int has_ended(pid_t pid)
{
    char path[64], line[512] = "";
    FILE *f;

    snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
    f = fopen(path, "r");
    if (!f)
        return 1;
    if (!fgets(line, sizeof line, f))
        line[0] = '\0';
    fclose(f);
    return !line[0] || strrchr(line, ')')[2] == 'Z';
}

static int await_end(pid_t pid, double seconds)
{
    double until = clock_now() + seconds;

    while (!has_ended(pid) && clock_now() < until)
        usleep(2000);
    return has_ended(pid);
}

/* No private folder of honed's is left. */
static void assert_tidy(const struct rig *r)
{
    char **names;
    size_t n;
    struct err e;

    assert_int_equal(file_list(r->dir, &names, &n, &e), 0);
    for (size_t i = 0; i < n; i++) {
        assert_true(!str_starts(names[i], "hone-") || !strcmp(names[i], "hone-worker"));
        mem_free(names[i]);
    }
    mem_free(names);
}

#define assert_says(text, part)                                                            \
    do {                                                                                   \
        if (!strstr(text, part))                                                           \
            fail_msg("\"%s\" is not in:\n%s", part, text);                                 \
    } while (0)

static const char *const long_sft[] = {"--set", "sft=100000:5:0", NULL};

/* ---- tests ---- */

static double made_at(const struct rig *r, const char *name)
{
    char path[FILE_PATH_MAX];
    struct stat st;

    path_in(r, name, path);
    assert_int_equal(stat(path, &st), 0);
    return (double)st.st_mtim.tv_sec + 1e-9 * (double)st.st_mtim.tv_nsec;
}

static void test_stages_follow_their_needs(void **state)
{
    struct rig *r = *state;
    int status;

    status = finish(r, start(r, "job.yaml", NULL));
    /* The stand-in leaves no summary.json: everything went well up to the report. */
    assert_int_equal(status, 2);
    assert_says(r->err, "there is no summary.json");
    assert_true(is_there(r, "run/ppo.done"));
    assert_true(made_at(r, "run/sft.done") <= made_at(r, "run/rm.began"));
    assert_true(made_at(r, "run/rm.done") <= made_at(r, "run/ppo.began"));
    assert_says(r->err, "sft: started");
    assert_says(r->err, "done in");
    assert_tidy(r);
}

static void test_selected_stages_and_json(void **state)
{
    static const char *const args[] = {"--stages", "sft", "--json", NULL};
    static const char *const lonely[] = {"--stages", "rm", NULL};
    struct rig *r = *state;

    assert_int_equal(finish(r, start(r, "job.yaml", lonely)), 2);
    assert_says(r->err, "needed is also sft");
    assert_false(is_there(r, "run"));
    finish(r, start(r, "job.yaml", args));
    assert_true(is_there(r, "run/sft.done"));
    assert_false(is_there(r, "run/rm.began"));
    assert_says(r->out, "{\"event\": \"job\"");
    assert_says(r->out, "\"event\": \"metric\"");
    assert_says(r->out, "\"data\": {\"step\": 3, \"split\": \"train\"}");
    assert_says(r->out, "\"state\": \"done\"");
}

static void test_unknown_stage(void **state)
{
    static const char *const args[] = {"--stages", "stf", NULL};
    struct rig *r = *state;

    assert_int_equal(finish(r, start(r, "job.yaml", args)), 2);
    assert_says(r->err, "the job has no stage \"stf\"");
    assert_says(r->err, "try: did you mean sft?");
    assert_false(is_there(r, "run"));
    assert_tidy(r);
}

static void test_problems_start_nothing(void **state)
{
    struct rig *r = *state;

    write_text(r, "bad.yaml",
               "{\"problems\": [{\"where\": \"bad.yaml:2:3\", \"message\": \"unknown key "
               "\\\"epoch\\\"\", \"mend\": \"did you mean \\\"epochs\\\"?\"}, "
               "{\"where\": \"\", \"message\": \"no labels\"}], \"plan\": null}");
    assert_int_equal(finish(r, start(r, "bad.yaml", NULL)), 2);
    assert_says(r->err, "hone: bad.yaml:2:3: unknown key \"epoch\"\n  try: did you mean "
                        "\"epochs\"?\nhone: no labels\n");
    assert_false(is_there(r, "run"));
    assert_tidy(r);
}

static void test_missing_job(void **state)
{
    struct rig *r = *state;

    assert_int_equal(finish(r, start(r, "nothing.yaml", NULL)), 2);
    assert_says(r->err, "nothing.yaml: No such file or directory");
    assert_false(is_there(r, "run"));
}

static void test_failure_is_told(void **state)
{
    static const char *const args[] = {"--set", "rm=2:1:1", NULL};
    struct rig *r = *state;

    assert_int_equal(finish(r, start(r, "job.yaml", args)), 1);
    assert_says(r->err, "hone: stage rm: it went wrong\n  try: the mend");
    assert_true(is_there(r, "run/sft.done"));
    assert_false(is_there(r, "run/ppo.began"));
}

static void test_worker_killed(void **state)
{
    struct rig *r = *state;
    pid_t hone = start(r, "job.yaml", long_sft);

    assert_int_equal(kill(worker_of(r, "sft"), SIGKILL), 0);
    assert_int_equal(finish(r, hone), 1);
    assert_says(r->err, "hone: stage sft: hone-worker was ended by signal 9 (Killed); its "
                        "log: ");
    assert_says(r->err, "/run/log");
    assert_says(r->err, "--resume");
    assert_tidy(r);
}

static void test_daemon_killed(void **state)
{
    struct rig *r = *state;
    pid_t hone = start(r, "job.yaml", long_sft), worker = worker_of(r, "sft");

    assert_int_equal(kill(parent_of(worker), SIGKILL), 0);
    assert_true(await(r, "run/sft.saved", 2));
    assert_true(await_end(worker, 2));
    assert_int_equal(finish(r, hone), 1);
    assert_says(r->err, "honed was ended by signal 9 (Killed)");
    assert_says(r->err, "--resume");
    assert_tidy(r);
}

static void test_command_killed(void **state)
{
    struct rig *r = *state;
    pid_t hone = start(r, "job.yaml", long_sft), worker = worker_of(r, "sft");
    pid_t honed = parent_of(worker);
    double at = clock_now();

    assert_int_equal(kill(hone, SIGKILL), 0);
    assert_int_equal(finish(r, hone), 128 + SIGKILL);
    assert_true(await(r, "run/sft.saved", 2));
    assert_true(await_end(worker, 2));
    assert_true(await_end(honed, 2));
    assert_true(clock_now() - at < 2);
    assert_tidy(r);
}

static void test_command_killed_worker_hangs(void **state)
{
    static const char *const args[] = {"--set", "sft=1000000:5:hang", NULL};
    struct rig *r = *state;
    pid_t hone = start(r, "job.yaml", args), worker = worker_of(r, "sft");
    pid_t honed = parent_of(worker);

    assert_int_equal(kill(hone, SIGKILL), 0);
    finish(r, hone);
    assert_true(await_end(worker, 2));
    assert_true(await_end(honed, 2));
}

static void test_interrupt_saves(void **state)
{
    struct rig *r = *state;
    pid_t hone = start(r, "job.yaml", long_sft);

    worker_of(r, "sft");
    assert_int_equal(kill(hone, SIGINT), 0);
    assert_int_equal(finish(r, hone), 3);
    assert_true(is_there(r, "run/sft.saved"));
    assert_says(r->err, "stopping: saving a checkpoint");
    assert_says(r->err, "--resume goes on");
    assert_tidy(r);
}

static void test_second_interrupt_ends_at_once(void **state)
{
    static const char *const args[] = {"--set", "sft=1000000:5:hang", NULL};
    struct rig *r = *state;
    pid_t hone = start(r, "job.yaml", args), worker = worker_of(r, "sft");

    assert_int_equal(kill(hone, SIGINT), 0);
    usleep(200000);
    assert_false(has_ended(worker));
    assert_int_equal(kill(hone, SIGINT), 0);
    assert_int_equal(finish(r, hone), 3);
    assert_true(has_ended(worker));
    assert_tidy(r);
}

static void test_folder_in_use(void **state)
{
    static const char *const again[] = {"--resume", NULL};
    struct rig *r = *state;
    pid_t hone = start(r, "job.yaml", long_sft), worker = worker_of(r, "sft");
    double at;

    assert_int_equal(finish(r, start(r, "job.yaml", NULL)), 2);
    assert_says(r->err, "holds another run");
    assert_says(r->err, "add --resume");
    assert_false(has_ended(worker));

    /* The folder belongs to the workers too: it is free once they have ended. */
    at = clock_now();
    assert_int_equal(kill(hone, SIGKILL), 0);
    assert_int_equal(kill(parent_of(worker), SIGKILL), 0);
    waitpid(hone, NULL, 0);
    finish(r, start(r, "job.yaml", again));
    assert_true(is_there(r, "run/ppo.done"));
    assert_true(made_at(r, "run/sft.saved") <= made_at(r, "run/sft.done"));
    assert_true(clock_now() - at < 10);
}

static void test_numbered_folders(void **state)
{
    struct rig *r = *state;
    char program[FILE_PATH_MAX], line[3 * FILE_PATH_MAX];
    int rc;

    path_in(r, "hone", program);
    snprintf(line, sizeof line,
             "cd '%s' && for i in 1 2; do ./hone run job.yaml; done 2>%s", r->dir,
             "/dev/null");
    rc = system(line);
    assert_int_equal(WEXITSTATUS(rc), 2); /* no summary.json */
    assert_true(is_there(r, "runs/toy-1/ppo.done"));
    assert_true(is_there(r, "runs/toy-2/ppo.done"));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
        T(test_stages_follow_their_needs),
        T(test_selected_stages_and_json),
        T(test_unknown_stage),
        T(test_problems_start_nothing),
        T(test_missing_job),
        T(test_failure_is_told),
        T(test_worker_killed),
        T(test_daemon_killed),
        T(test_command_killed),
        T(test_command_killed_worker_hangs),
        T(test_interrupt_saves),
        T(test_second_interrupt_ends_at_once),
        T(test_folder_in_use),
        T(test_numbered_folders),
    };
    char path[FILE_PATH_MAX];
    const char *bin = getenv("HONE_BIN");

    if (!strcmp(file_basename(argv[0]), "hone-worker"))
        return stand_in(argc, argv);
    snprintf(path, sizeof path, "%s/hone", bin ? bin : "");
    if (!bin || access(path, X_OK)) {
        fprintf(stderr, "skipped: HONE_BIN has no hone\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
