/* Configuration trees: places, limits, hostile input, writing and reading again, --set. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/node.h"

static struct node *parse(struct arena *a, const char *text)
{
    struct node *n = NULL;
    struct err e = {0};

    if (node_parse(a, "job.yaml", text, strlen(text), &n, &e))
        fail_msg("%s", e.msg);
    return n;
}

static void refused(const char *text, size_t len, const char *message)
{
    struct arena a = {0};
    struct node *n;
    struct err e = {0};

    assert_int_equal(node_parse(&a, "job.yaml", text, len, &n, &e), ERR_CONFIG);
    if (!strstr(e.msg, message))
        fail_msg("\"%s\" lacks \"%s\"", e.msg, message);
    assert_null(n);
    arena_fini(&a);
}

static void places(void **state)
{
    struct arena a = {0};
    struct node *n, *lr;

    (void)state;
    n = parse(&a, "name: x\nstages:\n  sft: {lr: 2e-5, list: [a, \"7\"]}\n");
    lr = node_get(node_get(node_get(n, "stages"), "sft"), "lr");
    assert_string_equal(lr->text, "2e-5");
    assert_int_equal(lr->line, 3);
    assert_int_equal(lr->column, 13);
    assert_int_equal(lr->key_column, 9);
    assert_int_equal(lr->next->n, 2);
    assert_false(lr->next->child->quoted);
    assert_true(lr->next->child->next->quoted);
    n = parse(&a,
              "{\n \"a\": \"\\\"é\", \"stages\":\n {\"lr\": 0.1, \"b\": [true, null]}}");
    lr = node_get(node_get(n, "stages"), "lr");
    assert_string_equal(lr->text, "0.1");
    assert_int_equal(lr->line, 3);
    assert_int_equal(lr->column, 9);
    assert_int_equal(lr->key_column, 3);
    assert_int_equal(node_get(n, "stages")->key_column, 14);
    assert_true(node_is_null(lr->next->child->next));
    assert_int_equal(lr->next->child->column, 20);
    arena_fini(&a);
}

static void hostile(void **state)
{
    static const struct {
        const char *text, *message;
    } bad[] = {
        {"", "empty"},
        {"# nothing\n", "empty"},
        {"a: 1\na: 2\n", "job.yaml:2:1: key \"a\" is given twice"},
        {"{\"a\": 1, \"a\": 2}", "duplicate"},
        {"a: &x 1\nb: *x\n", "job.yaml:1:4: anchors"},
        {"b: *x\n", "job.yaml:1:4: anchors"},
        {"a: !!int 1\n", "tags"},
        {"a: 1\n---\nb: 2\n", "more than one YAML document"},
        {"a: [1\n", "job.yaml:"},
        {"a:\n\t- 1\n", "job.yaml:2:1"},
        {"? {a: 1}\n: 2\n", "a key must be a plain word"},
        {"a: \"\\0\"\n", "NUL"},
        {"a: \"\\ud83d\"\n", "job.yaml:1"},
        {"{\"a\": \"\\ud83d\"}", "job.yaml:1"},
        {"{\"a\": \"\\u0000\"}", "job.yaml:1"},
        {"{\"a\": 1} x", "job.yaml:1"},
        {"{\"a\": 01}", "job.yaml:1"},
        {"a: \xff\n", "0xff is not UTF-8"},
        {"a: \xed\xa0\x80\n", "is not UTF-8"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        refused(bad[i].text, strlen(bad[i].text), bad[i].message);
    refused("a: x\0y\n", 7, "job.yaml:1");
}

/* Bombs end at once: 200,000 brackets take libyaml half a minute when it is let. */
static void bombs(void **state)
{
    static const char *const unit[] = {"[", "{\"a\":", "- ", "{a: ", "? ", "a: [", "[\n"};
    struct str s = {0};
    double start = clock_now();

    (void)state;
    for (size_t i = 0; i < sizeof unit / sizeof *unit; i++) {
        str_clear(&s);
        while (s.len < 900000)
            str_add(&s, unit[i]);
        refused(s.s, s.len, "job.yaml:");
    }
    str_clear(&s);
    for (int i = 0; s.len < 1000000; i++)
        str_addf(&s, "k%d:\n", i);
    refused(s.s, s.len, "more than 512 keys");
    while (s.len <= 1 << 20)
        str_add(&s, "#\n");
    refused(s.s, s.len, "1 MiB");
    str_clear(&s);
    for (int i = 0; i < 129; i++)
        str_add(&s, "k");
    str_add(&s, ": 1\n");
    refused(s.s, s.len, "longer than 128");
    assert_true(clock_now() - start < 5.0);
    str_fini(&s);
}

