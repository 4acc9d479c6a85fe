/* Which GPUs a daemon gives away: as it is told, as its environment says, as the driver
 * lists them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/file.h"
#include "daemon/gpus.h"

static void assert_set(const struct cores *c, const char *want)
{
    struct str text = {0};

    cores_write(c, &text);
    assert_string_equal(str_get(&text), want);
    str_fini(&text);
}

static void test_parse(void **state)
{
    static const char *const bad[] = {"",   "a",    "0,",   ",0",  "0,0",
                                      "-1", "1024", "0, 1", "0;1", "none,1"};
    struct cores c;
    struct err e;

    (void)state;
    assert_int_equal(gpus_parse("3,0,5", &c, &e), 0);
    assert_set(&c, "0,3,5");
    assert_int_equal(gpus_parse("none", &c, &e), 0);
    assert_set(&c, "");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(gpus_parse(bad[i], &c, &e), ERR_USAGE);
        assert_set(&c, "");
        assert_true(e.mend[0] != 0);
    }
}

static void test_find(void **state)
{
    static const char *const names[] = {"0000:01:00.0", "0000:02:00.0", "0000:41:00.0"};
    char dir[] = "/tmp/hone-gpus-XXXXXX", path[64];
    struct cores c;
    struct err e;

    (void)state;
    assert_non_null(mkdtemp(dir));
    gpus_find(NULL, "/no/such/folder", &c);
    assert_set(&c, "");
    gpus_find(NULL, dir, &c);
    assert_set(&c, "");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        assert_int_equal(mkdir(path, 0700), 0);
    }
    gpus_find(NULL, dir, &c);
    assert_set(&c, "0,1,2");
    gpus_find("2", dir, &c); /* the environment says less */
    assert_set(&c, "2");
    gpus_find("", dir, &c);
    assert_set(&c, "");
    gpus_find("GPU-8a56a4bc", dir, &c);
    assert_set(&c, "");
    assert_int_equal(file_remove_tree(dir, &e), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_parse),
                                       cmocka_unit_test(test_find)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
