/* Job files: what a good one resolves to, the round trip through job.resolved.yaml, and
 * every problem of a bad one at once, with its place and mend. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "worker/spec/spec.h"
#include "worker/stage/stage.h"

static char dir[256];

static const char config[] =
    "{\"model_type\": \"bert\", \"architectures\": [\"BertModel\"], \"vocab_size\": 32, "
    "\"hidden_size\": 8, \"num_hidden_layers\": 1, \"num_attention_heads\": 2, "
    "\"intermediate_size\": 16, \"max_position_embeddings\": 64, \"type_vocab_size\": 2, "
    "\"hidden_act\": \"gelu\", \"layer_norm_eps\": 1e-12, \"pad_token_id\": 0, "
    "\"hidden_dropout_prob\": 0.1, \"attention_probs_dropout_prob\": 0.1}";

static const char head[] = "name: t\nmodel: m\n"
                           "task: {labels: [bad, good], prefix: sentence, "
                           "candidate: 'it is {label}'}\n"
                           "data: {train: a.jsonl, validation: b.jsonl, max_tokens: 32}\n";

static void write_file(const char *name, const char *text)
{
    char path[FILE_PATH_MAX];
    struct err e = {0};

    if (file_join(path, sizeof path, dir, name, &e) ||
        file_write_atomic(path, text, strlen(text), &e))
        fail_msg("%s", e.msg);
}

/* Reads `text` as job.yaml in the test's folder. */
static int read_job(const char *text, const char *const *set, struct spec *s,
                    struct problems *p, struct err *e)
{
    char path[FILE_PATH_MAX];

    write_file("job.yaml", text);
    if (file_join(path, sizeof path, dir, "job.yaml", e))
        fail_msg("%s", e->msg);
    problems_init(p, NULL);
    return spec_read(s, path, set, p, e);
}

static const char asks[] = "name: t\nmodel: m\n"
                           "task: {kind: generate, template: 'Q: {prompt} A: '}\n"
                           "data: {train: a.jsonl, validation: b.jsonl, max_tokens: 32}\n";

static void with_head(const char *rest, char *out, size_t n)
{
    snprintf(out, n, "%s%s", head, rest);
}

static void expect_good(const char *text, struct spec *s)
{
    struct problems p;
    struct err e = {0};

    if (read_job(text, NULL, s, &p, &e)) {
        problems_print(&p, "test");
        fail_msg("%s", e.msg);
    }
    problems_fini(&p);
}

struct bad {
    const char *rest;
    const char *where, *message, *mend; /* of one of the problems */
};

static void expect_problem(const char *text, const struct bad *b)
{
    struct problems p;
    struct spec s;
    struct err e = {0};
    int found = 0;

    assert_int_equal(read_job(text, NULL, &s, &p, &e), ERR_CONFIG);
    for (int i = 0; i < p.n; i++)
        found |= !p.item[i].warning && strstr(p.item[i].where, b->where) &&
                 strstr(p.item[i].message, b->message) && strstr(p.item[i].mend, b->mend);
    if (!found) {
        problems_print(&p, "test");
        fail_msg("no problem at %s with \"%s\" / \"%s\"", b->where, b->message, b->mend);
    }
    spec_fini(&s);
    problems_fini(&p);
}

static void resolves(void **state)
{
    char text[4096], path[FILE_PATH_MAX];
    struct spec s;
    struct stage_spec *st;

    (void)state;
    with_head("stages:\n"
              "  ppo: {lr: 1e-6, needs: [sft, rm]}\n"
              "  rm: {init: sft}\n"
              "  sft: {steps: 5, dropout: model, select: last}\n",
              text, sizeof text);
    expect_good(text, &s);
    assert_string_equal(s.name, "t");
    assert_int_equal(s.seed, 1);
    assert_int_equal(s.n_stages, 3);
    assert_string_equal(s.stage[0].name, "sft");
    assert_string_equal(s.stage[1].name, "rm");
    assert_string_equal(s.stage[2].name, "ppo");
    assert_int_equal(s.stage[2].n_needs, 2);
    assert_int_equal(s.stage[2].needs[0], 0);
    assert_int_equal(s.stage[2].needs[1], 1);
    assert_int_equal(s.stage[1].n_needs, 1); /* by init */
    assert_int_equal(s.stage[1].needs[0], 0);
    st = spec_find_stage(&s, "sft");
    assert_true(st->common.epochs == 0 && st->common.steps == 5);
    assert_true(st->common.lr == st->stage->default_lr);
    assert_true(st->common.dropout == -1);
    assert_int_equal(st->common.select, SELECT_LAST);
    st = spec_find_stage(&s, "rm");
    assert_true(st->common.epochs == st->stage->default_epochs);
    assert_string_equal(spec_select_metric(st), st->stage->default_metric);
    assert_string_equal(s.task.candidate_text[1], "it is good");
    snprintf(path, sizeof path, "%s/m", s.folder);
    assert_string_equal(s.model, path);
    assert_null(spec_find_stage(&s, "dpo"));
    spec_fini(&s);
    spec_fini(&s);
}

