/* The GPUs' state from a library that answers, fails, has lost a GPU, or never answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "worker/train/health.h"

static struct health h;
static struct err e;

static int read_as(const char *mode)
{
    char path[4096];
    const char *dir = getenv("HONE_FAKES");

    snprintf(path, sizeof path, "%s/fake_nvml.so", dir ? dir : ".");
    assert_int_equal(setenv("HONE_NVML", path, 1), 0);
    assert_int_equal(setenv("FAKE_NVML", mode, 1), 0);
    memset(&e, 0, sizeof e);
    return health_read(&h, &e);
}

static void assert_line(const struct health_gpu *g, const char *line, const char *alarm)
{
    struct str s = {0}, a = {0};

    health_line(g, &s);
    assert_string_equal(str_get(&s), line);
    assert_int_equal(health_alarm(g, &a), alarm != NULL);
    if (alarm)
        assert_non_null(strstr(str_get(&a), alarm));
    str_fini(&s);
    str_fini(&a);
}

static void test_answers(void **state)
{
    (void)state;
    assert_int_equal(read_as("ok"), 0);
    assert_int_equal(h.n, 2);
    assert_true(h.gpu[1].ecc_uncorrected < 0); /* not offered */
    assert_line(&h.gpu[0], "NVIDIA Fake 1000: 37 % busy, 2.0 GB of 80 GB, 41 C, 76 W",
                NULL);
}

static void test_lost_gpu(void **state)
{
    (void)state;
    assert_int_equal(read_as("lost"), 0);
    assert_int_equal(h.n, 2);
    assert_line(&h.gpu[1], "GPU 1: GPU is lost (it fell off the bus)", "does not answer");
}

static void test_sick_gpu(void **state)
{
    int hot = 0, errors = 0;

    (void)state;
    assert_int_equal(read_as("sick"), 0);
    for (int i = 0; i < h.n; i++) {
        struct str a = {0};

        assert_int_equal(health_alarm(&h.gpu[i], &a), 1);
        hot += strstr(str_get(&a), "too hot (95 C)") != NULL;
        errors += strstr(str_get(&a), "3 uncorrected memory errors") != NULL;
        str_fini(&a);
    }
    assert_int_equal(hot, 1);
    assert_int_equal(errors, 1);
}

static void test_failures(void **state)
{
    (void)state;
    assert_int_equal(read_as("init"), ERR_DEVICE);
    assert_non_null(strstr(e.msg, "NVML: Driver Not Loaded"));
    assert_int_equal(setenv("HONE_NVML", "/nowhere/libnvidia-ml.so.1", 1), 0);
    assert_int_equal(health_read(&h, &e), ERR_DEVICE);
    assert_non_null(strstr(e.msg, "no NVML: /nowhere"));
}

/* Given up after a while; then nobody asks again. Last: the library stays hung. */
static void test_hangs(void **state)
{
    double begin = clock_now();

    (void)state;
    assert_int_equal(read_as("hang"), ERR_DEVICE);
    assert_true(clock_now() - begin < HEALTH_PATIENCE + 3);
    assert_non_null(strstr(e.msg, "does not answer"));
    assert_non_null(strstr(e.mend, "Xid"));
    begin = clock_now();
    assert_int_equal(read_as("hang"), ERR_DEVICE);
    assert_true(clock_now() - begin < 0.5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers),  cmocka_unit_test(test_lost_gpu),
        cmocka_unit_test(test_sick_gpu), cmocka_unit_test(test_failures),
        cmocka_unit_test(test_hangs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
