/* Stopped anywhere and resumed = never stopped, byte for byte: SFT, RM and PPO on a tiny
 * model, stopped at every one of 20 steps by SIGTERM and by SIGKILL, and by a full disk;
 * and that neither threads nor micro-batches change the result. The real program runs. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/json.h"
#include "tests/stage/tiny.h"
#include "worker/ckpt/state.h"

enum { STEPS = 20, ARGS_MAX = 32, KILLED = 1000 };
static const char *const stages[] = {"sft", "rm", "ppo"};

static char root[64];

static void ok(int r, const struct err *e)
{
    if (r)
        fail_msg("%s", e->msg);
}

static void path_in(char out[512], const char *fmt, ...)
{
    va_list ap;
    int n = snprintf(out, 512, "%s/", root);

    va_start(ap, fmt);
    vsnprintf(out + n, 512 - (size_t)n, fmt, ap);
    va_end(ap);
}

/* hone-worker job.yaml <words...>; fault: HONE_FAULT or NULL. Its exit status, or
 * KILLED + signal; its messages go to root/err. */
static int worker(const char *fault, const char *const *words)
{
    const char *bin = getenv("HONE_BIN");
    char program[512], job[512], err[512];
    const char *argv[ARGS_MAX];
    int n = 0, status;
    pid_t pid;

    snprintf(program, sizeof program, "%s/hone-worker", bin ? bin : "build/bin");
    path_in(job, "job.yaml");
    path_in(err, "err");
    argv[n++] = program;
    argv[n++] = job;
    while (*words && n < ARGS_MAX - 1)
        argv[n++] = *words++;
    argv[n] = NULL;
    pid = fork();
    if (!pid) {
        int fd = open(err, O_WRONLY | O_CREAT | O_TRUNC, 0600);

        dup2(fd, 2);
        if (fault)
            setenv("HONE_FAULT", fault, 1);
        execv(program, (char *const *)argv);
        _exit(127);
    }
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) ? KILLED + WTERMSIG(status) : WEXITSTATUS(status);
}

static void show_errors(void)
{
    char err[512], line[1024];
    FILE *f;

    path_in(err, "err");
    f = fopen(err, "r");
    while (f && fgets(line, sizeof line, f))
        print_message("    %s", line);
    if (f)
        fclose(f);
}

static void expect(int got, int want, const char *what)
{
    if (got == want)
        return;
    show_errors();
    fail_msg("%s: exit status %d, expected %d", what, got, want);
}

static void copy_dir(const char *from, const char *to)
{
    char command[1600];

    snprintf(command, sizeof command, "mkdir -p '%s' && cp -r '%s' '%s/'", to, from, to);
    assert_int_equal(system(command), 0);
}

/* A fresh run folder in which everything before `stage` is done. */
static void prepare(const char *name, int stage)
{
    char to[512], from[512];
    struct err e;

    path_in(to, "%s", name);
    ok(file_remove_tree(to, &e), &e);
    for (int i = 0; i < stage; i++) {
        path_in(from, "whole/%s", stages[i]);
        copy_dir(from, to);
    }
}

static void compare_files(const char *a, const char *b)
{
    struct file_map x, y;
    struct err e;

    ok(file_map_open(&x, a, &e), &e);
    ok(file_map_open(&y, b, &e), &e);
    if (x.size != y.size || memcmp(x.bytes, y.bytes, x.size))
        fail_msg("%s and %s differ", a, b);
    file_map_close(&x);
    file_map_close(&y);
}

static int is_timing(const char *key)
{
    static const char *const
        timing[] = {"time",        "train_seconds", "peak_bytes",       "tokens_per_second",
                    "seconds",     "elapsed",       "interval.seconds", "metrics_bytes",
                    "events_bytes"}; /* time_checkpoint stands only where one was written */

    for (size_t i = 0; i < sizeof timing / sizeof *timing; i++)
        if (!strcmp(key, timing[i]))
            return 1;
    return !strncmp(key, "time_", 5); /* parts of a step */
}