static void json_job(void **state)
{
    static const char text[] =
        "{\"model\": \"m\", \"task\": {\"labels\": [\"bad\", \"good\"]},\n"
        " \"data\": {\"train\": \"a.jsonl\", \"validation\": \"b.jsonl\", "
        "\"max_tokens\": 32},\n \"stages\": {\"sft\": {\"lr\": 3e-5}}}\n";
    static const char bad[] = "{\"model\": \"m\", \"task\": {\"labels\": [\"a\", \"b\"]},\n"
                              " \"stages\": {\"sft\": {\"lr\": \"3e-5\"}}}\n";
    struct spec s;

    (void)state;
    expect_good(text, &s);
    assert_true(s.stage[0].common.lr == 3e-5);
    assert_string_equal(s.name, "job");
    spec_fini(&s);
    expect_problem(bad, &(struct bad){"", "job.yaml:2:27", "found the text \"3e-5\"", ""});
}

static void default_needs(void **state)
{
    char text[4096];
    struct spec s;

    (void)state;
    with_head("stages: {sft: , rm: , ppo: }\n", text, sizeof text);
    expect_good(text, &s);
    assert_int_equal(spec_find_stage(&s, "rm")->n_needs, 0);
    assert_int_equal(spec_find_stage(&s, "ppo")->n_needs, 2);
    spec_fini(&s);
}

/* The job of a stage with one option set; 0 when the stage's rules refuse it. */
static int same_when_read_again(const struct stage *st, const char *key, const char *value)
{
    static const char *const base[] = {"sft", "rm"};
    const char *name = st->name;
    struct str rest = {0}, one = {0}, two = {0};
    char text[4096];
    struct problems p;
    struct spec s;
    struct err e = {0};
    int rc;

    str_add(&rest, "stages:\n");
    for (int i = 0; i < 2; i++)
        if (st->kind == TASK_CLASSIFY && strcmp(name, base[i]))
            str_addf(&rest, "  %s:\n", base[i]);
    str_addf(&rest, "  %s: {%s: %s}\n", name, key, value);
    snprintf(text, sizeof text, "%s%s", st->kind == TASK_GENERATE ? asks : head, rest.s);
    rc = read_job(text, NULL, &s, &p, &e);
    if (!rc) {
        spec_write_resolved(&s, &one);
        spec_fini(&s);
        expect_good(one.s, &s);
        spec_write_resolved(&s, &two);
        assert_string_equal(one.s, two.s);
    }
    spec_fini(&s);
    problems_fini(&p);
    str_fini(&rest);
    str_fini(&one);
    str_fini(&two);
    return !rc;
}

/* Every stage, every value of every choice: the resolved job read again is the same job. */
static void round_trip(void **state)
{
    int tried = 0, good = 0;

    (void)state;
    for (const struct stage *const *st = stage_registry; *st; st++) {
        const struct opt *tables[] = {(*st)->options, common_options};

        assert_true(same_when_read_again(*st, "lr", "3.3e-5"));
        assert_true(same_when_read_again(*st, "steps", "5"));
        assert_true(same_when_read_again(*st, "stop", "{patience: 2}"));
        assert_true(same_when_read_again(*st, "dropout", "model"));
        for (int t = 0; t < 2; t++)
            for (const struct opt *o = tables[t]; o->key; o++)
                for (int i = 0; o->type == OPT_TYPE_ENUM && o->names[i]; i++, tried++)
                    good += same_when_read_again(*st, o->key, o->names[i]);
    }
    assert_true(good > tried / 2);
}

