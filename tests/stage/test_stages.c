/* The stages of a job on a tiny model, run to their end in this process: each improves what
 * it trains, in every form; what they leave (stage.json, predictions, summary.json, over
 * seeds as well) is right; wrong options are refused with their mend. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/json.h"
#include "base/log.h"
#include "tests/stage/tiny.h"
#include "worker/spec/spec.h"
#include "worker/train/run.h"
#include "worker/train/summary.h"

enum { SETS_MAX = 32 };

static char root[64];

static void ok(int r, const struct err *e)
{
    if (r)
        fail_msg("%s", e->msg);
}

static const char *in_root(const char *name)
{
    static char path[4][600];
    static int at;
    char *p = path[at++ % 4];

    snprintf(p, sizeof path[0], "%s/%s", root, name);
    return p;
}

/* The job with these settings, to its end, in a fresh folder. */
static void run(const char *folder, const char *stage, const char *const *set)
{
    char job[600], out[600];
    struct run_options o = {.file = job, .set = set, .stage = stage, .out = out};
    struct err e;

    snprintf(job, sizeof job, "%s", in_root("job.yaml"));
    snprintf(out, sizeof out, "%s", in_root(folder));
    ok(run_job(&o, &e), &e);
}

static json_t *read_json(const char *name)
{
    json_t *o = NULL;
    struct err e;

    ok(json_read(in_root(name), 1 << 24, &o, &e), &e);
    return o;
}

/* "stages.sft.metrics.test.accuracy" */
static json_t *at(json_t *o, const char *path)
{
    char copy[256], *key, *rest = copy;

    snprintf(copy, sizeof copy, "%s", path);
    while ((key = strsep(&rest, ".")))
        o = json_object_get(o, key);
    if (!o)
        fail_msg("%s is not there", path);
    return o;
}

static double number(json_t *o, const char *path)
{
    o = at(o, path);
    if (!json_is_number(o))
        fail_msg("%s is no number", path);
    return json_number_value(o);
}

/* Means of a metric over the first and the last quarter of the training lines. */
static void curve(const char *file, const char *key, double *first, double *last)
{
    char line[4096];
    double x[1000];
    size_t n = 0, part;
    FILE *f = fopen(in_root(file), "r");

    assert_non_null(f);
    while (n < 1000 && fgets(line, sizeof line, f)) {
        json_t *o = json_loads(line, 0, NULL), *v = json_object_get(o, key);

        if (!strcmp(json_string_value(json_object_get(o, "split")), "train") &&
            json_is_number(v))
            x[n++] = json_number_value(v);
        json_decref(o);
    }
    fclose(f);
    part = n / 4;
    assert_true(part > 0);
    *first = *last = 0;
    for (size_t i = 0; i < part; i++) {
        *first += x[i] / (double)part;
        *last += x[n - 1 - i] / (double)part;
    }
}

/* ---- learning ------------------------------------------------------------------------ */

/* Enough steps to learn something, a line of metrics for each; few checkpoints. */
static const char *const base[] = {"resources.threads=1",
                                   "stages.sft.log_every=1",
                                   "stages.rm.log_every=1",
                                   "stages.ppo.log_every=1",
                                   "stages.sft.epochs=16",
                                   "stages.rm.epochs=40",
                                   "stages.rm.lr=1e-2",
                                   "stages.sft.checkpoint_every=1000",
                                   "stages.rm.checkpoint_every=1000",
                                   "stages.ppo.checkpoint_every=1000",
                                   "stages.sft.eval_every=40",
                                   "stages.rm.eval_every=100",
                                   "stages.ppo.eval_every=20",
                                   NULL};

static const char *const *with_base(const char *const *more)
{
    static const char *set[SETS_MAX];
    int n = 0;

    for (int i = 0; base[i]; i++)
        set[n++] = base[i];
    for (; *more && n < SETS_MAX - 1; more++)
        set[n++] = *more;
    set[n] = NULL;
    return set;
}