/* Two JSON files, or two files of JSON lines, all fields but times and rates. */
static void compare_json(const char *a, const char *b, int lines)
{
    FILE *x = fopen(a, "r"), *y = fopen(b, "r");
    json_error_t je;

    assert_non_null(x);
    assert_non_null(y);
    for (int line = 1;; line++) {
        size_t flags = JSON_DISABLE_EOF_CHECK;
        json_t *p = json_loadf(x, flags, &je), *q = json_loadf(y, flags, &je), *v;
        const char *key;
        void *next;

        if (!p && !q)
            break;
        if (!p || !q)
            fail_msg("%s and %s have different numbers of lines", a, b);
        json_object_foreach_safe(p, next, key, v)
        {
            if (is_timing(key)) {
                json_object_del(q, key);
                json_object_del(p, key);
            }
        }
        if (!json_equal(p, q))
            fail_msg("%s and %s differ at line %d: %s / %s", a, b, line, json_dumps(p, 0),
                     json_dumps(q, 0));
        json_decref(p);
        json_decref(q);
        if (!lines)
            break;
    }
    fclose(x);
    fclose(y);
}

/* RUN/<stage> of `name` against the uninterrupted run's. */
static void compare_stage(const char *name, const char *stage)
{
    static const char *const exact[] = {"final/model.safetensors",
                                        "final/config.json",
                                        "final/hone.json",
                                        "checkpoint-20/model.safetensors",
                                        "checkpoint-20/state/optimizer.safetensors",
                                        "best/model.safetensors"};
    char a[512], b[512];

    for (size_t i = 0; i < sizeof exact / sizeof *exact; i++) {
        path_in(a, "whole/%s/%s", stage, exact[i]);
        path_in(b, "%s/%s/%s", name, stage, exact[i]);
        compare_files(a, b);
    }
    path_in(a, "whole/%s/checkpoint-20/state/trainer.json", stage);
    path_in(b, "%s/%s/checkpoint-20/state/trainer.json", name, stage);
    compare_json(a, b, 0);
    path_in(a, "whole/%s/stage.json", stage);
    path_in(b, "%s/%s/stage.json", name, stage);
    compare_json(a, b, 0);
    path_in(a, "whole/%s/metrics.jsonl", stage);
    path_in(b, "%s/%s/metrics.jsonl", name, stage);
    compare_json(a, b, 1);
}