static void generate(void **state)
{
    static const struct bad bad[] = {
        {"stages: {rm: {}}\n", "job.yaml:5", "unknown stage \"rm\"", "kind: classify"},
        {"stages: {sft: {select_metric: qwk}}\n", "", "does not measure \"qwk\"",
         "perplexity"},
        {"stages: {sft: {label_smoothing: 0.1}}\n", "", "label_smoothing", ""},
    };
    static const struct bad tasks[] = {
        {"{kind: generate, labels: [a, b]}", "job.yaml:2", "\"labels\" means nothing", ""},
        {"{kind: generate, template: 'no hole'}", "job.yaml:2", "one {prompt}", ""},
        {"{labels: [a, b], template: '{prompt}'}", "job.yaml:2",
         "\"template\" means nothing in a task of kind classify", "kind: generate"},
    };
    char text[4096];
    struct spec s;

    (void)state;
    snprintf(text, sizeof text, "%sstages: {sft: {}}\n", asks);
    expect_good(text, &s);
    assert_string_equal(spec_select_metric(&s.stage[0]), "nll");
    assert_string_equal(s.data.text[0], "prompt");
    assert_string_equal(s.data.text[1], "response");
    spec_fini(&s);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(text, sizeof text, "%s%s", asks, bad[i].rest);
        expect_problem(text, &bad[i]);
    }
    for (size_t i = 0; i < sizeof tasks / sizeof *tasks; i++) {
        snprintf(text, sizeof text,
                 "model: m\ntask: %s\ndata: {train: a.jsonl, validation: b.jsonl}\n"
                 "stages: {sft: {}}\n",
                 tasks[i].rest);
        expect_problem(text, &tasks[i]);
    }
    snprintf(text, sizeof text,
             "model: m\ntask: {kind: generate}\nstages: {sft: {}}\n"
             "data: {train: a.jsonl, validation: b.jsonl, columns: {text: t}}\n");
    expect_problem(text, &(struct bad){"", "job.yaml:4", "have a prompt and a response",
                                       "response: NAME"});
    with_head("stages: {sft: {}}\n", text, sizeof text);
    snprintf(strstr(text, "max_tokens"), 64, "columns: {prompt: p}}\nstages: {sft: {}}\n");
    expect_problem(
        text, &(struct bad){"", "job.yaml:4", "a task of kind generate", "kind: generate"});
}

static void overrides(void **state)
{
    static const char *const set[] = {"stages.sft.lr=7e-5", "seed=9", NULL};
    static const char *const bad[] = {"stages.sft.lr=4x", NULL};
    char text[4096];
    struct problems p;
    struct spec s;
    struct err e = {0};

    (void)state;
    with_head("stages: {sft: {lr: 1e-5}}\n", text, sizeof text);
    assert_int_equal(read_job(text, set, &s, &p, &e), 0);
    assert_true(s.stage[0].common.lr == 7e-5);
    assert_int_equal(s.seed, 9);
    spec_fini(&s);
    problems_fini(&p);
    assert_int_equal(read_job(text, bad, &s, &p, &e), ERR_CONFIG);
    assert_non_null(strstr(e.msg, "job.yaml: stages.sft.lr: \"lr\" must be a number"));
    spec_fini(&s);
    problems_fini(&p);
}

