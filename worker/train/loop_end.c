/* After the last step: final/ (the best evaluation's model or the last one), what it
 * measures on validation and test, predictions, and stage.json, whose presence with state
 * "done" says that the stage needs not run again. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "worker/ckpt/state.h"
#include "worker/train/loop_internal.h"
#include "worker/train/summary.h"

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

    comm_note(l->comm, COMM_SAVE, l->p.step);
    comm_patience(l->comm, LOOP_PATIENCE);
    link_progress(l->o.link, "save", l->p.step, l->total, "{}");
    if (r || !loop_leads(l))
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

/* This attempt's evaluation of the weights in final/, or NULL. */
static struct kept *find_kept(struct loop *l, const char *final)
{
    int best = l->c->select == SELECT_BEST && l->p.best_step >= 0, exact;
    struct kept *k = best ? &l->best : &l->last;
    struct err e;

    if (!l->stage->loss || k->step != (best ? l->p.best_step : l->p.step) ||
        model_is_stored_exactly(final, &exact, &e) || !exact)
        return NULL;
    return k;
}

static int test_split(struct loop *l, struct model *m, enum split split,
                      struct metric_list *out, float **logits, struct err *e)
{
    struct sequences s = {0};
    int r = comm_agree(l->comm, loop_encode(l, split, &s, e), e);

    *logits = NULL;
    out->n = 0;
    if (!r && s.n)
        r = loop_measure(l, m, &s, split, logits, out, e);
    sequences_fini(&s);
    return r;
}

static int write_stage(struct loop *l, const struct metric_list *m,
                       float *const logits[SPLITS], struct err *e)
{
    const struct progress *p = &l->p;
    struct stage_facts f = {.dir = l->dir,
                            .name = l->o.stage->name,
                            .spec = l->o.job->spec,
                            .seconds = loop_elapsed(l),
                            .train_seconds = p->seconds,
                            .precision = model_precision_names[l->precision],
                            .steps = p->step,
                            .skipped = p->skipped,
                            .best_step = p->best_step,
                            .tokens = p->tokens,
                            .peak_bytes = peak_bytes(),
                            .data = l->o.job->data,
                            .metrics = m};

    for (int i = 0; i < SPLITS && l->shape.head == HEAD_CLASSIFY; i++)
        f.logits[i] = logits[i];
    return summary_stage(&f, e);
}

/* What is measured is what lies in final/: it is opened afresh; what an evaluation of the
 * same weights gave before is not computed again. */
int loop_test(struct loop *l, struct err *e)
{
    struct metric_list m[SPLITS] = {0};
    float *logits[SPLITS] = {NULL};
    struct model *final = NULL;
    struct kept *kept;
    char dir[FILE_PATH_MAX];
    int r = l->stage->loss ? file_join(dir, sizeof dir, l->dir, "final", e)
                           : file_join(dir, sizeof dir, "", l->source, e);

    trainer_close(l->trainer); /* its memory is not needed any more */
    l->trainer = NULL;
    model_close(l->model);
    l->model = NULL;
    if (!r)
        r = loop_open_model(l, dir, LOOP_TEST, &final, e);
    r = comm_agree(l->comm, r, e);
    kept = r ? NULL : find_kept(l, dir);
    if (kept) {
        m[SPLIT_VALIDATION] = kept->metrics;
        logits[SPLIT_VALIDATION] = kept->logits;
    } else if (!r) {
        r = test_split(l, final, SPLIT_VALIDATION, &m[SPLIT_VALIDATION],
                       &logits[SPLIT_VALIDATION], e);
    }
    if (!r)
        r = test_split(l, final, SPLIT_TEST, &m[SPLIT_TEST], &logits[SPLIT_TEST], e);
    model_close(final);
    if (!r && m[SPLIT_TEST].n)
        r = loop_record(l, "test", &m[SPLIT_TEST], e);
    if (!r && loop_leads(l))
        r = write_stage(l, m, logits, e);
    if (!kept)
        mem_free(logits[SPLIT_VALIDATION]);
    mem_free(logits[SPLIT_TEST]);
    return r;
}