static void test_sft_and_rm_learn(void **state)
{
    double first, last;
    json_t *s;

    (void)state;
    run("base", NULL, base);
    curve("base/sft/metrics.jsonl", "loss", &first, &last);
    assert_true(last < 0.8 * first);
    curve("base/rm/metrics.jsonl", "loss", &first, &last);
    assert_true(last < first);
    s = read_json("base/summary.json");
    assert_true(number(s, "stages.sft.metrics.test.accuracy") > 0.5);
    assert_true(number(s, "stages.rm.metrics.test.pair_accuracy") > 0.5);
    json_decref(s);
}

/* From the finished SFT and RM of the base run, PPO in every form raises the reward of the
 * rows it trains on. */
static void ppo(const char *name, const char *const *more)
{
    char command[2000], file[100];
    double first, last;

    snprintf(command, sizeof command, "mkdir %s && cp -r %s %s/ && cp -r %s %s/",
             in_root(name), in_root("base/sft"), in_root(name), in_root("base/rm"),
             in_root(name));
    assert_int_equal(system(command), 0);
    run(name, "ppo", with_base(more));
    snprintf(file, sizeof file, "%s/ppo/metrics.jsonl", name);
    curve(file, "reward", &first, &last);
    if (!(last > first))
        fail_msg("%s: reward %g -> %g", name, first, last);
    curve(file, "kl", &first, &last);
    assert_true(last > 0 && isfinite(last));
}

#define LONG "stages.ppo.lr=3e-3", "stages.ppo.epochs=16"

static void test_ppo_forms(void **state)
{
    (void)state;
    ppo("paper", (const char *[]){LONG, NULL});
    ppo("code", (const char *[]){LONG, "stages.ppo.compat=code", NULL});
    ppo("all", (const char *[]){LONG, "stages.ppo.action=all",
                                "stages.ppo.entropy_coef=0.01", NULL});
    ppo("rollout",
        (const char *[]){LONG, "stages.ppo.old=rollout", "stages.ppo.whiten=true", NULL});
    ppo("no-value", (const char *[]){LONG, "stages.ppo.value_coef=0", NULL});
}

/* The same job again takes the same way, to the last digit; PPO's tables are stored. */
static void test_same_again(void **state)
{
    json_t *a, *b;

    (void)state;
    run("twice", NULL, base);
    assert_true(file_exists(in_root("twice/ppo/tables/reward.safetensors")));
    assert_true(file_exists(in_root("twice/ppo/tables/reference.safetensors")));
    a = read_json("base/summary.json");
    b = read_json("twice/summary.json");
    assert_true(json_equal(at(a, "comparison"), at(b, "comparison")));
    json_decref(a);
    json_decref(b);
}

/* ---- what is left -------------------------------------------------------------------- */

static void check_row(json_t *row, const char *name, int has_difference)
{
    size_t rows = 0;
    json_t *line, *cell;
    size_t i, k;

    assert_string_equal(json_string_value(at(row, "name")), name);
    assert_true(number(row, "se.accuracy") > 0);
    assert_true(number(row, "metrics.n") == 12);
    assert_true(number(row, "metrics.qwk") <= 1);
    assert_int_equal(json_object_get(row, "difference") != NULL, has_difference);
    assert_int_equal(json_object_get(row, "difference_se") != NULL, has_difference);
    assert_int_equal(json_array_size(at(row, "reliability")), 10);
    json_array_foreach(at(row, "confusion"), i, line) json_array_foreach(line, k, cell)
        rows += (size_t)json_integer_value(cell);
    assert_int_equal(rows, 12);
}

