/* Option tables: every type, bounds, all problems at once, "did you mean", round trip. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "base/opt.h"

struct config {
    int flag, mode;
    long batch;
    double lr, dropout;
    const char *title, *file;
    struct opt_list names, files, bins;
    const struct node *any;
};

static const char *const modes[] = {"linear", "cosine", NULL};
static const char *const dropout_words[] = {"model", NULL};
static const double dropout_values[] = {-1};

static const struct opt table[] = {
    OPT_BOOL(struct config, flag, 1, "a flag"),
    OPT_ENUM(struct config, mode, 1, modes, "a mode"),
    OPT_INT(struct config, batch, 16, 1, 1000, "examples a step"),
    OPT_FLOAT(struct config, lr, 2e-5, 0, 1, "learning rate"),
    {"dropout", OPT_TYPE_FLOAT, offsetof(struct config, dropout), -1, 0, 1,
     .help = "share of zeros", .words = dropout_words, .word_values = dropout_values},
    OPT_STRING(struct config, title, "none", "a text"),
    OPT_PATH(struct config, file, "a file"),
    OPT_STRINGS(struct config, names, "texts"),
    OPT_PATHS(struct config, files, "files"),
    OPT_FLOATS(struct config, bins, "edges"),
    OPT_NODE(struct config, any, "anything"),
    OPT_END,
};

static void apply(const char *text, struct config *c, struct arena *a, struct problems *p)
{
    struct node *n = NULL;
    struct err e = {0};

    opt_defaults(table, c);
    if (node_parse(a, "job.yaml", text, strlen(text), &n, &e))
        fail_msg("%s", e.msg);
    problems_init(p, "job.yaml");
    opt_apply(table, c, n, "/jobs", NULL, a, p);
}

static void defaults(void **state)
{
    struct arena a = {0};
    struct problems p;
    struct config c;

    (void)state;
    apply("lr: ~\n", &c, &a, &p);
    assert_int_equal(p.n, 0);
    assert_int_equal(c.flag, 1);
    assert_int_equal(c.mode, 1);
    assert_int_equal(c.batch, 16);
    assert_true(c.lr == 2e-5 && c.dropout == -1);
    assert_string_equal(c.title, "none");
    assert_null(c.file);
    problems_fini(&p);
    arena_fini(&a);
}

static void all_types(void **state)
{
    static const char text[] =
        "flag: false\nmode: linear\nbatch: 8\nlr: 1e-3\ndropout: model\ntitle: '5'\n"
        "file: x/y.txt\nnames: one\nfiles: [a, /b]\nbins: [-1.75, 0.5]\n"
        "any: {kind: tsv, header: false, t: '1'}\n";
    struct arena a = {0};
    struct problems p;
    struct config c, d;
    struct str one = {0}, two = {0};

    (void)state;
    apply(text, &c, &a, &p);
    assert_int_equal(p.n, 0);
    assert_int_equal(c.flag, 0);
    assert_int_equal(c.mode, 0);
    assert_true(c.batch == 8 && c.lr == 1e-3 && c.dropout == -1);
    assert_string_equal(c.file, "/jobs/x/y.txt");
    assert_int_equal(c.names.n, 1);
    assert_string_equal(c.files.text[0], "/jobs/a");
    assert_string_equal(c.files.text[1], "/b");
    assert_true(c.bins.number[0] == -1.75);
    opt_write_yaml(table, &c, 0, &one);
    assert_non_null(strstr(one.s, "dropout: model\n"));
    assert_non_null(strstr(one.s, "title: \"5\"\n"));
    apply(one.s, &d, &a, &p);
    assert_int_equal(p.n, 0);
    opt_write_yaml(table, &d, 0, &two);
    assert_string_equal(one.s, two.s);
    str_fini(&one);
    str_fini(&two);
    problems_fini(&p);
    arena_fini(&a);
}

static void every_problem(void **state)
{
    static const struct {
        const char *text, *where, *message, *mend;
    } bad[] = {
        {"bacth: 8\n", "job.yaml:1:1", "unknown key \"bacth\"", "did you mean \"batch\"?"},
        {"zzzzzz: 8\n", "job.yaml:1:1", "unknown key", "known keys are flag, mode"},
        {"batch: 4x\n", "job.yaml:1:8", "must be a whole number, found \"4x\"", ""},
        {"batch: 1.5\n", "job.yaml:1:8", "whole number", ""},
        {"batch: '8'\n", "job.yaml:1:8", "found the text \"8\"", ""},
        {"batch: 0\n", "job.yaml:1:8", "must be within 1 and 1000", ""},
        {"batch: 99999999999999999999\n", "job.yaml:1:8", "whole number", ""},
        {"lr: .nan\n", "job.yaml:1:5", "must be a number", ""},
        {"lr: 1e999\n", "job.yaml:1:5", "must be a number", ""},
        {"lr: [1]\n", "job.yaml:1:5", "found a list", ""},
        {"lr: -1\n", "job.yaml:1:5", "\"lr\" is -1, must be within 0 and 1", ""},
        {"dropout: modle\n", "job.yaml:1:10", "a number or one of model", ""},
        {"mode: linaer\n", "job.yaml:1:7", "one of linear, cosine",
         "did you mean \"linear\"?"},
        {"flag: yes\n", "job.yaml:1:7", "true or false", ""},
        {"file: ''\n", "job.yaml:1:7", "empty path", ""},
        {"file: [a]\n", "job.yaml:1:7", "a path", ""},
        {"names: {a: b}\n", "job.yaml:1:8", "a list", ""},
        {"names: [a, ~]\n", "job.yaml:1:12", "must be text", ""},
        {"bins: [1, x]\n", "job.yaml:1:11", "list of numbers", ""},
        {"[1]\n", "job.yaml:1:1", "must be a map of keys, found a list", ""},
    };
    struct str all = {0};
    struct arena a = {0};
    struct problems p;
    struct config c;
    struct err e = {0};

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        apply(bad[i].text, &c, &a, &p);
        assert_int_equal(p.n, 1);
        assert_string_equal(p.item[0].where, bad[i].where);
        if (!strstr(p.item[0].message, bad[i].message) ||
            !strstr(p.item[0].mend, bad[i].mend))
            fail_msg("%s: %s / %s", bad[i].text, p.item[0].message, p.item[0].mend);
        assert_int_equal(problems_result(&p, &e), ERR_CONFIG);
        problems_fini(&p);
    }
    apply("bacth: 8\nlr: x\nmode: y\n", &c, &a, &p);
    assert_int_equal(p.n, 3);
    assert_int_equal(problems_result(&p, &e), ERR_CONFIG);
    assert_non_null(strstr(e.msg, "(and 2 more)"));
    problems_fini(&p);
    for (int i = 0; i < 150; i++)
        str_addf(&all, "key%d: 1\n", i);
    apply(all.s, &c, &a, &p);
    assert_int_equal(p.n, PROBLEMS_MAX);
    assert_int_equal(p.errors, 150);
    assert_int_equal(p.dropped, 50);
    problems_fini(&p);
    str_fini(&all);
    arena_fini(&a);
}

static void describe(void **state)
{
    struct str s = {0};
    struct err e = {0};
    json_t *v;

    (void)state;
    opt_describe_json(table, &s);
    if (json_parse("describe", s.s, s.len, &v, &e))
        fail_msg("%s", e.msg);
    assert_int_equal(json_array_size(v), 11);
    assert_string_equal(json_string_value(json_object_get(json_array_get(v, 1), "default")),
                        "cosine");
    assert_string_equal(json_string_value(json_object_get(json_array_get(v, 4), "default")),
                        "model");
    json_decref(v);
    str_fini(&s);
}

static void warnings(void **state)
{
    struct problems p;
    struct err e = {0};
    struct str s = {0};

    (void)state;
    problems_init(&p, "f");
    problems_warn(&p, "f:1", "", "one class only");
    problems_warn(&p, "f:1", "", "one class only"); /* said once */
    assert_int_equal(problems_result(&p, &e), 0);
    problems_write_json(&p, &s);
    assert_string_equal(s.s, "[{\"where\": \"f:1\", \"message\": \"one class only\", "
                             "\"mend\": \"\", \"warning\": true}]");
    str_fini(&s);
    problems_fini(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),      cmocka_unit_test(all_types),
        cmocka_unit_test(every_problem), cmocka_unit_test(describe),
        cmocka_unit_test(warnings),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
