/* The GPU watched while training goes on: readings, alarms once, an Xid, a GPU that falls
 * off the bus, a library that hangs in the middle; nobody waits for it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/clock.h"
#include "worker/train/health_watch.h"

#define BUS "0000:3B:00.0"

static struct health_watch *start(const char *mode)
{
    const char *dir = getenv("HONE_FAKES");
    char path[4096];
    struct health_watch *w;

    snprintf(path, sizeof path, "%s/fake_nvml.so", dir ? dir : ".");
    assert_int_equal(setenv("HONE_NVML", path, 1), 0);
    assert_int_equal(setenv("FAKE_NVML", mode, 1), 0);
    w = health_watch_start(BUS, 0.05, NULL, NULL);
    assert_non_null(w);
    return w;
}

static void nap(void)
{
    struct timespec t = {0, 10 * 1000 * 1000};

    nanosleep(&t, NULL);
}

/* The next alarm within `seconds`; 0: none came. */
static int alarm_within(struct health_watch *w, double seconds, char text[256])
{
    double until = clock_now() + seconds;

    while (!health_watch_alarm(w, text, 256)) {
        if (clock_now() > until)
            return 0;
        nap();
    }
    return 1;
}

static void test_readings(void **state)
{
    struct health_watch *w = start("ok");
    double until = clock_now() + 20;
    struct health_gpu g;
    char text[256];

    (void)state;
    while (!health_watch_latest(w, &g) && clock_now() < until)
        nap();
    assert_true(g.busy == 37 && g.celsius == 41 && g.watts == 75.5 && g.used == 2e9);
    assert_false(alarm_within(w, 0.3, text));
    health_watch_stop(w);
}

static void test_alarms(void **state)
{
    struct health_watch *w = start("sick");
    char text[256];

    (void)state;
    assert_true(alarm_within(w, 20, text));
    assert_non_null(strstr(text, "too hot (95 C)"));
    assert_false(alarm_within(w, 0.3, text)); /* told once */
    health_watch_stop(w);
}

static void test_xid(void **state)
{
    struct health_watch *w = start("xid");
    char text[256];

    (void)state;
    assert_true(alarm_within(w, 20, text));
    assert_string_equal(text, "NVIDIA Fake 1000 (" BUS ") reports Xid 79: it fell off the "
                              "bus; the machine needs a reboot");
    health_watch_stop(w);
}

static void test_falls(void **state)
{
    struct health_watch *w = start("falls");
    char text[256];

    (void)state;
    assert_true(alarm_within(w, 20, text));
    assert_string_equal(text, BUS " does not answer: GPU is lost (it fell off the bus)");
    assert_true(health_watch_broken(w, text, sizeof text));
    assert_string_equal(text, BUS " does not answer: GPU is lost (it fell off the bus)");
    health_watch_stop(w);
}

/* An uncorrected error while we watch breaks the GPU; a reading comes when it is asked for.
 */
static void test_memory_error(void **state)
{
    struct health_watch *w = start("ecc");
    double until = clock_now() + 20;
    struct health_gpu g;
    char text[256];

    (void)state;
    while (!health_watch_broken(w, text, sizeof text) && clock_now() < until)
        health_watch_ask(w, 1);
    assert_string_equal(text,
                        "NVIDIA Fake 1000 (" BUS ") has had 1 uncorrected memory errors "
                        "since the stage began: results may be wrong");
    assert_true(health_watch_latest(w, &g) && g.ecc_uncorrected == 1);
    health_watch_stop(w);
}

/* No library, or one that does not start: nothing is known, and nothing is wrong. */
static void test_absent(void **state)
{
    struct health_watch *w;
    struct health_gpu g;
    char text[256];

    (void)state;
    assert_int_equal(setenv("HONE_NVML", "/nowhere/libnvidia-ml.so.1", 1), 0);
    w = health_watch_start(BUS, 0.05, NULL, NULL);
    assert_false(alarm_within(w, 0.2, text));
    assert_false(health_watch_latest(w, &g));
    health_watch_stop(w);
    w = start("init");
    assert_false(alarm_within(w, 0.2, text));
    health_watch_stop(w);
    assert_false(health_watch_latest(NULL, &g));
    assert_false(health_watch_alarm(NULL, text, sizeof text));
    health_watch_stop(NULL);
}

/* Last: its thread stays in the library. */
static void test_hangs(void **state)
{
    struct health_watch *w = start("stuck");
    double begin = clock_now();
    char text[256];

    (void)state;
    assert_true(alarm_within(w, 20, text));
    assert_non_null(strstr(text, "NVML does not answer"));
    assert_true(clock_now() - begin > HEALTH_PATIENCE);
    assert_false(alarm_within(w, 0.3, text)); /* told once */
    begin = clock_now();
    health_watch_stop(w);
    assert_true(clock_now() - begin < HEALTH_PATIENCE + 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_readings),     cmocka_unit_test(test_alarms),
        cmocka_unit_test(test_xid),          cmocka_unit_test(test_falls),
        cmocka_unit_test(test_memory_error), cmocka_unit_test(test_absent),
        cmocka_unit_test(test_hangs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