static void test_summary(void **state)
{
    json_t *s = read_json("base/summary.json"), *rows = at(s, "comparison"), *st;
    double t = number(s, "stages.sft.temperature.value");

    (void)state;
    assert_string_equal(json_string_value(at(s, "state")), "done");
    assert_string_equal(json_string_value(at(s, "output")), "ppo/final");
    assert_int_equal(json_array_size(at(s, "labels")), 3);
    assert_true(json_is_true(at(s, "ordinal")));
    assert_non_null(strstr(json_string_value(at(s, "snippet")), "hone_classifier"));
    assert_int_equal(json_array_size(rows), 3);
    check_row(json_array_get(rows, 0), "SFT", 0);
    check_row(json_array_get(rows, 1), "SFT + temperature", 1);
    check_row(json_array_get(rows, 2), "ClaHF", 1);
    /* Temperature keeps every decision. */
    assert_true(number(json_array_get(rows, 1), "difference.accuracy") == 0);
    assert_true(number(json_array_get(rows, 1), "temperature") == t);
    assert_true(number(s, "stages.sft.temperature.validation.nll") <=
                number(s, "stages.sft.metrics.validation.nll") + 1e-12);
    /* The row is what the stage itself measured. */
    assert_true(fabs(number(json_array_get(rows, 2), "metrics.nll") -
                     number(s, "stages.ppo.metrics.test.nll")) < 1e-9);
    for (int i = 0; i < 3; i++) {
        static const char *const names[] = {"sft", "rm", "ppo"};

        st = json_object_get(at(s, "stages"), names[i]);
        assert_string_equal(json_string_value(at(st, "state")), "done");
        assert_true(number(st, "steps") == (i == 0   ? 80
                                            : i == 1 ? 200
                                                     : 20) &&
                    number(st, "tokens") > 0 && number(st, "tokens_per_second") > 0 &&
                    number(st, "peak_bytes") > 0);
        assert_int_equal(json_object_get(st, "temperature") != NULL, i != 1);
    }
    json_decref(s);
}

/* A stage at a time, as a daemon runs them: the summary grows. */
static void test_summary_grows(void **state)
{
    json_t *s;
    double started;

    (void)state;
    run("grows", "sft", base);
    s = read_json("grows/summary.json");
    assert_string_equal(json_string_value(at(s, "state")), "running");
    assert_string_equal(json_string_value(at(s, "stages.rm.state")), "pending");
    assert_int_equal(json_array_size(at(s, "comparison")), 2);
    started = number(s, "started_unix");
    json_decref(s);
    run("grows", "rm", base);
    run("grows", "ppo", base);
    s = read_json("grows/summary.json");
    assert_string_equal(json_string_value(at(s, "state")), "done");
    assert_true(number(s, "started_unix") == started);
    assert_int_equal(json_array_size(at(s, "comparison")), 3);
    json_decref(s);
}

static void test_seeds(void **state)
{
    const char *set[] = {"seeds=3", "stages.sft.epochs=1", "stages.rm.epochs=1",
                         "stages.ppo.epochs=1", NULL};
    json_t *s, *one, *values;
    double sum = 0;

    (void)state;
    run("seeds", NULL, set);
    s = read_json("seeds/summary.json");
    values = at(s, "stages.sft.metrics.test.nll.values");
    assert_int_equal(json_array_size(values), 3);
    for (size_t i = 0; i < 3; i++) {
        char name[64];

        snprintf(name, sizeof name, "seeds/seed-%zu/summary.json", i + 1);
        one = read_json(name);
        sum += number(one, "stages.sft.metrics.test.nll") / 3;
        json_decref(one);
    }
    assert_true(fabs(number(s, "stages.sft.metrics.test.nll.mean") - sum) < 1e-9);
    assert_true(number(s, "stages.sft.metrics.test.nll.se") > 0);
    assert_int_equal(json_array_size(at(s, "comparison")), 3);
    one = json_array_get(at(s, "comparison"), 0);
    assert_true(fabs(number(one, "metrics.nll") - sum) < 1e-9);
    assert_true(number(one, "se.nll") > 0);
    json_decref(s);
}

