/* After the last step: final/ (the best evaluation's model or the last one), what it
 * measures on validation and test, predictions, and stage.json, whose presence with state
 * "done" says that the stage needs not run again. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "worker/ckpt/state.h"
#include "worker/train/loop_internal.h"
#include "worker/train/metrics.h"

static int link_best(struct loop *l, const char *best, struct err *e)
{
    char tmp[FILE_PATH_MAX];
    int r = state_begin(l->dir, "final", tmp, e);

    if (!r)
        r = state_link_files(best, tmp, e);
    return r ? r : state_commit(l->dir, "final", tmp, e);
}

int loop_final(struct loop *l, struct err *e)
{
    char best[FILE_PATH_MAX];
    int r = file_join(best, sizeof best, l->dir, "best", e);

    link_progress(l->o.link, "save", l->p.step, l->total, "{}");
    if (r)
        return r;
    if (l->c->select == SELECT_BEST && l->p.best_step >= 0)
        return link_best(l, best, e);
    return loop_save_model(l, "final", e);
}

/* Peak resident memory of this process in bytes, from /proc; 0 where it does not say. */
static double peak_bytes(void)
{
    FILE *f = fopen("/proc/self/status", "re");
    char line[256];
    double kib = 0;

    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, "VmHWM:", 6))
            kib = strtod(line + 6, NULL);
    if (f)
        fclose(f);
    return kib * 1024;
}

static void add_number(struct str *s, const char *key, double x)
{
    str_addf(s, "\"%s\": ", key);
    json_number(s, x);
    str_add(s, ", ");
}

static void add_metrics(struct str *s, const char *split, const struct metric_list *m)
{
    str_addf(s, "\"%s\": {", split);
    for (int i = 0; i < m->n; i++) {
        str_addf(s, "%s\"%s\": ", i ? ", " : "", m->name[i]);
        json_number(s, m->value[i]);
    }
    str_add_char(s, '}');
}

static int write_stage(struct loop *l, const struct metric_list m[SPLITS], struct err *e)
{
    const struct progress *p = &l->p;
    char path[FILE_PATH_MAX];
    struct str s = {0};
    int r = file_join(path, sizeof path, l->dir, "stage.json", e);

    if (r)
        return r;
    str_add(&s, "{\"state\": \"done\", ");
    add_number(&s, "seconds", loop_elapsed(l));
    add_number(&s, "train_seconds", p->seconds);
    add_number(&s, "steps", (double)p->step);
    add_number(&s, "skipped", (double)p->skipped);
    add_number(&s, "tokens", p->tokens);
    add_number(&s, "tokens_per_second", p->seconds > 0 ? p->tokens / p->seconds : 0);
    add_number(&s, "peak_bytes", peak_bytes());
    if (p->best_step >= 0)
        add_number(&s, "best_step", (double)p->best_step);
    str_add(&s, "\"metrics\": {");
    add_metrics(&s, "validation", &m[SPLIT_VALIDATION]);
    str_add(&s, ", ");
    add_metrics(&s, "test", &m[SPLIT_TEST]);
    str_addf(&s, "}, \"output\": \"%s/final\"}\n", l->o.stage->name);
    r = str_failed(&s) ? err_set(e, ERR_NOMEM, "%s: out of memory", path)
                       : file_write_atomic(path, s.s, s.len, e);
    str_fini(&s);
    return r;
}

/* One line a row: {"text", "label", "prediction", "probabilities"}. */
static int write_predictions(struct loop *l, enum split split, const float *logits,
                             struct err *e)
{
    const struct dataset *d = &l->o.job->data[split];
    int K = l->o.job->K;
    char name[64], path[FILE_PATH_MAX];
    double *p = mem_array(d->n * (size_t)K, sizeof *p);
    struct str s = {0};
    int r;

    if (!p)
        return err_set(e, ERR_NOMEM, "predictions: out of memory");
    metrics_softmax(logits, d->n, K, 1, p);
    for (size_t i = 0; i < d->n; i++) {
        int best = 0;

        str_add(&s, "{\"text\": ");
        str_add_json(&s, d->row[i].text[0], d->row[i].len[0]);
        for (int k = 1; k < K; k++)
            if (p[i * (size_t)K + (size_t)k] > p[i * (size_t)K + (size_t)best])
                best = k;
        str_addf(&s, ", \"label\": %d, \"prediction\": %d, \"probabilities\": [",
                 d->row[i].label, best);
        for (int k = 0; k < K; k++) {
            str_add(&s, k ? ", " : "");
            json_number(&s, p[i * (size_t)K + (size_t)k]);
        }
        str_add(&s, "]}\n");
    }
    mem_free(p);
    snprintf(name, sizeof name, "predictions-%s.jsonl", split_names[split]);
    r = file_join(path, sizeof path, l->dir, name, e);
    if (!r && str_failed(&s))
        r = err_set(e, ERR_NOMEM, "%s: out of memory", path);
    if (!r)
        r = file_write_atomic(path, str_get(&s), s.len, e);
    str_fini(&s);
    return r;
}

static int test_split(struct loop *l, struct model *m, enum split split,
                      struct metric_list *out, struct err *e)
{
    struct sequences s = {0};
    float *logits = NULL;
    int r = loop_encode(l, split, &s, e);

    out->n = 0;
    if (!r && s.n)
        r = loop_measure(l, m, &s, split, &logits, out, e);
    if (!r && s.n && l->shape.head == HEAD_CLASSIFY)
        r = write_predictions(l, split, logits, e);
    mem_free(logits);
    sequences_fini(&s);
    return r;
}

/* What is measured is what lies in final/: it is opened afresh. */
int loop_test(struct loop *l, struct err *e)
{
    struct metric_list m[SPLITS] = {0};
    struct model *final = NULL;
    char dir[FILE_PATH_MAX];
    int r = l->stage->loss ? file_join(dir, sizeof dir, l->dir, "final", e)
                           : file_join(dir, sizeof dir, "", l->source, e);

    trainer_close(l->trainer); /* its memory is not needed any more */
    l->trainer = NULL;
    model_close(l->model);
    l->model = NULL;
    if (!r)
        r = loop_open_model(l, dir, LOOP_TEST, &final, e);
    if (!r)
        r = test_split(l, final, SPLIT_VALIDATION, &m[SPLIT_VALIDATION], e);
    if (!r)
        r = test_split(l, final, SPLIT_TEST, &m[SPLIT_TEST], e);
    model_close(final);
    if (!r && m[SPLIT_TEST].n)
        r = loop_record(l, "test", &m[SPLIT_TEST], e);
    return r ? r : write_stage(l, m, e);
}
