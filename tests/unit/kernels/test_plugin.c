/* Loading a back end from a file: what is refused says why in one line; a plug-in without a
 * device is there, and is not chosen. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/plugin.h"

static char why[512];

static const char *path_of(const char *name)
{
    static char path[4096];
    const char *dir = getenv("HONE_FAKES");

    snprintf(path, sizeof path, "%s/fake_%s.so", dir ? dir : ".", name);
    return path;
}

static void assert_refused(const char *path, const char *reason)
{
    assert_null(plugin_load(path, why, sizeof why));
    if (!strstr(why, reason) || strchr(why, '\n'))
        fail_msg("%s: \"%s\" does not say \"%s\"", path, why, reason);
}

static void test_refused(void **state)
{
    (void)state;
    assert_refused("/nowhere/hone-cuda.so", "/nowhere/hone-cuda.so is absent");
    assert_refused("CMakeLists.txt", "cannot be loaded");
    assert_refused(path_of("name"), "is not a plug-in of Hone");
    assert_refused(path_of("abi"), "another version of Hone (interface 4242 of");
    assert_refused(path_of("size"), "of 24 bytes, not");
    assert_refused(path_of("hole"), "lacks operators");
}

static void test_loaded(void **state)
{
    const struct backend *b = plugin_load(path_of("good"), why, sizeof why);

    (void)state;
    assert_non_null(b);
    assert_string_equal(why, "");
    assert_string_equal(b->name, "cuda");
    assert_ptr_equal(plugin_load(path_of("good"), why, sizeof why), b);
}

/* No device is not an error: "cuda" is there with a reason, "auto" is the CPU. */
static void test_no_device(void **state)
{
    (void)state;
    assert_int_equal(setenv("HONE_CUDA_PLUGIN", path_of("good"), 1), 0);
    assert_non_null(backend_find("cuda"));
    assert_int_equal(backend_find("cuda")->devices(), 0);
    assert_string_equal(backend_reason("cuda"), "cuda: no device: the driver is too old");
    assert_ptr_equal(backend_find("auto"), backend_find("cpu"));
    assert_string_equal(backend_reason("auto"), "");
    assert_string_equal(backend_reason("ref"), "");
    assert_string_equal(backend_reason("abacus"), "no such back end");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_loaded),
        cmocka_unit_test(test_no_device),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
