/* precision: auto decides by a measurement, keeps it, and trusts no cache blindly. The back
 * end is the real one with a product that only takes its time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "worker/train/precision.h"

static struct backend fake;
static long nanoseconds[2]; /* of a product, by precision */
static int products;
static char root[64], cache[256];

static int fake_matmul(const struct matmul_args *a)
{
    struct timespec t = {0, nanoseconds[a->precision]};

    products++;
    nanosleep(&t, NULL);
    return 0;
}

static const char *fake_bf16(void)
{
    return "fake";
}

static const char *no_bf16(void)
{
    return NULL;
}

static int set_up(void **state)
{
    (void)state;
    fake = *backend_find("cpu");
    fake.matmul = fake_matmul;
    fake.bf16 = fake_bf16;
    snprintf(root, sizeof root, "/tmp/hone-precision-XXXXXX");
    if (!mkdtemp(root))
        return -1;
    snprintf(cache, sizeof cache, "%s/cache", root);
    return setenv("XDG_CACHE_HOME", cache, 1);
}

static int clean_up(void **state)
{
    struct err e;

    (void)state;
    return file_remove_tree(root, &e);
}

static void speeds(long f32, long bf16)
{
    nanoseconds[PRECISION_F32] = f32;
    nanoseconds[PRECISION_BF16] = bf16;
    products = 0;
}

/* The one file of the cache. */
static void find_file(char path[600])
{
    char **names, dir[300];
    struct err e;
    size_t n;

    snprintf(dir, sizeof dir, "%s/hone", cache);
    assert_int_equal(file_list(dir, &names, &n, &e), 0);
    assert_int_equal(n, 1);
    snprintf(path, 600, "%s/%s", dir, names[0]);
    mem_free(names[0]);
    mem_free(names);
}

static void test_nothing_is_measured_without_instructions(void **state)
{
    double speedup = 1;

    (void)state;
    fake.bf16 = no_bf16;
    speeds(1, 1);
    assert_int_equal(precision_auto(&fake, &speedup), PRECISION_F32);
    assert_int_equal(products, 0);
    assert_true(speedup == 0);
    fake.bf16 = fake_bf16;
}

static void test_measured_once(void **state)
{
    double speedup;

    (void)state;
    speeds(20000000, 1000000);
    assert_int_equal(precision_auto(&fake, &speedup), PRECISION_BF16);
    assert_true(speedup > 1.25 && products > 2);
    speeds(1000000, 20000000);
    assert_int_equal(precision_auto(&fake, NULL), PRECISION_BF16);
    assert_int_equal(products, 0);
}

static void test_a_bad_cache_is_measured_again(void **state)
{
    static const char *const bad[] = {"",
                                      "{",
                                      "[1]",
                                      "{\"of\": 3}",
                                      "{\"of\": \"another processor\", \"speedup\": 9}",
                                      "{\"speedup\": 9}"};
    char path[600];
    struct err e;

    (void)state;
    find_file(path);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(file_write_atomic(path, bad[i], strlen(bad[i]), &e), 0);
        speeds(1000000, 20000000);
        assert_int_equal(precision_auto(&fake, NULL), PRECISION_F32);
        assert_true(products > 2);
    }
    speeds(20000000, 1000000);
    assert_int_equal(precision_auto(&fake, NULL), PRECISION_F32);
    assert_int_equal(products, 0);
}

/* Neither a folder that cannot be made nor no home at all is a failure. */
static void test_no_cache(void **state)
{
    char file[300];
    struct err e;

    (void)state;
    snprintf(file, sizeof file, "%s/file", root);
    assert_int_equal(file_write_atomic(file, "x", 1, &e), 0);
    setenv("XDG_CACHE_HOME", file, 1);
    for (int i = 0; i < 2; i++) {
        speeds(20000000, 1000000);
        assert_int_equal(precision_auto(&fake, NULL), PRECISION_BF16);
        assert_true(products > 2);
        setenv("XDG_CACHE_HOME", "relative", 1);
        unsetenv("HOME");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_measured_without_instructions),
        cmocka_unit_test(test_measured_once),
        cmocka_unit_test(test_a_bad_cache_is_measured_again),
        cmocka_unit_test(test_no_cache),
    };

    return cmocka_run_group_tests(tests, set_up, clean_up);
}
