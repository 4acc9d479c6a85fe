/* The part of cmocka that tests/op uses, for machines that have a GPU and little else
 * (tests/gpu/run.sh). A failed assertion ends its test; the group's result is the number of
 * failed tests. */
#ifndef TESTS_GPU_CMOCKA_H
#define TESTS_GPU_CMOCKA_H

#include <setjmp.h>
#include <stdio.h>
#include <string.h>

struct CMUnitTest {
    const char *name;
    void (*test)(void **state);
};

static jmp_buf shim_failed;

#define fail_msg(...)                                                                      \
    (printf("%s:%d: ", __FILE__, __LINE__), printf(__VA_ARGS__), puts(""),                 \
     longjmp(shim_failed, 1))
#define assert_true(x)                                                                     \
    do {                                                                                   \
        if (!(x))                                                                          \
            fail_msg("not true: %s", #x);                                                  \
    } while (0)
#define assert_false(x)              assert_true(!(x))
#define assert_non_null(x)           assert_true((x) != NULL)
#define assert_null(x)               assert_true((x) == NULL)
#define assert_int_equal(a, b)       assert_true((long)(a) == (long)(b))
#define assert_int_not_equal(a, b)   assert_true((long)(a) != (long)(b))
#define assert_ptr_equal(a, b)       assert_true((const void *)(a) == (const void *)(b))
#define assert_memory_equal(a, b, n) assert_true(!memcmp(a, b, n))
#define assert_string_equal(a, b)    assert_true(!strcmp(a, b))
#define cmocka_unit_test(f)                                                                \
    {                                                                                      \
#f, f                                                                              \
    }
#define cmocka_run_group_tests(t, a, b) shim_run(t, sizeof(t) / sizeof *(t))

static inline int shim_run(const struct CMUnitTest *t, size_t n)
{
    volatile int failed = 0;

    for (volatile size_t i = 0; i < n; i++) {
        if (setjmp(shim_failed)) {
            printf("FAILED %s\n", t[i].name);
            failed++;
            continue;
        }
        t[i].test(NULL);
    }
    return failed;
}

#endif