/* A stage that only measures: the same numbers, no training. */
static void test_eval(void **state)
{
    const char *const needs[] = {"stages.eval.needs=[sft]", NULL};
    char command[2000];
    json_t *a, *b;

    (void)state;
    snprintf(command, sizeof command, "mkdir %s && cp -r %s %s/", in_root("eval"),
             in_root("base/sft"), in_root("eval"));
    assert_int_equal(system(command), 0);
    run("eval", "eval", with_base(needs));
    a = read_json("base/sft/stage.json");
    b = read_json("eval/eval/stage.json");
    assert_true(json_equal(at(a, "metrics"), at(b, "metrics")));
    assert_true(number(b, "steps") == 0);
    assert_null(json_object_get(b, "output"));
    json_decref(a);
    json_decref(b);
}

/* ---- options ------------------------------------------------------------------------- */

static void refuse(const char *set, const char *words)
{
    const char *sets[] = {set, NULL};
    char job[600];
    struct problems p;
    struct spec spec;
    struct err e;
    int found = 0;

    snprintf(job, sizeof job, "%s", in_root("job.yaml"));
    problems_init(&p, job);
    if (!spec_read(&spec, job, sets, &p, &e))
        fail_msg("%s was not refused", set);
    for (int i = 0; i < p.n; i++)
        found |= strstr(p.item[i].message, words) != NULL;
    if (!found)
        fail_msg("%s: \"%s\" was not said: %s", set, words, e.msg);
    problems_fini(&p);
    spec_fini(&spec);
}

static void test_options(void **state)
{
    (void)state;
    refuse("stages.rm.alpha=0", "unranked");
    refuse("stages.rm={init: sft, needs: []}", "needs no sft");
    refuse("stages.rm.alpha=1.5", "alpha");
    refuse("stages.ppo.needs=[sft]", "needs a stage rm");
    refuse("stages.ppo={beta: 2}", "beta");
    refuse("stages.ppo={beta_min: 0.5, beta_max: 0.2}", "beta_min");
    refuse("stages.ppo.action=argmx", "action");
    refuse("stages.sft.label_smoothing=1", "label_smoothing");
    refuse("stages.eval={needs: [rm]}", "classifiers");
    refuse("stages.eval={needs: [sft, ppo]}", "one model");
}

/* Where the encoder comes from: what is said, else sft where it is needed. */
static void test_init(void **state)
{
    static const struct {
        const char *set;
        int from_sft;
    } cases[] = {{"stages.rm.epochs=1", 0},
                 {"stages.rm.needs=[sft]", 1},
                 {"stages.rm.init=sft", 1},
                 {"stages.rm={init: base, needs: [sft]}", 0}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *set[] = {cases[i].set, NULL};
        char job[600];
        struct problems p;
        struct spec spec;
        struct stage_spec *rm;
        struct err e;

        snprintf(job, sizeof job, "%s", in_root("job.yaml"));
        problems_init(&p, job);
        ok(spec_read(&spec, job, set, &p, &e), &e);
        rm = spec_find_stage(&spec, "rm");
        if ((rm->stage->init_from(rm->config, &spec, rm) >= 0) != cases[i].from_sft)
            fail_msg("%s", cases[i].set);
        problems_fini(&p);
        spec_fini(&spec);
    }
}

static int make_root(void **state)
{
    struct err e;

    (void)state;
    snprintf(root, sizeof root, "/tmp/hone-stages-XXXXXX");
    if (!mkdtemp(root))
        return -1;
    log_set_level(LOG_WARN);
    return tiny_job(root, &e);
}

static int remove_root(void **state)
{
    struct err e;

    (void)state;
    return file_remove_tree(root, &e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_options),
                                       cmocka_unit_test(test_init),
                                       cmocka_unit_test(test_sft_and_rm_learn),
                                       cmocka_unit_test(test_summary),
                                       cmocka_unit_test(test_ppo_forms),
                                       cmocka_unit_test(test_same_again),
                                       cmocka_unit_test(test_summary_grows),
                                       cmocka_unit_test(test_seeds),
                                       cmocka_unit_test(test_eval)};

    return cmocka_run_group_tests(tests, make_root, remove_root);
}
