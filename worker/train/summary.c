/* stage.json and predictions-<split>.jsonl of one stage; see summary.h.
 *
 * A prediction line is {"text" (or "text1", "text2"), "label", "prediction", "logits",
 * "probabilities"}; logits have 9 digits, which gives back the very f32 values. */
#include "worker/train/summary.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "worker/train/clahf_loss.h"
#include "worker/train/summary_internal.h"

enum { FLUSH_BYTES = 1 << 18 };

void summary_set_number(json_t *o, const char *key, double x)
{
    json_t *v = !isfinite(x)                      ? json_null()
                : x == floor(x) && fabs(x) < 1e15 ? json_integer((json_int_t)x)
                                                  : json_real(x);

    if (json_object_set_new(o, key, v))
        json_object_clear(o); /* out of memory: summary_write() sees the gap */
}

void summary_set_string(json_t *o, const char *key, const char *text)
{
    json_object_set_new(o, key, text ? json_string(text) : json_null());
}

json_t *summary_metrics(const struct class_metrics *m, int ordinal)
{
    json_t *o = json_object();

    if (m->n) /* differences and errors have none */
        summary_set_number(o, "n", (double)m->n);
    summary_set_number(o, "accuracy", m->accuracy);
    summary_set_number(o, "macro_f1", m->macro_f1);
    summary_set_number(o, "mcc", m->mcc);
    summary_set_number(o, "ece", m->ece);
    summary_set_number(o, "nll", m->nll);
    if (ordinal) {
        summary_set_number(o, "mae", m->mae);
        summary_set_number(o, "qwk", m->qwk);
    }
    summary_set_number(o, "confidence", m->confidence);
    return o;
}

static json_t *confusion(const long *count, int K)
{
    json_t *rows = json_array();

    for (int y = 0; y < K; y++) {
        json_t *row = json_array();

        for (int k = 0; k < K; k++)
            json_array_append_new(row, json_integer(count[y * K + k]));
        json_array_append_new(rows, row);
    }
    return rows;
}

static json_t *reliability(const struct reliability_bin bin[METRIC_BINS])
{
    json_t *all = json_array();

    for (int b = 0; b < METRIC_BINS; b++) {
        json_t *o = json_object();

        summary_set_number(o, "n", (double)bin[b].n);
        summary_set_number(o, "confidence", bin[b].confidence);
        summary_set_number(o, "accuracy", bin[b].accuracy);
        json_array_append_new(all, o);
    }
    return all;
}

int summary_set_drawings(json_t *o, const double *p, const int *label, size_t n, int K,
                         struct err *e)
{
    long *count = mem_array((size_t)K * (size_t)K, sizeof *count);
    struct reliability_bin bin[METRIC_BINS];

    if (!count)
        return err_set(e, ERR_NOMEM, "confusion matrix: out of memory");
    metrics_confusion(p, label, n, K, count);
    metrics_reliability(p, label, n, K, bin);
    json_object_set_new(o, "confusion", confusion(count, K));
    json_object_set_new(o, "reliability", reliability(bin));
    mem_free(count);
    return 0;
}

int summary_write(const char *dir, const char *name, json_t *o, struct err *e)
{
    char path[FILE_PATH_MAX];
    int r = file_join(path, sizeof path, dir, name, e);

    if (!r && !json_object_size(o))
        r = err_set(e, ERR_NOMEM, "%s: out of memory", path);
    if (!r)
        r = json_write(path, o, e);
    json_decref(o);
    return r;
}

/* ---- predictions --------------------------------------------------------------------- */

static void add_numbers(struct str *s, const char *key, const double *x, int K)
{
    str_addf(s, ", \"%s\": [", key);
    for (int k = 0; k < K; k++) {
        str_add(s, k ? ", " : "");
        json_number(s, x[k]);
    }
    str_add_char(s, ']');
}

