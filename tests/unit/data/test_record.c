/* The short way through JSONL against jansson: the same fields, the same complaints. */
#include "tests/unit/data/scratch.h"

#include "base/mem.h"
#include "base/rng.h"
#include "worker/data/record.h"

/* Both ways over the same lines; how many came out good. */
static int agree(const char *text, size_t n)
{
    struct data_spec spec = {.header = 1, .text = {"text"}};
    struct reader *a = mem_alloc(sizeof *a), *b = mem_alloc(sizeof *b);
    struct err e;
    int x = 1, good = 0;

    assert_int_equal(record_open(a, &spec, "f", DATA_JSONL, text, n, 1, &e), 0);
    assert_int_equal(record_open(b, &spec, "f", DATA_JSONL, text, n, 1, &e), 0);
    b->careful = 1;
    while (x > 0) {
        x = record_next(a, &e);
        assert_int_equal(x, record_next(b, &e));
        assert_int_equal(a->row, b->row);
        if (x == RECORD_BAD)
            assert_string_equal(a->what, b->what);
        for (int k = 0; k < FIELDS && x == RECORD_OK; k++) {
            assert_int_equal(a->field[k].kind, b->field[k].kind);
            assert_int_equal(a->field[k].n, b->field[k].n);
            assert_memory_equal(a->field[k].s, b->field[k].s, a->field[k].n);
        }
        good += x == RECORD_OK;
    }
    record_close(a);
    record_close(b);
    mem_free(a);
    mem_free(b);
    return good;
}

static void lines(void **state)
{
    static const struct {
        const char *line;
        int good;
    } all[] = {
        {"{\"text\": \"a\", \"label\": 1}", 1},
        {" \t{ \"text\" : \"a\\n\\\"\\\\\\/\\b\\f\\r\\t\" ,\"label\":-0 } \t", 1},
        {"{\"text\": \"\\u00e9\\u20AC\", \"label\": 999999999999999999}", 1},
        {"{\"text\": \"\\ud83d\\ude00\", \"label\": 1}", 1},
        {"{\"text\": \"\\ud83d\", \"label\": 1}", 0},
        {"{\"text\": \"\\u0000\", \"label\": 1}", 0},
        {"{\"text\": \"\\u00g0\", \"label\": 1}", 0},
        {"{\"text\": \"\\x\", \"label\": 1}", 0},
        {"{\"text\": \"\\", 0},
        {"{\"text\": \"\\\"", 0},
        {"{\"text\": \"\\\\\", \"label\": 1}", 1},
        {"{\"text\": \"\\\\\\\", \"label\": 1}", 0},
        {"{\"text\": \"a\tb\", \"label\": 1}", 0},
        {"{\"text\": \"a\", \"label\": 01}", 0},
        {"{\"text\": \"a\", \"label\": -}", 0},
        {"{\"text\": \"a\", \"label\": 1.50}", 1},
        {"{\"text\": \"a\", \"label\": 1e2}", 1},
        {"{\"text\": \"a\", \"label\": 1.}", 0},
        {"{\"text\": \"a\", \"label\": 99999999999999999999}", 0},
        {"{\"text\": \"a\", \"label\": \"x\", \"n\": 12345678901234567}", 1},
        {"{\"text\": \"a\", \"label\": 3, \"n\": 7}", 1},
        {"{\"n\": 7, \"label\": 3, \"m\": -8, \"text\": \"a\"}", 1},
        {"{\"text\": \"a\", \"label\": null}", 0},
        {"{\"text\": \"a\", \"label\": true}", 1},
        {"{\"text\": null, \"label\": 1}", 0},
        {"{\"text\": nul, \"label\": 1}", 0},
        {"{\"text\": 5, \"label\": 1}", 0},
        {"{\"text\": \"a\", \"label\": 1,}", 0},
        {"{\"text\": \"a\" \"label\": 1}", 0},
        {"{\"text\": \"a\", \"label\": 1} x", 0},
        {"{\"text\": \"a\", \"text\": \"b\", \"label\": 1}", 0},
        {"{\"te\\u0078t\": \"a\", \"label\": 1}", 1},
        {"{\"te\\u0078t\": \"a\", \"text\": \"b\", \"label\": 1}", 0},
        {"{\"text\": \"a\", \"label\": 1, \"x\": [1, {}]}", 1},
        {"{\"text\": \"a\", \"label\": 1, \"x\": \"\\u12\"}", 0},
        {"{\"text\": \"a\", \"label\": 1, \"\": \"\"}", 1},
        {"{}", 0},
        {"{,}", 0},
        {"{", 0},
        {"[]", 0},
        {"\"text\"", 0},
        {"{\"a\":1,\"b\":1,\"c\":1,\"d\":1,\"e\":1,\"f\":1,\"g\":1,\"h\":1,\"i\":1,\"j\":1,"
         "\"k\":1,\"l\":1,\"m\":1,\"n\":1,\"o\":1,\"p\":1,\"text\":\"x\",\"label\":2}",
         1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (agree(all[i].line, strlen(all[i].line)) != all[i].good)
            fail_msg("not %d: %s", all[i].good, all[i].line);
}

/* Lines put together from pieces at random, most of them wrong. */
static void random_lines(void **state)
{
    static const char *const piece[] = {
        "{",         "}",      "\"text\"",
        "\"label\"", ":",      ",",
        "\"",        "\\",     "1",
        "-",         "\"a\"",  "null",
        "true",      "\\u00e", "4",
        " ",         "[",      "]",
        "e",         ".5",     "{\"text\": \"a\", \"label\": 1",
        "\xc3",      "\xa9",   "\\n"};
    struct rng r;
    struct str s = {0};

    (void)state;
    rng_init(&r, 7);
    for (int i = 0; i < 20000; i++) {
        int n = 1 + (int)rng_below(&r, 12);

        str_clear(&s);
        for (int k = 0; k < n; k++)
            str_add(&s, piece[rng_below(&r, sizeof piece / sizeof *piece)]);
        agree(str_get(&s), s.len);
    }
    str_fini(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines),
        cmocka_unit_test(random_lines),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