/* The uninterrupted run that all others are compared with. */
static int whole_run(void **state)
{
    const char *words[] = {"--out", NULL, NULL};
    char out[512];
    struct err e;

    (void)state;
    /* Hundreds of runs with an fsync for every file: in memory, where there is some. */
    snprintf(root, sizeof root, "%s/hone-resume-XXXXXX",
             access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    if (!mkdtemp(root) || tiny_job(root, &e))
        return -1;
    path_in(out, "whole");
    words[1] = out;
    if (worker(NULL, words)) {
        show_errors();
        return -1;
    }
    return 0;
}

static int clean_up(void **state)
{
    struct err e;

    (void)state;
    return file_remove_tree(root, &e);
}

/* Stop stage s by `fault`, go on, compare. */
static void interrupt(int s, const char *fault, int want)
{
    char out[512], what[64];
    const char *first[] = {"--stage", stages[s], "--out", out, NULL};
    const char *again[] = {"--stage", stages[s], "--out", out, "--resume", NULL};

    prepare("cut", s);
    path_in(out, "cut");
    snprintf(what, sizeof what, "%s with %s", stages[s], fault);
    expect(worker(fault, first), want, what);
    expect(worker(NULL, again), 0, "resume");
    compare_stage("cut", stages[s]);
}

static void stop_by_signal(int s, const char *signal_name, int want)
{
    char fault[32];

    for (int step = 1; step <= STEPS; step++) {
        snprintf(fault, sizeof fault, "step:%d:%s", step, signal_name);
        interrupt(s, fault, want);
    }
}

static void sft_term(void **state)
{
    (void)state;
    stop_by_signal(0, "TERM", 3);
}

static void rm_term(void **state)
{
    (void)state;
    stop_by_signal(1, "TERM", 3);
}

static void ppo_term(void **state)
{
    (void)state;
    stop_by_signal(2, "TERM", 3);
}

static void sft_kill(void **state)
{
    (void)state;
    stop_by_signal(0, "KILL", KILLED + SIGKILL);
}

static void rm_kill(void **state)
{
    (void)state;
    stop_by_signal(1, "KILL", KILLED + SIGKILL);
}

static void ppo_kill(void **state)
{
    (void)state;
    stop_by_signal(2, "KILL", KILLED + SIGKILL);
}

/* A model saved in bf16 and in shards goes on from its exact weights. */
static void narrow_shards(void **state)
{
    static const char *const exact[] = {
        "sft/checkpoint-20/state/weights.safetensors",
        "sft/checkpoint-20/state/optimizer.safetensors",
        "sft/checkpoint-20/model.safetensors.index.json",
        "sft/final/model.safetensors.index.json",
        "sft/final/model-00002-of-00002.safetensors",
        "sft/best/model-00001-of-00002.safetensors",
    };
    char out[512], a[512], b[512];
    const char *words[] = {"--stage", "sft",
                           "--out",   out,
                           "--set",   "save.dtype=bf16",
                           "--set",   "save.shard_bytes=2500",
                           NULL,      NULL};

    (void)state;
    path_in(out, "narrow");
    expect(worker(NULL, words), 0, "narrow");
    path_in(out, "narrow-cut");
    expect(worker("step:7:TERM", words), 3, "narrow, stopped");
    words[8] = "--resume";
    expect(worker("step:5:KILL", words), KILLED + SIGKILL, "narrow, killed");
    expect(worker(NULL, words), 0, "narrow, resumed");
    for (size_t i = 0; i < sizeof exact / sizeof *exact; i++) {
        path_in(a, "narrow/%s", exact[i]);
        path_in(b, "narrow-cut/%s", exact[i]);
        compare_files(a, b);
    }
    path_in(a, "narrow/sft/metrics.jsonl");
    path_in(b, "narrow-cut/sft/metrics.jsonl");
    compare_json(a, b, 1);
}

/* Every durable operation may be the last one before a crash, or find the disk full. */
static void every_durable_step(const char *point, const char *action, int want)
{
    char out[512], fault[32];
    const char *first[] = {"--stage", "sft", "--out", out, NULL};
    const char *again[] = {"--stage", "sft", "--out", out, "--resume", NULL};

    path_in(out, "cut");
    for (int n = 1; n < 4000; n += 1 + n / 12) {
        int r;

        prepare("cut", 0);
        snprintf(fault, sizeof fault, "%s:%d:%s", point, n, action);
        r = worker(fault, first);
        if (!r)
            return;
        expect(r, want, fault);
        expect(worker(NULL, again), 0, fault);
        compare_stage("cut", "sft");
    }
    fail_msg("%s never ran dry", point);
}

static void disk_full(void **state)
{
    (void)state;
    every_durable_step("write", "ENOSPC", 1);
}

static void killed_at_rename(void **state)
{
    (void)state;
    every_durable_step("rename", "KILL", KILLED + SIGKILL);
}

/* A damaged checkpoint is passed over for the one before it. */
static void damaged_checkpoint(void **state)
{
    char out[512], path[512];
    const char *first[] = {"--stage", "sft", "--out", out, NULL};
    const char *again[] = {"--stage", "sft", "--out", out, "--resume", NULL};
    int fd;

    (void)state;
    prepare("cut", 0);
    path_in(out, "cut");
    expect(worker("step:11:KILL", first), KILLED + SIGKILL, "first");
    path_in(path, "cut/sft/checkpoint-9/state/optimizer.safetensors");
    fd = open(path, O_WRONLY);
    if (fd < 0) { /* its writer had not finished when the worker was killed */
        path_in(path, "cut/sft/checkpoint-6/state/optimizer.safetensors");
        fd = open(path, O_WRONLY);
    }
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, "x", 1, 3000), 1);
    close(fd);
    expect(worker(NULL, again), 0, "resume");
    compare_stage("cut", "sft");
}

