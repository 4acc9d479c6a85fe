/* Atomic folders: commit and replace, verification, the newest good one, retention, and a
 * failure at every durable step, which must leave the old folder or the new one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/fault.h"
#include "base/mem.h"
#include "worker/ckpt/state.h"

static char root[] = "/tmp/hone-state-XXXXXX";

static void ok(int r, const struct err *e)
{
    if (r)
        fail_msg("%s", e->msg);
}

/* A folder with two files that hold `text`, one of them below state/. */
static int put(const char *name, const char *text, struct err *e)
{
    char tmp[FILE_PATH_MAX], path[FILE_PATH_MAX + 32];
    int r = state_begin(root, name, tmp, e);

    if (r)
        return r;
    snprintf(path, sizeof path, "%s/model", tmp);
    r = file_write_atomic(path, text, strlen(text), e);
    snprintf(path, sizeof path, "%s/state", tmp);
    if (!r)
        r = file_make_dirs(path, e);
    snprintf(path, sizeof path, "%s/state/more", tmp);
    if (!r)
        r = file_write_atomic(path, text, strlen(text), e);
    return r ? r : state_commit(root, name, tmp, e);
}

static void expect_text(const char *name, const char *want)
{
    char path[FILE_PATH_MAX], *text;
    struct err e;
    size_t n;

    snprintf(path, sizeof path, "%s/%s/model", root, name);
    ok(file_read(path, 100, &text, &n, &e), &e);
    assert_string_equal(text, want);
    mem_free(text);
}

static void commit_and_replace(void **state)
{
    char path[FILE_PATH_MAX];
    struct err e;

    (void)state;
    ok(put("best", "one", &e), &e);
    ok(put("best", "two", &e), &e);
    expect_text("best", "two");
    snprintf(path, sizeof path, "%s/best", root);
    ok(state_verify(path, &e), &e);
    snprintf(path, sizeof path, "%s/.tmp-best", root);
    assert_false(file_exists(path));
}

static void damage_is_found(void **state)
{
    char path[FILE_PATH_MAX];
    struct err e;
    long step;

    (void)state;
    ok(put("checkpoint-5", "five", &e), &e);
    ok(put("checkpoint-12", "twelve", &e), &e);
    ok(state_newest(root, &step, &e), &e);
    assert_int_equal(step, 12);
    snprintf(path, sizeof path, "%s/checkpoint-12/state/more", root);
    ok(file_write_atomic(path, "twelvf", 6, &e), &e);
    ok(state_newest(root, &step, &e), &e);
    assert_int_equal(step, 5);
    snprintf(path, sizeof path, "%s/checkpoint-12", root);
    assert_int_equal(state_verify(path, &e), ERR_CORRUPT);
    assert_non_null(strstr(e.msg, "state/more"));
    snprintf(path, sizeof path, "%s/checkpoint-5/model", root);
    assert_int_equal(remove(path), 0);
    ok(state_newest(root, &step, &e), &e);
    assert_int_equal(step, -1);
}

static void retention(void **state)
{
    long *steps;
    struct err e;
    size_t n;

    (void)state;
    for (int i = 20; i < 25; i++) {
        char name[32];

        snprintf(name, sizeof name, "checkpoint-%d", i);
        ok(put(name, name, &e), &e);
    }
    ok(state_prune(root, 2, &e), &e);
    ok(state_list(root, &steps, &n, &e), &e);
    assert_int_equal(n, 2);
    assert_int_equal(steps[0], 23);
    assert_int_equal(steps[1], 24);
    mem_free(steps);
}

static void every_failure(const char *point)
{
    char path[FILE_PATH_MAX], fault[32];
    struct err e;

    snprintf(path, sizeof path, "%s/final", root);
    for (int n = 1; n < 100; n++) {
        int r;

        ok(put("final", "old", &e), &e);
        snprintf(fault, sizeof fault, "%s:%d:EIO", point, n);
        assert_int_equal(fault_arm(fault), 0);
        r = put("final", "new", &e);
        fault_arm(NULL);
        if (!r)
            return;
        assert_int_equal(r, ERR_IO);
        ok(state_verify(path, &e), &e);
        ok(state_clean(root, &e), &e);
    }
    fail();
}

static void failures_leave_a_whole_folder(void **state)
{
    (void)state;
    every_failure("write");
    every_failure("fsync");
    every_failure("rename");
}

static int set_up(void **state)
{
    (void)state;
    return mkdtemp(root) ? 0 : -1;
}

static int clean_up(void **state)
{
    struct err e;

    (void)state;
    return file_remove_tree(root, &e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commit_and_replace),
        cmocka_unit_test(damage_is_found),
        cmocka_unit_test(retention),
        cmocka_unit_test(failures_leave_a_whole_folder),
    };

    return cmocka_run_group_tests(tests, set_up, clean_up);
}
