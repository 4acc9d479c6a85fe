/* Random numbers, JSON getters, command lines, clocks, log lines. */
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/args.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/rng.h"

/* Known answers of Random123 (kat_vectors, philox4x32 10). */
static void philox(void **state)
{
    static const struct {
        uint32_t counter[4];
        uint64_t key;
        uint32_t want[4];
    } kat[] = {
        {{0, 0, 0, 0}, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         0xffffffffffffffff,
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         0x299f31d0a4093822,
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof kat / sizeof *kat; i++) {
        uint32_t out[4];

        rng_philox(kat[i].counter, kat[i].key, out);
        assert_memory_equal(out, kat[i].want, sizeof out);
    }
}

static void streams(void **state)
{
    struct rng r, s;
    uint32_t order[1000], seen[1000] = {0};
    double sum = 0, square = 0;
    enum { N = 20000 };

    (void)state;
    rng_init(&r, rng_key(1, 2, 3, 4));
    assert_true(rng_key(1, 2, 3, 4) != rng_key(1, 2, 4, 3));
    for (int i = 0; i < 5; i++)
        rng_u32(&r);
    s = r;
    assert_int_equal(rng_u32(&r), rng_u32(&s)); /* the state is key and counter */
    for (int i = 0; i < N; i++) {
        double x = rng_normal(&r), u = rng_uniform(&r);

        sum += x;
        square += x * x;
        assert_true(isfinite(x) && u >= 0 && u < 1);
        assert_true(rng_below(&r, 7) < 7);
    }
    assert_true(fabs(sum / N) < 4 / sqrt(N));
    assert_true(fabs(square / N - 1) < 4 * sqrt(2.0 / N));
    rng_permutation(&r, order, 1000);
    for (int i = 0; i < 1000; i++)
        seen[order[i]]++;
    for (int i = 0; i < 1000; i++)
        assert_int_equal(seen[i], 1);
    assert_int_equal(rng_below(&r, 1), 0);
}

static void json(void **state)
{
    static const char text[] =
        "{\"a\": 3, \"b\": 1.5, \"c\": \"x\", \"d\": true, \"e\": null}";
    struct err e = {0};
    struct str s = {0};
    const char *str = "none";
    double d = 0;
    long l = 7;
    int b = 0;
    json_t *v;

    (void)state;
    assert_int_equal(json_parse("t", text, strlen(text), &v, &e), 0);
    assert_int_equal(json_get_long(v, "a", 1, &l, &e), 0);
    assert_int_equal(l, 3);
    assert_int_equal(json_get_double(v, "a", 1, &d, &e), 0);
    assert_true(d == 3);
    assert_int_equal(json_get_long(v, "b", 1, &l, &e), ERR_CORRUPT);
    assert_non_null(strstr(e.msg, "\"b\" must be an integer, found a number"));
    assert_int_equal(json_get_string(v, "c", 1, &str, &e), 0);
    assert_string_equal(str, "x");
    assert_int_equal(json_get_bool(v, "d", 1, &b, &e), 0);
    assert_int_equal(b, 1);
    assert_int_equal(json_get_long(v, "e", 0, &l, &e), 0);
    assert_int_equal(l, 3);
    assert_int_equal(json_get_long(v, "e", 1, &l, &e), ERR_CORRUPT);
    json_decref(v);
    assert_int_equal(json_parse("t", "{\n]", 3, &v, &e), ERR_CORRUPT);
    assert_non_null(strstr(e.msg, "t:2:"));
    for (int i = 0; i < 1000; i++)
        str_add_char(&s, '[');
    assert_int_equal(json_parse("t", s.s, s.len, &v, &e), ERR_CORRUPT);
    assert_non_null(strstr(e.msg, "nested deeper"));
    str_clear(&s);
    json_number(&s, 1.0 / 3);
    json_number(&s, NAN);
    json_number(&s, -12);
    assert_string_equal(s.s, "0.333333333null-12");
    str_fini(&s);
}

struct options {
    const char *model;
    int json;
    struct arg_list set, words;
};

static const struct arg_flag flags[] = {
    ARG_VALUE("--model", "DIR", "the model", struct options, model),
    ARG_SWITCH("--json", "as JSON", struct options, json),
    ARG_LIST("--set", "KEY=VALUE", "override", struct options, set),
    ARG_END,
};
static const struct arg_spec spec = {"hone test",
                                     "JOB [--model DIR]",
                                     "a test",
                                     flags,
                                     1,
                                     1,
                                     offsetof(struct options, words)};

static void arguments(void **state)
{
    char *good[] = {"test", "--set", "a=1", "job.yaml", "--json", "--set=b=2", "--model=m"};
    static const struct {
        char *argv[4];
        int argc;
        const char *message, *mend;
    } bad[] = {
        {{"test", "--modle", "x"}, 3, "unknown option --modle", "--model"},
        {{"test"}, 1, "argument is missing", "JOB"},
        {{"test", "a", "b"}, 3, "one argument too many", "JOB"},
        {{"test", "a", "--model"}, 3, "--model needs a value", "DIR"},
        {{"test", "a", "--model", "--json"}, 4, "--model needs a value", "DIR"},
        {{"test", "a", "--json=1"}, 3, "takes no value", ""},
    };
    struct err e = {0};
    long n = 3;
    double x;

    (void)state;
    struct options o = {0};
    assert_int_equal(args_parse(&spec, 7, good, &o, &e), 0);
    assert_string_equal(o.model, "m");
    assert_int_equal(o.json, 1);
    assert_int_equal(o.set.n, 2);
    assert_string_equal(o.set.item[1], "b=2");
    assert_null(o.set.item[2]);
    assert_string_equal(o.words.item[0], "job.yaml");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct options q = {0};

        assert_int_equal(args_parse(&spec, bad[i].argc, (char **)bad[i].argv, &q, &e),
                         ERR_USAGE);
        assert_non_null(strstr(e.msg, bad[i].message));
        assert_non_null(strstr(e.mend, bad[i].mend));
    }
    assert_int_equal(args_long("--n", NULL, 1, 5, &n, &e), 0);
    assert_int_equal(n, 3);
    assert_int_equal(args_long("--n", "4x", 1, 5, &n, &e), ERR_USAGE);
    assert_int_equal(args_long("--n", "9", 1, 5, &n, &e), ERR_USAGE);
    assert_int_equal(args_double("--r", "1e-3", 0, 1, &x, &e), 0);
}

