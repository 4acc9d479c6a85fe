/* Stragglers (worker/dist/lag.h): who is named, when, and how often. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "worker/dist/comm.h"
#include "worker/dist/lag.h"

enum { WINDOW = 100 };

/* A window in which each rank was the only one at work in so many looks. */
static int window(struct lag *l, int first, int second, double *share)
{
    int named = -1;

    for (int i = 0; i < WINDOW; i++) {
        int who = i < first ? 0 : i < first + second ? 1 : -1;
        int now = lag_look(l, who, share);

        if (i + 1 < WINDOW)
            assert_int_equal(now, -1);
        named = now;
    }
    return named;
}

static void test_named(void **state)
{
    struct lag l;
    double share = 0;

    (void)state;
    assert_int_equal(lag_open(&l, 2, WINDOW), 0);
    assert_int_equal(window(&l, 20, 20, &share), -1); /* two that are alike */
    assert_int_equal(window(&l, 34, 0, &share), -1);
    assert_int_equal(window(&l, 5, 50, &share), 1);
    assert_true(share > 0.49 && share < 0.51);
    assert_int_equal(window(&l, 5, 60, &share), -1); /* said */
    assert_int_equal(window(&l, 10, 10, &share), -1);
    assert_int_equal(window(&l, 5, 60, &share), 1); /* again */
    assert_int_equal(window(&l, 70, 0, &share), 0); /* another one */
    lag_close(&l);
    lag_close(&l);
    assert_int_equal(lag_look(&l, 0, &share), -1);
}

static void test_says(void **state)
{
    char text[200];

    (void)state;
    lag_say(text, sizeof text, 3, "h2", 77, 0.618, 11, COMM_BACKWARD);
    assert_string_equal(text,
                        "rank 3 on h2 (pid 77) lags: the others waited for it 62 % of "
                        "20 s, last at step 12, backward");
    lag_say(text, sizeof text, 3, "h2", 77, 0.618, 11, 1000);
    assert_non_null(strstr(text, "step 12, working"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_named),
                                       cmocka_unit_test(test_says)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