static void add_prediction(struct str *s, const struct row *row, const float *z,
                           double *work, int K)
{
    static const char *const pair[] = {"text1", "text2"};
    int best = 0;

    for (int j = 0; j < 2 && row->text[j]; j++) {
        str_addf(s, "%s\"%s\": ", j ? ", " : "{", row->text[1] ? pair[j] : "text");
        str_add_json(s, row->text[j], row->len[j]);
    }
    for (int k = 0; k < K; k++) {
        best = z[k] > z[best] ? k : best;
        work[k] = (double)z[k];
    }
    str_addf(s, ", \"label\": %d, \"prediction\": %d", row->label, best);
    add_numbers(s, "logits", work, K);
    metrics_softmax(z, 1, K, 1, work);
    add_numbers(s, "probabilities", work, K);
    str_add(s, "}\n");
}

static int write_predictions(const struct stage_facts *f, enum split split, struct err *e)
{
    const struct dataset *d = &f->data[split];
    int K = (int)f->spec->task.labels.n, r;
    char name[64], path[FILE_PATH_MAX];
    double *work = mem_array((size_t)K, sizeof *work);
    struct file_out out = {0};
    struct store_buf buf = {0};
    struct str s = {0};
    struct row row;

    snprintf(name, sizeof name, "predictions-%s.jsonl", split_names[split]);
    r = file_join(path, sizeof path, f->dir, name, e);
    if (!r && !work)
        r = err_set(e, ERR_NOMEM, "%s: out of memory", path);
    if (!r)
        r = file_out_open(&out, path, e);
    for (size_t i = 0; !r && i < d->n; i++) {
        r = dataset_get(d, i, &buf, &row, e);
        if (!r)
            add_prediction(&s, &row, f->logits[split] + i * (size_t)K, work, K);
        if (!r && str_failed(&s))
            r = err_set(e, ERR_NOMEM, "%s: out of memory", path);
        if (!r && (s.len > FLUSH_BYTES || i + 1 == d->n)) {
            r = file_out_add(&out, str_get(&s), s.len, e);
            str_clear(&s);
        }
    }
    if (!r)
        r = file_out_finish(&out, e);
    file_out_abort(&out);
    store_buf_fini(&buf);
    str_fini(&s);
    mem_free(work);
    return r;
}

/* ---- stage.json ---------------------------------------------------------------------- */

static json_t *listed(const struct metric_list *m)
{
    json_t *o = json_object();

    for (int i = 0; i < m->n; i++)
        summary_set_number(o, m->name[i], m->value[i]);
    return o;
}

static int labels_of(const struct dataset *d, int **out, struct err *e)
{
    *out = mem_array(d->n + 1, sizeof **out);
    if (!*out)
        return err_set(e, ERR_NOMEM, "labels: out of memory");
    for (size_t i = 0; i < d->n; i++)
        (*out)[i] = d->label[i];
    return 0;
}

static json_t *shares(const double *p, const int *label, size_t n, int K, struct err *e)
{
    long *count = mem_array((size_t)K * (size_t)K, sizeof *count);
    json_t *o = json_object(), *gold = json_array(), *guess = json_array();

    if (!count) {
        err_set(e, ERR_NOMEM, "label counts: out of memory");
    } else {
        metrics_confusion(p, label, n, K, count);
        for (int k = 0; k < K; k++) {
            long g = 0, c = 0;

            for (int j = 0; j < K; j++) {
                g += count[k * K + j];
                c += count[j * K + k];
            }
            json_array_append_new(gold, json_integer(g));
            json_array_append_new(guess, json_integer(c));
        }
    }
    json_object_set_new(o, "gold", gold);
    json_object_set_new(o, "predicted", guess);
    mem_free(count);
    return count ? o : (json_decref(o), NULL);
}

/* One split: standard errors and what is drawn, of the test split; metrics at temperature t
 * of both. */
