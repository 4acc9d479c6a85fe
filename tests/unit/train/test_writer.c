/* The writer: adding never waits, jobs run in order, a failure stays and stops the rest. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/clock.h"
#include "worker/train/writer.h"

struct task {
    int number, fails, milliseconds;
};

static int done[16], n_done;

static int run(void *arg, struct err *e)
{
    const struct task *t = arg;
    struct timespec nap = {0, t->milliseconds * 1000000L};

    nanosleep(&nap, NULL);
    done[n_done++] = t->number;
    return t->fails ? err_set(e, ERR_IO, "job %d: no space", t->number) : 0;
}

static int add(struct writer **w, int number, int fails, int milliseconds, struct err *e)
{
    struct task t = {number, fails, milliseconds};

    return writer_add(w, run, &t, sizeof t, e);
}

static void test_order(void **state)
{
    struct writer *w = NULL;
    double begin = clock_now();
    struct err e;

    (void)state;
    n_done = 0;
    for (int i = 0; i < 5; i++)
        assert_int_equal(add(&w, i, 0, i ? 1 : 300, &e), 0);
    assert_true(clock_now() - begin < 0.25); /* the first takes longer */
    assert_int_equal(writer_failed(w, &e), 0);
    assert_int_equal(writer_wait(w, &e), 0);
    assert_int_equal(n_done, 5);
    for (int i = 0; i < 5; i++)
        assert_int_equal(done[i], i);
    assert_int_equal(add(&w, 5, 0, 20, &e), 0);
    writer_free(w); /* waits, too */
    assert_int_equal(n_done, 6);
}

static void test_failure(void **state)
{
    struct writer *w = NULL;
    struct err e;

    (void)state;
    n_done = 0;
    assert_int_equal(add(&w, 0, 0, 0, &e), 0);
    assert_int_equal(add(&w, 1, 1, 50, &e), 0);
    assert_int_equal(add(&w, 2, 0, 0, &e), 0);
    assert_int_equal(writer_wait(w, &e), ERR_IO);
    assert_string_equal(e.msg, "job 1: no space");
    assert_int_equal(n_done, 2); /* what came behind it was not done */
    memset(&e, 0, sizeof e);
    assert_int_equal(add(&w, 3, 0, 0, &e), ERR_IO);
    assert_int_equal(writer_failed(w, &e), ERR_IO);
    assert_string_equal(e.msg, "job 1: no space");
    writer_free(w);
    assert_int_equal(n_done, 2);
}

static void test_nothing(void **state)
{
    struct err e;

    (void)state;
    assert_int_equal(writer_failed(NULL, &e), 0);
    assert_int_equal(writer_wait(NULL, &e), 0);
    writer_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_failure),
        cmocka_unit_test(test_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