static void bad_stages(void **state)
{
    static const struct bad bad[] = {
        {"resources: {launcher: slurm, slurm: [--partition=gpu, --prolog=/x]}\n"
         "stages: {sft: }\n",
         "job.yaml:5:55", "\"--prolog=/x\" is no option of srun", "--partition=NAME"},
        {"resources: {launcher: slurm, slurm: --partitio=gpu}\nstages: {sft: }\n",
         "job.yaml:5:37", "is no option of srun", "did you mean \"--partition\"?"},
        {"resources: {launcher: slurm, slurm: --nodes}\nstages: {sft: }\n", "job.yaml:5:37",
         "\"--nodes\" has no value", ""},
        {"resources: {launcher: slurm, slurm: '--time=1;2'}\nstages: {sft: }\n",
         "job.yaml:5:37", "a character that has no place", ""},
        {"resources: {slurm: --nodes=2}\nstages: {sft: }\n", "job.yaml:5:20",
         "the launcher is not slurm", "launcher: slurm"},
        {"stages:\n  sft: {epoch: 3}\n", "job.yaml:6:9", "unknown key \"epoch\"",
         "did you mean \"epochs\"?"},
        {"stages:\n  sfft: {}\n", "job.yaml:6:3", "unknown stage \"sfft\"",
         "did you mean \"sft\"?"},
        {"stages:\n  sft: {lr: 4x}\n", "job.yaml:6:13", "found \"4x\"", ""},
        {"stages:\n  sft: {batch: 0}\n", "job.yaml:6:16", "must be within 1 and", ""},
        {"stages:\n  sft: {warmup: 1}\n", "job.yaml:6:17", "must be within 0 and", ""},
        {"stages:\n  sft: {epochs: 1, steps: 2}\n", "job.yaml:6:27", "both \"epochs\" and",
         "keep one"},
        {"stages:\n  sft: {epochs: 0}\n", "job.yaml:6:8", "nothing to do", ""},
        {"stages:\n  sft: {needs: [rm]}\n  rm: {needs: [sft]}\n", "job.yaml:6:8",
         "in a circle: sft -> rm -> sft", "remove"},
        {"stages:\n  sft: {needs: [sft]}\n", "job.yaml:6:17", "needs itself", ""},
        {"stages:\n  sft: \n  rm: {needs: [sftt]}\n", "job.yaml:7:16",
         "needs \"sftt\", which is no stage", "did you mean \"sft\"?"},
        {"stages:\n  sft: {stop: {metrik: nll}}\n", "job.yaml:6:16",
         "unknown key \"metrik\"", "did you mean \"metric\"?"},
        {"stages:\n  sft: {select_metric: f1}\n", "job.yaml:6:24", "one of accuracy", ""},
        {"stages: {}\n", "job.yaml:5", "\"stages\" is missing", ""},
        {"stages: [sft]\n", "job.yaml:5:9", "must be a map", ""},
        {"", "job.yaml:1:1", "\"stages\" is missing", ""},
        {"stages: {sft: }\nsave: {dtype: b16}\n", "job.yaml:6:15", "one of as-loaded",
         "did you mean \"bf16\"?"},
        {"stages: {sft: }\nresources: {precision: f64}\n", "job.yaml:6:24", "one of auto",
         "did you mean"},
        {"stages: {sft: }\nseeds: 0\n", "job.yaml:6:8", "must be within 1", ""},
        {"stages: {sft: }\nstage: 1\n", "job.yaml:6:1", "unknown key \"stage\"",
         "did you mean \"stages\"?"},
    };
    char text[4096];

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        with_head(bad[i].rest, text, sizeof text);
        expect_problem(text, &bad[i]);
    }
}

static void bad_sections(void **state)
{
#define STAGES "stages: {sft: }\n"
    static const struct bad bad[] = {
        {"model: m\ndata: {train: a.jsonl, validation: b.jsonl}\n" STAGES, "job.yaml:1:1",
         "\"task.labels\" is missing", "labels"},
        {"task: {labels: [a]}\n" STAGES, "job.yaml:1:16", "holds 1 names", ""},
        {"task: {labels: [a, b, a]}\n" STAGES, "job.yaml:1:23", "given twice, as 0 and 2",
         ""},
        {"task: {labels: [a, '']}\n" STAGES, "job.yaml:1:20", "label 1 is empty", ""},
        {"task: {labels: [a, b], candidate: x}\n" STAGES, "job.yaml:1:35", "has no {label}",
         ""},
        {"task: {labels: [a, b], order: ordnal}\n" STAGES, "job.yaml:1:31",
         "\"order\" must", "did you mean \"ordinal\"?"},
        {"task: {labels: [a, b]}\n" STAGES, "job.yaml:1:1", "\"model\" is missing", ""},
        {"model: none\n" STAGES, "job.yaml:1:8", "No such file", "relative"},
        {"model: a.jsonl\n" STAGES, "job.yaml:1:8", "is a file, a folder is needed", ""},
        {"model: empty\n" STAGES, "job.yaml:1:8", "config.json", ""},
        {"model: m\n" STAGES, "job.yaml:1:1", "\"data\" is missing", ""},
        {"data: {train: none.jsonl}\n" STAGES, "job.yaml:1:15", "none.jsonl: No such file",
         ""},
        {"data: {train: [a.jsonl, m]}\n" STAGES, "job.yaml:1:25", "is a directory", ""},
        {"data: {train: zero}\n" STAGES, "job.yaml:1:15", "the file is empty", ""},
        {"data: {train: a.jsonl}\n" STAGES, "job.yaml:2:15", "no validation split",
         "select: last"},
        {"data: {validation: a.jsonl}\n" STAGES, "job.yaml:1:7", "no training rows", ""},
        {"model: m\ndata: {train: a.jsonl, max_tokens: 65}\n" STAGES, "job.yaml:2:36",
         "beyond the model's 64 positions", "at most 64"},
        {"name: a/b\n" STAGES, "job.yaml:1:7", "part of a folder's name", ""},
        {"name: ..\n" STAGES, "job.yaml:1:7", "part of a folder's name", ""},
        {"a: [\n", "", "job.yaml:", ""},
        {"~\n", "job.yaml:1:1", "\"stages\" is missing", ""},
        {"[1]\n", "job.yaml:1:1", "must be a map of keys, found a list", ""},
    };
#undef STAGES

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        expect_problem(bad[i].rest, &bad[i]);
}