static void threads_do_not_matter(void **state)
{
    char out[512];
    const char *words[] = {"--out", out, "--set", "resources.threads=1", NULL};
    struct err e;

    (void)state;
    path_in(out, "one-thread");
    ok(file_remove_tree(out, &e), &e);
    expect(worker(NULL, words), 0, "one thread");
    for (int s = 0; s < 3; s++)
        compare_stage("one-thread", stages[s]);
}

/* Nor do layers that backward runs again, in a whole run or behind a checkpoint. */
static void recomputation_does_not_matter(void **state)
{
    char out[512];
    const char *on[] = {"--out", out, "--set", "resources.recompute=on", NULL};
    const char *off[] = {"--out", out, "--resume", "--set", "resources.recompute=off",
                         NULL};
    struct err e;

    (void)state;
    path_in(out, "recompute");
    ok(file_remove_tree(out, &e), &e);
    expect(worker(NULL, on), 0, "recomputed layers");
    for (int s = 0; s < 3; s++)
        compare_stage("recompute", stages[s]);
    ok(file_remove_tree(out, &e), &e);
    expect(worker("step:11:KILL", on), KILLED + SIGKILL, "killed");
    expect(worker(NULL, off), 0, "resumed without");
    compare_stage("recompute", stages[0]);
}

/* The losses of `name`'s train lines. */
static int losses(const char *name, const char *stage, double *out, int max)
{
    char path[512], line[4096];
    int n = 0;
    FILE *f;

    path_in(path, "%s/%s/metrics.jsonl", name, stage);
    f = fopen(path, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f) && n < max) {
        json_t *v = json_loads(line, 0, NULL);

        if (!strcmp(json_string_value(json_object_get(v, "split")), "train"))
            out[n++] = json_number_value(json_object_get(v, "loss"));
        json_decref(v);
    }
    fclose(f);
    return n;
}

/* PPO's loss needs the whole batch (whitening): several micro-batches mean two passes. Each
 * stage starts from the same finished stages: sums in another order differ in last bits,
 * which a stage's training would make larger for the next. */
static void micro_batches_do_not_matter(void **state)
{
    static const char *const tokens[] = {"100000", "60"};
    char out[512], micro[64], epochs[64], log[64];

    (void)state;
    for (int s = 0; s < 3; s++) {
        double loss[2][STEPS];

        snprintf(epochs, sizeof epochs, "stages.%s.epochs=1.2", stages[s]);
        snprintf(log, sizeof log, "stages.%s.log_every=1", stages[s]);
        for (int i = 0; i < 2; i++) {
            const char *words[] = {"--stage", stages[s], "--out", out,
                                   "--set",   micro,     "--set", epochs,
                                   "--set",   log,       "--set", "stages.ppo.whiten=true",
                                   NULL};

            prepare("micro", s);
            path_in(out, "micro");
            snprintf(micro, sizeof micro, "stages.%s.micro_tokens=%s", stages[s],
                     tokens[i]);
            expect(worker(NULL, words), 0, micro);
            assert_int_equal(losses("micro", stages[s], loss[i], STEPS), 6);
        }
        for (int i = 0; i < 6; i++) {
            double a = loss[0][i], b = loss[1][i];

            if (fabs(a - b) > 1e-6 * fmax(1, fabs(a)))
                fail_msg("%s step %d: loss %.9g / %.9g", stages[s], i + 1, a, b);
        }
    }
}

/* With dropout off the reference's table and the first forward agree bit for bit. */
static void first_ratio_is_one(void **state)
{
    char path[512], out[512], line[4096];
    const char *words[] = {
        "--stage", "ppo", "--out", out, "--set", "stages.ppo.log_every=1", NULL};
    json_t *v;
    FILE *f;

    (void)state;
    prepare("ratio", 2);
    path_in(out, "ratio");
    expect(worker(NULL, words), 0, "ppo");
    path_in(path, "ratio/ppo/metrics.jsonl");
    f = fopen(path, "r");
    assert_non_null(f);
    assert_non_null(fgets(line, sizeof line, f));
    v = json_loads(line, 0, NULL);
    assert_true(json_number_value(json_object_get(v, "ratio")) == 1);
    assert_true(json_number_value(json_object_get(v, "kl")) == 0);
    json_decref(v);
    fclose(f);
}