static void clocks(void **state)
{
    char buf[32];
    double born = clock_process_start();

    (void)state;
    assert_string_equal(clock_iso(buf, sizeof buf, 0), "1970-01-01T00:00:00Z");
    assert_true(clock_now() <= clock_now());
    assert_true(born <= clock_wall() + 0.05 && born > clock_wall() - 300);
}

static void log_lines(void **state)
{
    char buf[8192];
    int pipes[2];
    ssize_t n;

    (void)state;
    assert_int_equal(pipe(pipes), 0);
    log_set_file(pipes[1]);
    log_info("a\nb %d", 5);
    log_debug("not shown");
    memset(buf, 'x', 5000);
    buf[5000] = '\0';
    log_warn("%s", buf);
    log_set_file(-1);
    n = read(pipes[0], buf, sizeof buf - 1);
    assert_true(n > 0 && n < 3000);
    buf[n] = '\0';
    assert_non_null(strstr(buf, "Z info a b 5\n"));
    assert_null(strstr(buf, "not shown"));
    assert_int_equal(buf[n - 1], '\n');
    close(pipes[0]);
    close(pipes[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox),    cmocka_unit_test(streams), cmocka_unit_test(json),
        cmocka_unit_test(arguments), cmocka_unit_test(clocks),  cmocka_unit_test(log_lines),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
