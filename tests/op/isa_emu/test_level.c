/* The emulated processor is the one that HONE_ISA names: the tests beside this one are not
 * passed by other loops than those they are meant for. */
#include "tests/op/op_test.h"

static void test_level(void **state)
{
    const struct backend *be = backend_find("cpu");
    const char *ask = getenv("HONE_ISA"), *bf16 = be->bf16();
    char text[128];

    (void)state;
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        skip();
    be->describe(text, sizeof text);
    assert_non_null(ask);
    assert_non_null(strstr(text, "avx512 loops"));
    if (strcmp(ask, "avx512"))
        assert_string_equal(bf16, ask);
    else
        assert_null(bf16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_level)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