/* With rate 0 nothing improves: the evaluations at steps 8 and 12 are the two too many,
 * also when the run was killed between them. */
static void early_stop(void **state)
{
    static const char *const fault[] = {NULL, "step:11:KILL"};
    char out[512], path[512];
    const char *first[] = {"--stage", "sft",
                           "--out",   out,
                           "--set",   "stages.sft.lr=0",
                           "--set",   "stages.sft.head_lr=0",
                           "--set",   "stages.sft.stop={metric: nll, patience: 2}",
                           NULL,      NULL};

    (void)state;
    path_in(out, "early-stop");
    path_in(path, "early-stop/sft/stage.json");
    for (int i = 0; i < 2; i++) {
        json_t *v;
        struct err e;
        long steps;

        prepare("early-stop", 0);
        first[10] = NULL;
        if (fault[i]) {
            expect(worker(fault[i], first), KILLED + SIGKILL, "killed");
            first[10] = "--resume";
        }
        expect(worker(NULL, first), 0, "early stop");
        ok(json_read(path, 1 << 20, &v, &e), &e);
        ok(json_get_long(v, "steps", 1, &steps, &e), &e);
        assert_int_equal(steps, 12);
        json_decref(v);
    }
}

/* A weight that is not a number: every step is skipped, and ten of them end the stage. */
static void never_finite(void **state)
{
    static const char name[] = "encoder.layer.1.output.dense.bias";
    const float bad = NAN;
    char dir[512], path[600], out[512], err[512], *text;
    const char *words[] = {"--stage", "sft", "--out", out, "--set", "model=broken", NULL};
    struct safetensors file;
    size_t n;
    struct err e;
    int fd;

    (void)state;
    path_in(dir, "broken");
    path_in(out, "broken-run");
    ok(tiny_checkpoint(dir, 2, 7, &e), &e);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    ok(safetensors_open(&file, path, &e), &e);
    fd = open(path, O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(
        pwrite(fd, &bad, sizeof bad,
               (off_t)(8 + file.header_len + safetensors_find(&file, name)->begin)),
        sizeof bad);
    close(fd);
    safetensors_close(&file);
    expect(worker(NULL, words), 1, "a model that is not finite");
    path_in(err, "err");
    ok(file_read(err, 1 << 20, &text, &n, &e), &e);
    assert_non_null(strstr(text, "not finite for 10 steps in a row"));
    assert_non_null(strstr(text, "began at step 1 in layer.1.ff.out.b"));
    mem_free(text);
}

/* What is refused starts nothing and changes nothing. */
static void refusals(void **state)
{
    char out[512];
    const char *again[] = {"--out", out, NULL};
    const char *other[] = {"--out", out, "--resume", "--set", "stages.sft.lr=3e-3", NULL};
    const char *done[] = {"--out", out, "--resume", NULL};
    const char *early[] = {"--stage", "ppo", "--out", out, NULL};

    (void)state;
    path_in(out, "whole");
    expect(worker(NULL, again), 2, "a folder with another run");
    expect(worker(NULL, other), 2, "a changed job");
    expect(worker(NULL, done), 0, "a finished run");
    path_in(out, "early");
    expect(worker(NULL, early), 2, "a stage before its needs");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refusals),
        cmocka_unit_test(first_ratio_is_one),
        cmocka_unit_test(early_stop),
        cmocka_unit_test(never_finite),
        cmocka_unit_test(threads_do_not_matter),
        cmocka_unit_test(recomputation_does_not_matter),
        cmocka_unit_test(micro_batches_do_not_matter),
        cmocka_unit_test(damaged_checkpoint),
        cmocka_unit_test(sft_term),
        cmocka_unit_test(sft_kill),
        cmocka_unit_test(rm_term),
        cmocka_unit_test(rm_kill),
        cmocka_unit_test(ppo_term),
        cmocka_unit_test(ppo_kill),
        cmocka_unit_test(narrow_shards),
        cmocka_unit_test(disk_full),
        cmocka_unit_test(killed_at_rename),
    };

    return cmocka_run_group_tests(tests, whole_run, clean_up);
}