static void round_trip(void **state)
{
    static const char *const texts[] = {
        "a: 1\nb: \"1\"\nc: [x, 'y: z', \"\\t\\x7f\\u2028\\xa0\", ~, '', null, \"null\"]\n",
        "a: {b: {c: [], d: {}, e: [[1, 2], [3]]}}\nf: 'true'\ng: true\n",
        "- 0x1f\n- .5\n- .inf\n- -x\n- \"- x\"\n- '---'\n- '#'\n- \"\\ufeff\"\n- 😀\n",
        "plain\n",
        "[]\n",
        "{}\n",
        "a: |\n  two\n  lines\nb: >-\n  folded\n  text\n",
    };
    struct arena a = {0};

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct str one = {0}, two = {0}, json = {0}, again = {0};

        node_write_yaml(parse(&a, texts[i]), &one);
        node_write_yaml(parse(&a, one.s), &two);
        assert_string_equal(one.s, two.s);
        node_write_json(parse(&a, texts[i]), &json);
        node_write_json(parse(&a, one.s), &again);
        assert_string_equal(json.s, again.s);
        str_clear(&two);
        str_clear(&again);
        str_add(&two, "- "); /* a first `{` would be JSON */
        node_write_flow(parse(&a, texts[i]), &two);
        node_write_json(parse(&a, two.s)->child, &again);
        assert_string_equal(json.s, again.s);
        str_fini(&one);
        str_fini(&two);
        str_fini(&json);
        str_fini(&again);
    }
    arena_fini(&a);
}

static void set(void **state)
{
    struct arena a = {0};
    struct node *n = parse(&a, "stages:\n  sft: {lr: 1e-5}\n  rm:\nname: x\n");
    struct err e = {0};
    struct str s = {0};

    (void)state;
    assert_int_equal(node_set(&a, n, "stages.sft.lr=3e-5", &e), 0);
    assert_int_equal(node_set(&a, n, "stages.rm.alpha=0.5", &e), 0);
    assert_int_equal(node_set(&a, n, "data.split={validation: 0.1}", &e), 0);
    assert_int_equal(node_set(&a, n, "name=", &e), 0);
    assert_int_equal(node_set(&a, n, "name.x=1", &e), 0); /* null becomes a map */
    assert_int_equal(node_set(&a, n, "name.x.y=1", &e), ERR_USAGE);
    assert_int_equal(node_set(&a, n, "=1", &e), ERR_USAGE);
    assert_int_equal(node_set(&a, n, "a", &e), ERR_USAGE);
    assert_int_equal(node_set(&a, n, "a.=1", &e), ERR_USAGE);
    assert_int_equal(node_set(&a, n, ".a=1", &e), ERR_USAGE);
    assert_int_equal(node_set(&a, n, "a=[1", &e), ERR_CONFIG);
    node_write_json(n, &s);
    assert_string_equal(s.s, "{\"stages\": {\"sft\": {\"lr\": 3e-5}, \"rm\": {\"alpha\": "
                             "0.5}}, \"name\": {\"x\": 1}, \"data\": {\"split\": "
                             "{\"validation\": 0.1}}}");
    str_clear(&s);
    node_path(node_get(node_get(node_get(n, "stages"), "sft"), "lr"), &s);
    assert_string_equal(s.s, "stages.sft.lr");
    str_fini(&s);
    arena_fini(&a);
}

static void memory_runs_out(void **state)
{
    static const char *const texts[] = {"a: [1, {b: 2}]\n", "{\"a\": [1, {\"b\": 2}]}"};

    (void)state;
    for (int t = 0; t < 2; t++)
        for (long i = 0;; i++) {
            struct arena a = {0};
            struct node *n;
            struct err e = {0};
            int rc;

            mem_fail_at(i);
            rc = node_parse(&a, "f", texts[t], strlen(texts[t]), &n, &e);
            mem_fail_at(-1);
            arena_fini(&a);
            assert_int_equal(mem_live(), 0);
            if (rc == 0)
                break;
            assert_int_equal(rc, ERR_NOMEM);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(places), cmocka_unit_test(hostile),
        cmocka_unit_test(bombs),  cmocka_unit_test(round_trip),
        cmocka_unit_test(set),    cmocka_unit_test(memory_runs_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
