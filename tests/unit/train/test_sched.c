/* Schedules against the formulas of transformers; metrics.jsonl cut back and refused. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/rng.h"
#include "worker/train/curve.h"
#include "worker/train/sched.h"
#include "worker/train/stall.h"

static void warm_up_rounds_up(void **state)
{
    struct sched s;

    (void)state;
    sched_init(&s, SCHEDULE_LINEAR, 0.1, 30);
    assert_int_equal(s.warmup, 3);
    sched_init(&s, SCHEDULE_LINEAR, 0.1, 31);
    assert_int_equal(s.warmup, 4);
    sched_init(&s, SCHEDULE_LINEAR, 0, 31);
    assert_int_equal(s.warmup, 0);
    sched_init(&s, SCHEDULE_LINEAR, 0.999, 1);
    assert_int_equal(s.warmup, 1);
}

/* Steps until it says "stalled", of `total`: noise around a loss that falls by `fall` a
 * step; -1: never. */
static long stalls_at(uint64_t seed, long asked, long total, double fall)
{
    struct stall s;
    struct rng r;
    long at = -1;

    rng_init(&r, rng_key(seed, 5, 0, 0));
    stall_init(&s, asked, total);
    for (long i = 1; i <= total; i++) {
        double noise = rng_uniform(&r) + rng_uniform(&r) - 1;

        if (stall_step(&s, 2 - fall * (double)i + 0.3 * noise, total - i)) {
            assert_int_equal(at, -1); /* once */
            at = i;
        }
    }
    return at;
}

static void stalled_loss(void **state)
{
    int false_alarms = 0, missed = 0;

    (void)state;
    for (uint64_t seed = 0; seed < 200; seed++) {
        false_alarms += stalls_at(seed, 0, 5000, 1e-4) >= 0;
        missed += stalls_at(seed, 0, 5000, 0) < 0;
        assert_int_equal(stalls_at(seed, -1, 5000, 0), -1); /* off */
        assert_int_equal(stalls_at(seed, 0, 150, 0), -1);   /* too short to tell */
    }
    assert_int_equal(false_alarms, 0);
    assert_int_equal(missed, 0);
    assert_int_equal(stalls_at(1, 0, 5000, 0), 2000);
    assert_int_equal(stalls_at(1, 50, 5000, -1e-3), 100); /* one that rises */
}

static void factors(void **state)
{
    struct sched s;

    (void)state;
    sched_init(&s, SCHEDULE_LINEAR, 0.1, 20);
    assert_true(sched_factor(&s, 0) == 0);
    assert_true(sched_factor(&s, 1) == 0.5);
    assert_true(sched_factor(&s, 2) == 1);
    assert_true(fabs(sched_factor(&s, 19) - 1.0 / 18) < 1e-15);
    assert_true(sched_factor(&s, 20) == 0);
    s.kind = SCHEDULE_COSINE;
    assert_true(sched_factor(&s, 2) == 1);
    assert_true(fabs(sched_factor(&s, 11) - 0.5) < 1e-15);
    assert_true(sched_factor(&s, 20) == 0);
    s.kind = SCHEDULE_CONSTANT;
    assert_true(sched_factor(&s, 1) == 0.5);
    assert_true(sched_factor(&s, 19) == 1);
}

static void record_is_cut(void **state)
{
    char dir[] = "/tmp/hone-record-XXXXXX", *text;
    struct curve r;
    struct err e;
    long long at;
    size_t n;

    (void)state;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(curve_open(&r, dir, 0, &e), 0);
    assert_int_equal(curve_line(&r, "{\"step\": 1}", &e), 0);
    assert_int_equal(curve_sync(&r, &e), 0);
    at = r.size;
    assert_int_equal(curve_line(&r, "{\"step\": 2}", &e), 0);
    assert_int_equal(curve_open(&r, dir, at, &e), 0);
    assert_int_equal(curve_line(&r, "{\"step\": 3}", &e), 0);
    assert_int_equal(file_read(r.path, 1000, &text, &n, &e), 0);
    assert_string_equal(text, "{\"step\": 1}\n{\"step\": 3}\n");
    mem_free(text);
    assert_int_equal(curve_open(&r, dir, 1000, &e), ERR_CORRUPT);
    assert_int_equal(file_remove_tree(dir, &e), 0);
}

static void record_line_is_json(void **state)
{
    struct metric_list m = {{"loss", "lr"}, {0.5, NAN}, 2};
    struct str s = {0};

    (void)state;
    curve_format(&s, 7, 1.25, 3.5, "train", &m);
    assert_string_equal(s.s, "{\"step\": 7, \"epoch\": 1.25, \"time\": 3.500, "
                             "\"split\": \"train\", \"loss\": 0.5, \"lr\": null}");
    str_fini(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(warm_up_rounds_up),   cmocka_unit_test(factors),
        cmocka_unit_test(stalled_loss),        cmocka_unit_test(record_is_cut),
        cmocka_unit_test(record_line_is_json),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
