/* hone eval: a classifier measured on a labelled file: accuracy, macro-F1, MCC, ECE, NLL,
 * for ordered labels MAE and kappa, with standard errors, and the confusion matrix.
 *
 * Without --task the file is JSONL with `text` (or text1, text2) and `label`, a name or an
 * id of the model's labels; with it, the job's `task` and `data` say what columns, bins and
 * cleaning mean. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/args.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "worker/spec/spec.h"
#include "worker/train/clahf_loss.h"
#include "worker/train/metrics.h"
#include "worker/verb/classifier.h"
#include "worker/verb/verb.h"

struct eval_args {
    const char *model, *data, *task, *precision;
    struct arg_list set;
    int json;
};

struct eval {
    const struct eval_args *a;
    struct classifier c;
    struct problems problems;
    struct spec spec; /* of --task */
    struct data_spec data;
    struct opt_list file;
    struct dataset d;
    int ordinal;
    double *p;
    int *label;
    long *confusion;
    struct class_metrics m, se;
};

/* What the file's columns mean: the job's word for it, or the defaults. */
static int read_mapping(struct eval *v, struct err *e)
{
    int r;

    if (file_size(v->a->data) < 0)
        return err_errno(e, ERR_CONFIG, errno, "%s", v->a->data);
    if (v->a->task) {
        r = spec_read(&v->spec, v->a->task, v->a->set.item, &v->problems, e);
        if (r) {
            problems_print(&v->problems, "hone");
            return r;
        }
        if ((int)v->spec.task.labels.n != v->c.K)
            return err_set(e, ERR_CONFIG, "%s has %zu labels, the model %d", v->a->task,
                           v->spec.task.labels.n, v->c.K);
        v->data = v->spec.data;
        v->ordinal = clahf_is_ordinal(&v->spec);
    } else {
        opt_defaults(data_options, &v->data);
        data_resolve(&v->data, NULL, 0, &v->spec.arena, &v->problems);
    }
    /* Only this file, all of it, as it is. */
    v->file = (struct opt_list){.n = 1, .text = (const char **)&v->a->data};
    v->data.test = v->file;
    v->data.train.n = v->data.validation.n = v->data.file.n = 0;
    v->data.split = NULL;
    v->data.validation_share = v->data.test_share = 0;
    v->data.duplicates = DUPLICATES_KEEP;
    v->data.limit = 0;
    return problems_result(&v->problems, e);
}

static int bad_label(const struct eval *v, size_t i, struct err *e)
{
    struct store_buf buf = {0};
    struct row row;
    int r = dataset_get(&v->d, i, &buf, &row, e);

    if (!r)
        r = err_set(e, ERR_CONFIG, "%s: row %u: label %d, but the model has %d", v->a->data,
                    row.line, row.label, v->c.K);
    store_buf_fini(&buf);
    return r;
}

static int load(struct eval *v, struct err *e)
{
    const char *const *names =
        v->a->task ? v->spec.task.labels.text : (const char *const *)v->c.label;
    int r =
        dataset_load(&v->d, &v->data, SPLIT_TEST, names, (size_t)v->c.K, &v->problems, e);

    if (r)
        return r;
    if (!v->d.n)
        return err_set(e, ERR_CONFIG, "%s: no rows", v->a->data);
    for (size_t i = 0; i < v->d.n; i++)
        if (v->d.label[i] < 0 || v->d.label[i] >= v->c.K)
            return bad_label(v, i, e);
    return 0;
}

static int measure(struct eval *v, struct err *e)
{
    size_t n = v->d.n, K = (size_t)v->c.K;
    const float *z;
    int r = classifier_run_set(&v->c, &v->d, &z, e);

    if (r)
        return r;
    v->p = mem_array(n * K, sizeof *v->p);
    v->label = mem_array(n, sizeof *v->label);
    v->confusion = mem_array(K * K, sizeof *v->confusion);
    if (!v->p || !v->label || !v->confusion)
        return err_set(e, ERR_NOMEM, "metrics of %zu rows: out of memory", n);
    for (size_t i = 0; i < n; i++)
        v->label[i] = v->d.label[i];
    metrics_softmax(z, n, v->c.K, 1, v->p);
    metrics_confusion(v->p, v->label, n, v->c.K, v->confusion);
    r = metrics_classify(v->p, v->label, n, v->c.K, &v->m, e);
    if (!r)
        r = metrics_bootstrap(v->p, NULL, v->label, n, v->c.K, 1, &v->se, e);
    return r;
}

static void print_row(const char *name, double x, double se, int percent)
{
    if (percent)
        printf("%-14s %7.1f %% ± %.1f\n", name, 100 * x, 100 * se);
    else
        printf("%-14s %7.3f   ± %.3f\n", name, x, se);
}

static void print_confusion(const struct eval *v)
{
    int width = 10;

    printf("\nconfusion (rows: gold, columns: predicted)\n%-20s", "");
    for (int k = 0; k < v->c.K; k++)
        printf("%*d", width, k);
    putchar('\n');
    for (int y = 0; y < v->c.K; y++) {
        printf("%3d %-16.16s", y, v->c.label[y]);
        for (int k = 0; k < v->c.K; k++)
            printf("%*ld", width, v->confusion[y * v->c.K + k]);
        putchar('\n');
    }
}

