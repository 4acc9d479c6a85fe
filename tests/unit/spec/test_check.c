/* hone check and --describe on a tiny checkpoint: the plan's figures, problems as JSON,
 * exit status, and that nothing is written. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/json.h"
#include "tests/tiny_checkpoint.h"
#include "worker/verb/verb.h"

enum { ROWS = 40 };

static char dir[256], job[300], out[300];

/* Standard output (and error) of a verb; returns its exit status. */
static int capture(int (*run)(int, char **), int argc, char **argv, int with_stderr,
                   char **text, size_t *n)
{
    int fd = open(out, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    int saved[2] = {dup(1), dup(2)}, status;
    struct err e;

    assert_true(fd >= 0 && null >= 0);
    fflush(stdout);
    dup2(fd, 1);
    dup2(with_stderr ? fd : null, 2);
    status = run(argc, argv);
    fflush(stdout);
    fflush(stderr);
    dup2(saved[0], 1);
    dup2(saved[1], 2);
    close(saved[0]);
    close(saved[1]);
    close(fd);
    close(null);
    if (file_read(out, 1 << 20, text, n, &e))
        fail_msg("%s", e.msg);
    return status;
}

static int run_describe(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    return verb_describe();
}

static json_t *document(const char *text, size_t n)
{
    struct err e = {0};
    json_t *v;

    if (json_parse("stdout", text, n, &v, &e))
        fail_msg("%s\n%s", e.msg, text);
    return v;
}

static void good_job(const char *more)
{
    struct str s = {0};
    struct err e;

    str_add(&s,
            "model: m\ntask: {labels: [negative, positive], candidate: 'it is {label}'}\n"
            "data: {train: train.jsonl, validation: v.jsonl, max_tokens: 20}\n");
    str_add(&s, more);
    if (tiny_write(dir, "job.yaml", s.s, &e))
        fail_msg("%s", e.msg);
    str_fini(&s);
}

static void plan(void **state)
{
    char *argv[] = {"check", job, "--json", NULL}, *text;
    json_t *root, *v, *p, *stages;
    size_t n;

    (void)state;
    good_job("stages:\n  sft: {epochs: 2, batch: 16}\n  rm: {steps: 7, batch: 8}\n");
    assert_int_equal(capture(verb_check, 3, argv, 0, &text, &n), 0);
    root = document(text, n);
    assert_true(json_is_true(json_object_get(root, "ok")));
    p = json_object_get(root, "plan");
    stages = json_object_get(p, "stages");
    assert_int_equal(json_array_size(stages), 2);
    assert_int_equal(
        json_integer_value(json_object_get(json_object_get(p, "rows"), "train")), ROWS);
    /* sft: 40 rows in 3 batches, twice; [CLS] w3 good film [SEP] */
    v = json_array_get(stages, 0);
    assert_int_equal(json_integer_value(json_object_get(v, "steps")), 6);
    assert_int_equal(json_integer_value(json_object_get(v, "tokens_per_epoch")), ROWS * 5);
    assert_int_equal(json_integer_value(json_object_get(v, "longest")), 5);
    assert_true(json_integer_value(json_object_get(v, "peak_bytes")) > 10000);
    v = json_array_get(stages, 1);
    assert_int_equal(json_integer_value(json_object_get(v, "steps")), 7);
    assert_int_equal(json_integer_value(json_object_get(v, "sequences")), 2 * ROWS);
    json_decref(root);
    mem_free(text);
    argv[2] = NULL;
    assert_int_equal(capture(verb_check, 2, argv, 0, &text, &n), 0);
    assert_non_null(strstr(text, "peak memory per rank: about"));
    mem_free(text);
}

static void problems(void **state)
{
    char *argv[] = {"check", job, "--json", NULL}, *text;
    json_t *v;
    size_t n;

    (void)state;
    good_job("stages:\n  sft: {epoch: 2, lr: 4x}\n  rm: {needs: [sfx]}\n");
    assert_int_equal(capture(verb_check, 3, argv, 0, &text, &n), 2);
    v = document(text, n);
    assert_true(json_is_false(json_object_get(v, "ok")));
    assert_int_equal(json_array_size(json_object_get(v, "problems")), 3);
    assert_true(json_is_null(json_object_get(v, "plan")));
    json_decref(v);
    mem_free(text);
    argv[2] = NULL;
    assert_int_equal(capture(verb_check, 2, argv, 1, &text, &n), 2);
    assert_non_null(strstr(text, "job.yaml:5:9: unknown key \"epoch\"\n  try: did you mean "
                                 "\"epochs\"?"));
    assert_non_null(strstr(text, "hone: 3 problems"));
    mem_free(text);
}

/* The daemon hears which program and where it was named; a path is refused here. */
static void notify(void **state)
{
    char *argv[] = {"check", job, "--json", NULL}, *text;
    const json_t *o;
    json_t *v;
    size_t n;

    (void)state;
    good_job("notify: tell\nstages: {sft: {steps: 2}}\n");
    assert_int_equal(capture(verb_check, 3, argv, 0, &text, &n), 0);
    v = document(text, n);
    o = json_object_get(json_object_get(v, "plan"), "notify");
    assert_string_equal(json_string_value(json_object_get(o, "program")), "tell");
    assert_non_null(
        strstr(json_string_value(json_object_get(o, "where")), "/job.yaml:4:9"));
    json_decref(v);
    mem_free(text);
    good_job("notify: ../tell\nstages: {sft: {steps: 2}}\n");
    argv[2] = NULL;
    assert_int_equal(capture(verb_check, 2, argv, 1, &text, &n), 2);
    assert_non_null(
        strstr(text, "job.yaml:4:9: \"notify\" is no name of a program: \"../tell\""));
    mem_free(text);
}

/* What only the data or the tokenizer tells. */
static void data_problems(void **state)
{
    static const struct {
        const char *more, *rows, *message;
    } bad[] = {
        {"stages: {rm: }\n", NULL, "no room beside the longest candidate"},
        {"stages: {sft: }\n", "{\"text\": \"w1\", \"label\": 0}\n{\"text\": \"w2\"}\n",
         "v.jsonl"},
        {"stages: {sft: }\n", "{\"text\": \"w1\", \"label\": 9}\n", "9"},
    };
    char *argv[] = {"check", job, "--set", "data.max_tokens=20", NULL}, *text;
    struct err e;
    size_t n;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        argv[3] = i == 0 ? "data.max_tokens=5" : "data.max_tokens=20";
        good_job(bad[i].more);
        if (bad[i].rows)
            assert_int_equal(tiny_write(dir, "v.jsonl", bad[i].rows, &e), 0);
        assert_int_equal(capture(verb_check, 4, argv, 1, &text, &n), 2);
        if (!strstr(text, bad[i].message))
            fail_msg("\"%s\" lacks \"%s\"", text, bad[i].message);
        mem_free(text);
    }
}