static void all_at_once(void **state)
{
    struct problems p;
    struct spec s;
    struct err e = {0};

    (void)state;
    assert_int_equal(read_job("nmae: x\nmodel: none\ntask: {lables: [a, b]}\n"
                              "data: {trian: a.jsonl}\n"
                              "stages:\n  sft: {lr: 4x, epocs: 3}\n  rmm: \n",
                              NULL, &s, &p, &e),
                     ERR_CONFIG);
    assert_true(p.errors >= 8);
    assert_non_null(strstr(e.msg, "more)"));
    spec_fini(&s);
    problems_fini(&p);
}

static void missing_file(void **state)
{
    struct problems p;
    struct spec s;
    struct err e = {0};

    (void)state;
    problems_init(&p, NULL);
    assert_int_equal(spec_read(&s, "no/such/job.yaml", NULL, &p, &e), ERR_CONFIG);
    assert_int_equal(p.errors, 1);
    spec_fini(&s);
    problems_fini(&p);
    problems_init(&p, NULL);
    assert_int_equal(spec_read(&s, dir, NULL, &p, &e), ERR_CONFIG);
    assert_non_null(strstr(e.msg, "is a directory"));
    spec_fini(&s);
    problems_fini(&p);
}

static void matrix(void **state)
{
    static const char text[] =
        "model: m\ntask: {labels: [bad, good], order: order.json}\n"
        "data: {train: a.jsonl, validation: b.jsonl, max_tokens: 32}\n"
        "stages: {sft: }\n";
    struct spec s;

    (void)state;
    write_file("order.json", "[[0, 1], [1, 0]]");
    expect_good(text, &s);
    assert_int_equal(s.task.order, ORDER_MATRIX);
    assert_int_equal(s.task.order_text[0], '/');
    spec_fini(&s);
    write_file("order.json", "[[0, 1]]");
    expect_problem(text, &(struct bad){"", "job.yaml:2:36", "order.json", ""});
}

/* The n-th allocation fails, for every n: an error, and everything is given back. */
static void memory_runs_out(void **state)
{
    char text[4096];

    (void)state;
    with_head(
        "stages:\n  ppo: {lr: 1e-6, stop: {patience: 2}}\n  rm: {init: sft}\n  sft: \n",
        text, sizeof text);
    for (long i = 0;; i++) {
        char path[FILE_PATH_MAX];
        struct problems p;
        struct spec s;
        struct err e = {0};
        long live = mem_live();
        int rc;

        write_file("job.yaml", text);
        snprintf(path, sizeof path, "%s/job.yaml", dir);
        problems_init(&p, NULL);
        mem_fail_at(i);
        rc = spec_read(&s, path, NULL, &p, &e);
        mem_fail_at(-1);
        assert_int_equal(rc != 0, p.errors > 0);
        if (rc)
            assert_true(*e.msg);
        spec_fini(&s);
        problems_fini(&p);
        assert_int_equal(mem_live(), live);
        if (!rc && !mem_failed())
            break;
    }
}

static int setup(void **state)
{
    char path[FILE_PATH_MAX];
    struct err e;

    (void)state;
    snprintf(dir, sizeof dir, "%s/hone-spec-XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof path, "%s/m", dir);
    if (file_make_dirs(path, &e))
        return -1;
    snprintf(path, sizeof path, "%s/empty", dir);
    if (file_make_dirs(path, &e))
        return -1;
    write_file("m/config.json", config);
    write_file("a.jsonl", "{\"text\": \"x\", \"label\": 0}\n");
    write_file("b.jsonl", "{\"text\": \"x\", \"label\": 1}\n");
    write_file("zero", "");
    return 0;
}

static int teardown(void **state)
{
    struct err e;

    (void)state;
    return file_remove_tree(dir, &e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resolves),      cmocka_unit_test(json_job),
        cmocka_unit_test(default_needs), cmocka_unit_test(round_trip),
        cmocka_unit_test(generate),      cmocka_unit_test(overrides),
        cmocka_unit_test(bad_stages),    cmocka_unit_test(bad_sections),
        cmocka_unit_test(all_at_once),   cmocka_unit_test(missing_file),
        cmocka_unit_test(matrix),        cmocka_unit_test(memory_runs_out),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
