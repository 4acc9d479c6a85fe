/* A run's folder and the job it was started with: a run of a build that knew fewer keys is
 * gone on with (and its checkpoints are known by the same hash), one that differs in a
 * value or says what this build does not know is refused, with the place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "tests/stage/tiny.h"
#include "worker/train/folder.h"

static char root[] = "/tmp/hone-folder-XXXXXX", job[FILE_PATH_MAX], run[FILE_PATH_MAX];

static void ok(int r, const struct err *e)
{
    if (r)
        fail_msg("%s", e->msg);
}

static int open_run(const char *set, int resume, char hash[33], struct err *e)
{
    const char *const sets[] = {set, NULL};
    struct problems p;
    struct folder f;
    struct spec s;
    int r;

    problems_init(&p, job);
    ok(spec_read(&s, job, sets, &p, e), e);
    r = folder_open(&f, &s, run, "sft", resume, e);
    memcpy(hash, f.job_hash, sizeof f.job_hash);
    folder_close(&f);
    spec_fini(&s);
    problems_fini(&p);
    return r;
}

static char *read_job(void)
{
    char path[FILE_PATH_MAX], *text;
    struct err e;
    size_t n;

    ok(file_join(path, sizeof path, run, "job.resolved.yaml", &e), &e);
    ok(file_read(path, 1 << 20, &text, &n, &e), &e);
    return text;
}

static void write_job(const char *text)
{
    struct err e;

    ok(tiny_write(run, "job.resolved.yaml", text, &e), &e);
}

/* Take out every line with `key`. */
static void forget(char *text, const char *key)
{
    char *line = strstr(text, key);

    assert_non_null(line);
    for (; line; line = strstr(text, key)) {
        char *next = strchr(line, '\n') + 1;

        while (line > text && line[-1] != '\n')
            line--;
        memmove(line, next, strlen(next) + 1);
    }
}

static void refused(const char *set, const char *why)
{
    char hash[33];
    struct err e;

    assert_int_equal(open_run(set, 1, hash, &e), ERR_CONFIG);
    if (!strstr(e.msg, why))
        fail_msg("\"%s\" lacks \"%s\"", e.msg, why);
}

static void older_build(void **state)
{
    char hash[33], again[33], *text = read_job();
    struct err e;

    (void)state;
    forget(text, "  clip:");
    forget(text, "  ties:");
    write_job(text);
    ok(open_run(NULL, 1, hash, &e), &e);
    ok(open_run("stages.sft.clip=1.0", 1, again, &e), &e); /* the default */
    assert_string_equal(hash, again);
    refused("stages.rm.clip=0.5",
            "stages.rm.clip in its job.resolved.yaml, where it says \"clip: 1");
    mem_free(text);
    text = read_job();
    assert_null(strstr(text, "  clip:")); /* as it was written */
    mem_free(text);
}

static void other_job(void **state)
{
    char hash[33], again[33];
    struct err e;

    (void)state;
    refused("stages.ppo.lr=2e-3", "stages.ppo.lr in");
    refused("seed=2", ": seed in its job.resolved.yaml, where it says \"seed: 1\"");
    ok(open_run(NULL, 1, hash, &e), &e);
    ok(open_run("resources.threads=2", 1, again, &e), &e);
    assert_string_equal(hash, again);
}

static void newer_build(void **state)
{
    char *text = read_job(), *longer;

    (void)state;
    longer = mem_alloc(strlen(text) + 64);
    assert_non_null(longer);
    sprintf(longer, "%s    sharpness: 3\n", text);
    write_job(longer);
    refused(NULL, "stages.ppo.sharpness in its job.resolved.yaml, where it says "
                  "\"sharpness: 3\", now it is \"\"");
    mem_free(longer);
    mem_free(text);
}

static char *first;

static int set_up(void **state)
{
    char hash[33];
    struct err e;

    (void)state;
    if (!mkdtemp(root))
        return -1;
    ok(tiny_job(root, &e), &e);
    snprintf(job, sizeof job, "%s/job.yaml", root);
    snprintf(run, sizeof run, "%s/run", root);
    ok(open_run(NULL, 0, hash, &e), &e);
    first = read_job();
    return 0;
}

static int as_first(void **state)
{
    (void)state;
    write_job(first);
    return 0;
}

static int clean_up(void **state)
{
    struct err e;

    (void)state;
    mem_free(first);
    return file_remove_tree(root, &e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(older_build, as_first),
        cmocka_unit_test_setup(other_job, as_first),
        cmocka_unit_test_setup(newer_build, as_first),
    };

    return cmocka_run_group_tests(tests, set_up, clean_up);
}
