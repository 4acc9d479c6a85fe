/* Every operator of HONE_OPS is called by some test in this folder, and every table of
 * backend_find() is complete. */
#include <dirent.h>

#include "tests/op/op_test.h"

static const char *const names[] = {
#define X(op) #op,
    HONE_OPS(X)
#undef X
};

/* All of tests/op/test_*.c but this file, in one string. */
static char *read_tests(void)
{
    DIR *dir = opendir("tests/op");
    char *all = mem_strdup(""), path[512];
    size_t n = 0;

    assert_non_null(dir);
    for (struct dirent *d; (d = readdir(dir));) {
        FILE *f;
        size_t got;

        if (strncmp(d->d_name, "test_", 5) || strstr(d->d_name, "coverage"))
            continue;
        snprintf(path, sizeof path, "tests/op/%s", d->d_name);
        f = fopen(path, "r");
        assert_non_null(f);
        do {
            all = mem_resize(all, n + 65536, 1);
            assert_non_null(all);
            got = fread(all + n, 1, 65535, f);
            n += got;
        } while (got);
        fclose(f);
    }
    closedir(dir);
    all[n] = 0;
    return all;
}

static void test_every_operator_is_tested(void **state)
{
    char *all = read_tests(), call[64];

    (void)state;
    for (long i = 0; i < COUNT(names); i++) {
        snprintf(call, sizeof call, "->%s(", names[i]);
        if (!strstr(all, call))
            fail_msg("operator %s has no test in tests/op", names[i]);
    }
    mem_free(all);
}

static void test_tables_are_complete(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        const struct backend *be = both_backends(i);
        char text[128] = "";

        assert_int_equal(be->abi, HONE_BACKEND_ABI);
        assert_int_equal(be->size, sizeof *be);
        assert_true(be->devices() >= 1);
#define X(op) assert_non_null(be->op);
        HONE_OPS(X)
#undef X
        be->describe(text, sizeof text);
        assert_true(strlen(text) > 3);
        be->set_threads(0);
        assert_true(be->threads() >= 1);
    }
    if (is_host())
        assert_ptr_equal(backend_find("auto"), backend_find("cpu"));
    assert_null(backend_find("abacus"));
}

static void test_memory(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        const struct backend *be = both_backends(i);
        float host[3] = {1, 2, 3}, back[3], *p = be->alloc(sizeof host);

        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 64, 0);
        assert_int_equal(be->copy_in(p, host, sizeof host), 0);
        assert_int_equal(be->copy_out(back, p, sizeof host), 0);
        assert_memory_equal(host, back, sizeof host);
        assert_int_equal(be->fill_zero(p, sizeof host), 0);
        assert_int_equal(be->copy_out(back, p, sizeof back), 0);
        assert_true(back[2] == 0);
        be->release(p);
    }
}

/* Longer than a device's pieces, and no multiple of them. */
static void test_large_copies(void **state)
{
    size_t n = (13 << 20) / sizeof(int) + 1;
    int *host = malloc(n * sizeof *host), *back = malloc(n * sizeof *back);

    (void)state;
    assert_non_null(host);
    assert_non_null(back);
    for (size_t i = 0; i < n; i++)
        host[i] = (int)(i * 2654435761u);
    for (int i = 0; i < 2; i++) {
        const struct backend *be = both_backends(i);
        int *p = be->alloc(n * sizeof *p);

        assert_non_null(p);
        memset(back, 0, n * sizeof *back);
        assert_int_equal(be->copy_in(p, host, n * sizeof *p), 0);
        assert_int_equal(be->copy_out(back, p, n * sizeof *p), 0);
        assert_memory_equal(host, back, n * sizeof *back);
        be->release(p);
    }
    free(host);
    free(back);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_operator_is_tested),
        cmocka_unit_test(test_tables_are_complete),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_large_copies),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