static int add_split(const struct stage_facts *f, enum split split, double t, json_t *root,
                     json_t *tempered, struct err *e)
{
    const struct dataset *d = &f->data[split];
    int K = (int)f->spec->task.labels.n, ordinal = clahf_is_ordinal(f->spec);
    int *label = NULL, r = labels_of(d, &label, e);
    double *p = mem_array(d->n * (size_t)K + 1, sizeof *p);
    struct class_metrics m;

    if (!r && !p)
        r = err_set(e, ERR_NOMEM, "metrics of %zu rows: out of memory", d->n);
    if (r)
        goto out;
    metrics_softmax(f->logits[split], d->n, K, t, p);
    r = metrics_classify(p, label, d->n, K, &m, e);
    if (!r)
        json_object_set_new(tempered, split_names[split], summary_metrics(&m, ordinal));
    if (r || split != SPLIT_TEST)
        goto out;
    metrics_softmax(f->logits[split], d->n, K, 1, p);
    r = metrics_bootstrap(p, NULL, label, d->n, K, (uint64_t)f->spec->seed, &m, e);
    if (!r)
        json_object_set_new(root, "se", summary_metrics(&m, ordinal));
    if (!r)
        r = summary_set_drawings(root, p, label, d->n, K, e);
    if (!r) {
        json_t *o = shares(p, label, d->n, K, e);

        r = o ? json_object_set_new(root, "labels", o) : ERR_NOMEM;
    }
out:
    mem_free(label);
    mem_free(p);
    return r;
}

static int add_classifier(const struct stage_facts *f, json_t *root, struct err *e)
{
    const struct dataset *v = &f->data[SPLIT_VALIDATION];
    json_t *tempered = json_object();
    double t = 1;
    int *label = NULL, r = labels_of(v, &label, e);

    if (!r && f->logits[SPLIT_VALIDATION])
        t = metrics_fit_temperature(f->logits[SPLIT_VALIDATION], label, v->n,
                                    (int)f->spec->task.labels.n);
    mem_free(label);
    summary_set_number(tempered, "value", t);
    for (enum split s = SPLIT_VALIDATION; !r && s <= SPLIT_TEST; s++)
        if (f->logits[s])
            r = add_split(f, s, t, root, tempered, e);
    json_object_set_new(root, "temperature", tempered);
    return r;
}

int summary_stage(const struct stage_facts *f, struct err *e)
{
    json_t *root = json_object(), *metrics = json_object();
    const struct stage_spec *st = spec_find_stage((struct spec *)f->spec, f->name);
    char output[FILE_PATH_MAX];
    int classifier = 0, r = 0;

    for (enum split s = SPLIT_VALIDATION; !r && s <= SPLIT_TEST; s++)
        if (f->logits[s]) {
            classifier = 1;
            r = write_predictions(f, s, e);
        }
    summary_set_string(root, "state", "done");
    summary_set_string(root, "precision", f->precision);
    summary_set_number(root, "seconds", f->seconds);
    summary_set_number(root, "train_seconds", f->train_seconds);
    summary_set_number(root, "steps", (double)f->steps);
    summary_set_number(root, "skipped", (double)f->skipped);
    summary_set_number(root, "tokens", f->tokens);
    summary_set_number(root, "tokens_per_second",
                       f->train_seconds > 0 ? f->tokens / f->train_seconds : 0);
    summary_set_number(root, "peak_bytes", f->peak_bytes);
    summary_set_number(root, "best_step", f->best_step < 0 ? NAN : (double)f->best_step);
    for (enum split s = SPLIT_VALIDATION; s <= SPLIT_TEST; s++)
        json_object_set_new(metrics, split_names[s], listed(&f->metrics[s]));
    json_object_set_new(root, "metrics", metrics);
    snprintf(output, sizeof output, "%s/final", f->name);
    if (st && st->stage->loss)
        summary_set_string(root, "output", output);
    if (!r && classifier)
        r = add_classifier(f, root, e);
    if (r) {
        json_decref(root);
        return err_wrap(e, "summary of %s", f->name);
    }
    return summary_write(f->dir, "stage.json", root, e);
}
