/* The operator tests once more with the inner loops of lesser processors (HONE_ISA). */
#include <libgen.h>
#include <unistd.h>

#include "tests/op/op_test.h"

static void run_tests_with(const char *isa)
{
    static const char *const tests[] = {"matmul", "act",  "norm", "attention",
                                        "tokens", "loss", "train"};
    char self[4096], command[4400];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);

    assert_true(n > 0);
    self[n] = 0;
    dirname(self);
    assert_int_equal(setenv("HONE_ISA", isa, 1), 0);
    for (long i = 0; i < COUNT(tests); i++) {
        snprintf(command, sizeof command, "'%s/op_%s' >/dev/null 2>&1", self, tests[i]);
        if (system(command) != 0)
            fail_msg("HONE_ISA=%s %s", isa, command);
    }
}

static void test_avx2(void **state)
{
    (void)state;
    run_tests_with("avx2");
}

static void test_plain(void **state)
{
    (void)state;
    run_tests_with("plain");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_avx2),
        cmocka_unit_test(test_plain),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