static void describe(void **state)
{
    static const char *const sections[] = {"job",       "task",     "data",
                                           "resources", "save",     "common",
                                           "stages",    "families", "backends"};
    json_t *v, *stage;
    char *text;
    size_t n, i;

    (void)state;
    assert_int_equal(capture(run_describe, 0, NULL, 0, &text, &n), 0);
    v = document(text, n);
    for (i = 0; i < sizeof sections / sizeof *sections; i++)
        if (!json_array_size(json_object_get(v, sections[i])))
            fail_msg("section %s is empty", sections[i]);
    json_array_foreach(json_object_get(v, "stages"), i, stage)
    {
        assert_true(json_is_string(json_object_get(stage, "help")));
        assert_true(json_is_array(json_object_get(stage, "options")));
    }
    json_decref(v);
    mem_free(text);
}

static void usage(void **state)
{
    char *argv[] = {"check", "--jsn", NULL}, *text;
    size_t n;

    (void)state;
    assert_int_equal(capture(verb_check, 2, argv, 1, &text, &n), 2);
    assert_non_null(strstr(text, "did you mean --json?"));
    mem_free(text);
    argv[1] = "--help";
    assert_int_equal(capture(verb_check, 2, argv, 1, &text, &n), 0);
    assert_non_null(strstr(text, "--set KEY=VALUE"));
    mem_free(text);
    for (const struct verb *v = verbs; v->name; v++)
        assert_ptr_equal(verb_find(v->name), v);
    assert_null(verb_find("train"));
}

static int setup(void **state)
{
    struct str rows = {0};
    char path[300];
    struct err e;
    int rc;

    (void)state;
    snprintf(dir, sizeof dir, "%s/hone-check-XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    if (!mkdtemp(dir))
        return -1;
    snprintf(job, sizeof job, "%s/job.yaml", dir);
    snprintf(out, sizeof out, "%s/stdout", dir);
    snprintf(path, sizeof path, "%s/m", dir);
    rc = tiny_checkpoint(path, 2, 1, &e);
    for (int i = 0; i < ROWS; i++)
        str_addf(&rows, "{\"text\": \"w%d %s film\", \"label\": %d}\n", i % 20,
                 i % 2 ? "good" : "bad", i % 2);
    if (!rc)
        rc = tiny_write(dir, "train.jsonl", str_get(&rows), &e);
    if (!rc)
        rc = tiny_write(dir, "v.jsonl", str_get(&rows), &e);
    str_fini(&rows);
    return rc;
}

static int teardown(void **state)
{
    struct err e;

    (void)state;
    return file_remove_tree(dir, &e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plan),     cmocka_unit_test(problems),
        cmocka_unit_test(notify),   cmocka_unit_test(data_problems),
        cmocka_unit_test(describe), cmocka_unit_test(usage),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