static void print_table(const struct eval *v)
{
    const struct class_metrics *m = &v->m, *se = &v->se;

    printf("%-14s %7zu\n", "rows", v->d.n);
    print_row("accuracy", m->accuracy, se->accuracy, 1);
    print_row("macro-F1", m->macro_f1, se->macro_f1, 1);
    print_row("MCC", m->mcc, se->mcc, 1);
    print_row("ECE", m->ece, se->ece, 1);
    print_row("NLL", m->nll, se->nll, 0);
    if (v->ordinal) {
        print_row("MAE", m->mae, se->mae, 0);
        print_row("QWK", m->qwk, se->qwk, 0);
    }
    print_row("confidence", m->confidence, se->confidence, 1);
    print_confusion(v);
    printf("± is one standard error (bootstrap over rows)\n");
}

static int print_json(const struct eval *v, struct err *e)
{
    struct reliability_bin bin[METRIC_BINS];
    struct str s = {0};
    int r = 0;

    metrics_reliability(v->p, v->label, v->d.n, v->c.K, bin);
    str_add(&s, "{\"model\": ");
    str_add_json(&s, v->a->model, strlen(v->a->model));
    str_add(&s, ", \"data\": ");
    str_add_json(&s, v->a->data, strlen(v->a->data));
    str_add(&s, ", \"metrics\": ");
    metrics_write_json(&v->m, v->ordinal, &s);
    str_add(&s, ", \"se\": ");
    metrics_write_json(&v->se, v->ordinal, &s);
    str_add(&s, ", \"labels\": [");
    for (int k = 0; k < v->c.K; k++) {
        str_add(&s, k ? ", " : "");
        str_add_json(&s, v->c.label[k], strlen(v->c.label[k]));
    }
    str_add(&s, "], \"confusion\": [");
    for (int i = 0; i < v->c.K * v->c.K; i++)
        str_addf(&s, "%s%ld", i % v->c.K ? ", " : i ? "], [" : "[", v->confusion[i]);
    str_add(&s, "]], \"reliability\": [");
    for (int b = 0; b < METRIC_BINS; b++) {
        str_addf(&s, "%s{\"n\": %zu, \"confidence\": ", b ? ", " : "", bin[b].n);
        json_number(&s, bin[b].confidence);
        str_add(&s, ", \"accuracy\": ");
        json_number(&s, bin[b].accuracy);
        str_add_char(&s, '}');
    }
    str_add(&s, "]}");
    if (str_failed(&s))
        r = err_set(e, ERR_NOMEM, "out of memory");
    else
        puts(s.s);
    str_fini(&s);
    return r;
}

static int eval(const struct eval_args *a, struct err *e)
{
    struct eval *v = mem_alloc(sizeof *v);
    int r;

    if (!v)
        return err_set(e, ERR_NOMEM, "out of memory");
    v->a = a;
    problems_init(&v->problems, a->task);
    r = classifier_open(&v->c, a->model, a->precision, e);
    if (!r)
        r = read_mapping(v, e);
    if (!r)
        r = load(v, e);
    if (!r)
        r = measure(v, e);
    if (!r)
        r = a->json ? print_json(v, e) : (print_table(v), 0);
    mem_free(v->p);
    mem_free(v->label);
    mem_free(v->confusion);
    dataset_fini(&v->d);
    classifier_close(&v->c);
    spec_fini(&v->spec);
    problems_fini(&v->problems);
    mem_free(v);
    return r;
}

int verb_eval(int argc, char **argv)
{
    static const struct arg_flag flags[] = {
        ARG_VALUE("--model", "DIR", "folder of a classifier, e.g. RUN/ppo/final",
                  struct eval_args, model),
        ARG_VALUE("--data", "FILE", "labelled rows", struct eval_args, data),
        ARG_VALUE("--task", "JOB.yaml", "job whose task and data sections map the file",
                  struct eval_args, task),
        ARG_LIST("--set", "KEY=VALUE", "override a key of that job", struct eval_args, set),
        ARG_VALUE("--precision", "f32|bf16|auto",
                  "auto: as it was trained, where the processor can", struct eval_args,
                  precision),
        ARG_SWITCH("--json", "one JSON document on standard output", struct eval_args,
                   json),
        ARG_END};
    static const struct arg_spec spec = {
        "hone eval",
        "--model DIR --data FILE [--task JOB.yaml] [--precision P] [--json]",
        "Accuracy, macro-F1, MCC, ECE and confusion matrix of a classifier on a file.",
        flags,
        0,
        0,
        0};
    struct eval_args a = {0};
    struct err e = {0};
    int r = args_parse(&spec, argc, argv, &a, &e);

    if (!r && (!a.model || !a.data)) {
        r = err_set(&e, ERR_USAGE, "eval: %s is missing", a.model ? "--data" : "--model");
        err_mend(&e, "hone eval --model DIR --data FILE");
    }
    if (!r)
        r = eval(&a, &e);
    return verb_result(r, &e);
}
