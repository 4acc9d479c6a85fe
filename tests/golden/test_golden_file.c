/* Golden files are input from outside: what is wrong with one is said by name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "worker/verb/golden.h"

static const int64_t ids[] = {5, 6, 7, 5, 8, 0}, mask[] = {1, 1, 1, 1, 1, 0};
static const int64_t labels[] = {1, 0}, token_labels[] = {-100, 3, 4, -100, 2, -100};
static const int64_t holes[] = {1, 0, 1, 1, 1, 0}, empty_row[] = {1, 1, 1, 0, 0, 0};
static const int64_t huge_ids[] = {5, 6, 7, 5, 1ll << 40, 0};
static const float floats[] = {1, 1, 1, 1, 1, 0};

static struct safetensors_item grid(const char *name, enum dtype type, const void *data)
{
    return (struct safetensors_item){name, type, 2, {2, 3}, data};
}

static int open_items(struct golden *g, const struct safetensors_item *item, size_t n,
                      struct err *e)
{
    char path[64];
    int rc;

    snprintf(path, sizeof path, "/tmp/hone-golden-%ld.safetensors", (long)getpid());
    if (safetensors_write(path, NULL, item, n, e))
        fail_msg("%s", e->msg);
    rc = golden_open(g, path, e);
    unlink(path);
    return rc;
}

static void refuse(const struct safetensors_item *item, size_t n, const char *words)
{
    struct golden g;
    struct err e = {0};

    assert_int_equal(open_items(&g, item, n, &e), ERR_CORRUPT);
    if (!strstr(e.msg, words))
        fail_msg("\"%s\" lacks \"%s\"", e.msg, words);
    golden_close(&g);
    golden_close(&g);
}

static void test_packs_rows(void **state)
{
    static const int want[] = {5, 6, 7, 5, 8}, want_labels[] = {-100, 3, 4, -100, 2};
    struct safetensors_item item[] = {grid("input_ids", DTYPE_I64, ids),
                                      grid("attention_mask", DTYPE_I64, mask),
                                      grid("labels", DTYPE_I64, token_labels)};
    struct golden g;
    struct err e = {0};

    (void)state;
    assert_int_equal(open_items(&g, item, 3, &e), 0);
    assert_int_equal(g.in.B, 2);
    assert_int_equal(g.in.T, 5);
    assert_int_equal(g.in.max_len, 3);
    assert_int_equal(g.in.cu_seqlens[1], 3);
    assert_int_equal(g.in.cu_seqlens[2], 5);
    assert_memory_equal(g.in.ids, want, sizeof want);
    assert_memory_equal(g.label, want_labels, sizeof want_labels);
    assert_int_equal(g.in.position[4], 1);
    assert_int_equal(g.in.example[4], 1);
    assert_int_equal(g.in.types[4], 0);
    assert_true(g.token_labels);
    golden_close(&g);
}

static void test_row_labels(void **state)
{
    struct safetensors_item item[] = {grid("input_ids", DTYPE_I64, ids),
                                      grid("attention_mask", DTYPE_I64, mask),
                                      {"labels", DTYPE_I64, 1, {2}, labels}};
    struct golden g;
    struct err e = {0};

    (void)state;
    assert_int_equal(open_items(&g, item, 3, &e), 0);
    assert_false(g.token_labels);
    assert_int_equal(g.label[0], 1);
    golden_close(&g);
}

static void test_refuses(void **state)
{
    struct safetensors_item good = grid("input_ids", DTYPE_I64, ids);
    struct safetensors_item item[2] = {good, grid("attention_mask", DTYPE_I64, mask)};

    (void)state;
    refuse(&item[1], 1, "no tensor \"input_ids\"");
    refuse(item, 1, "no tensor \"attention_mask\"");
    item[1].data = holes;
    refuse(item, 2, "row 0 is not ones followed by zeros");
    item[1].data = empty_row;
    refuse(item, 2, "row 1 is empty");
    item[1] = grid("attention_mask", DTYPE_F32, floats);
    refuse(item, 2, "attention_mask is F32, want I64");
    item[1] = (struct safetensors_item){"attention_mask", DTYPE_I64, 2, {3, 2}, mask};
    refuse(item, 2, "want the shape [rows, tokens]");
    item[1] = grid("attention_mask", DTYPE_I64, mask);
    item[0].data = huge_ids;
    refuse(item, 2, "element 4 is 1099511627776");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_packs_rows),
        cmocka_unit_test(test_row_labels),
        cmocka_unit_test(test_refuses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
