/* The stage's state machine; see loop.h. A step that is not finite is skipped and counted;
 * STREAK_MAX of them in a row end the stage with ERR_FAILED, and the last good checkpoint
 * stays. */
#include "worker/train/loop.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "worker/ckpt/state.h"
#include "worker/data/pack.h"
#include "worker/train/choices.h"
#include "worker/train/infer.h"
#include "worker/train/loop_internal.h"
#include "worker/train/newest.h"
#include "worker/train/writer.h"

enum { STREAK_MAX = 10, STREAK_F16 = 24 }; /* f16: 16 bring the loss scale down to 1 */
enum phase { PHASE_TRAIN, PHASE_EVAL, PHASE_SAVE, PHASE_BEST, PHASE_FINAL, PHASE_STOP };

/* For profilers of a device: what it is busy with; -1: nothing of these. */
static void enter(const struct loop *l, int part)
{
    if (l->o.job->backend->device)
        l->o.job->backend->device->enter(part);
}

double loop_elapsed(const struct loop *l)
{
    return clock_now() - l->started;
}

int loop_record(struct loop *l, const char *split, const struct metric_list *m,
                struct err *e)
{
    struct str line = {0};
    double epoch = (double)l->p.step / (double)l->steps_per_epoch;
    int r;

    if (!loop_leads(l))
        return 0;
    curve_format(&line, l->p.step, epoch, loop_elapsed(l), split, m);
    if (str_failed(&line)) {
        str_fini(&line);
        return err_set(e, ERR_NOMEM, "%s: out of memory", l->curve.path);
    }
    r = curve_line(&l->curve, line.s, e);
    if (!r)
        r = tfevents_add(&l->events, l->p.step, split, m, e);
    if (!r)
        link_metric(l->o.link, line.s);
    str_fini(&line);
    return r;
}

static void infer_progress(void *arg, size_t done, size_t n)
{
    struct loop *l = arg;

    switch (link_control(l->o.link)) {
    case CONTROL_STOP:
    case CONTROL_ABORT:
        *l->o.stop = 1;
        break;
    case CONTROL_CHECKPOINT:
        l->want_save = 1;
        break;
    case CONTROL_NONE:
        break;
    }
    if (!l->stage->loss && link_finish(l->o.link)) /* nothing of it is of use */
        *l->o.stop = 1;
    link_progress(l->o.link, "eval", (long)done, (long)n, "{}");
}

/* Outputs of a split and the stage's metrics over them. *logits: (n, S, O), mem_alloc'ed.
 */
int loop_measure(struct loop *l, struct model *m, const struct sequences *s,
                 enum split split, float **logits, struct metric_list *out, struct err *e)
{
    const struct dataset *d = &l->o.job->data[split];
    struct infer_options o = {.micro_tokens = l->micro_tokens,
                              .progress = infer_progress,
                              .arg = l,
                              .stop = l->o.stop,
                              .comm = l->comm};
    float *x = mem_array(s->n * (size_t)model_outputs(m), sizeof *x);
    int *label = mem_array(d->n + 1, sizeof *label);
    int r = 0;

    enter(l, BACKEND_EVALUATE);
    comm_note(l->comm, COMM_EVAL, l->p.step);
    comm_patience(l->comm, LOOP_PATIENCE);
    if (!x || !label)
        r = err_set(e, ERR_NOMEM, "evaluation: out of memory");
    r = comm_agree(l->comm, r, e);
    if (!r)
        r = infer_outputs(m, s, &o, x, NULL, e);
    for (size_t i = 0; !r && i < d->n; i++)
        label[i] = d->label[i];
    enter(l, -1);
    out->n = 0;
    if (!r)
        r = l->stage->evaluate(&l->run, label, d->n, x, out, e);
    mem_free(label);
    if (r) {
        mem_free(x);
        x = NULL;
    }
    *logits = x;
    return r ? err_wrap(e, "evaluate %s on %s", l->o.stage->name, split_names[split]) : 0;
}

static void add_to_sum(struct metric_list *sum, const char *name, double value)
{
    int j = 0;

    while (j < sum->n && strcmp(sum->name[j], name))
        j++;
    if (j < sum->n)
        sum->value[j] += value;
    else
        metric_add(sum, name, value);
}

int loop_save_model(struct loop *l, const char *name, struct err *e)
{
    char tmp[FILE_PATH_MAX];
    struct err ignored;
    int r;

    if (!loop_leads(l))
        return 0;
    r = state_begin(l->dir, name, tmp, e);
    if (!r)
        r = model_save(l->model, tmp, l->extra, e);
    if (!r)
        r = state_commit(l->dir, name, tmp, e);
    if (r)
        file_remove_tree(tmp, &ignored); /* gives a full disk its space back */
    return r ? err_wrap(e, "save %s/%s", l->o.stage->name, name) : 0;
}

/* A checkpoint whose files are there: what is left for the writer. */
struct commit {
    char dir[FILE_PATH_MAX], tmp[FILE_PATH_MAX];
    long step;
    size_t keep;
};

static int commit(void *arg, struct err *e)
{
    const struct commit *c = arg;
    int r = snapshot_commit(c->dir, c->step, c->tmp, e);

    return r ? r : state_prune(c->dir, c->keep, e);
}

static int commit_best(void *arg, struct err *e)
{
    const struct commit *c = arg;
    char checkpoint[FILE_PATH_MAX], tmp[FILE_PATH_MAX];
    int r = state_begin(c->dir, "best", tmp, e);

    state_path(checkpoint, c->dir, c->step);
    if (!r)
        r = state_link_files(checkpoint, tmp, e);
    return r ? r : state_commit(c->dir, "best", tmp, e);
}

static void fill_commit(const struct loop *l, struct commit *c)
{
    snprintf(c->dir, sizeof c->dir, "%s", l->dir);
    c->step = l->p.step;
    c->keep = l->c->keep ? (size_t)l->c->keep : 2;
}

/* Training goes on when the files have been filled; the next checkpoint waits for this one
 * to be on disk. */
int loop_save(struct loop *l, struct err *e)
{
    struct snapshot s = {.dir = l->dir,
                         .job_hash = l->o.job_hash,
                         .data_hash = l->o.job->data_hash,
                         .model = l->model,
                         .trainer = l->trainer,
                         .run = &l->run,
                         .progress = &l->p,
                         .extra = l->extra,
                         .comm = l->comm};
    double begin = clock_now();
    struct commit c;
    int r;

    if (l->saved == l->p.step)
        return 0;
    enter(l, BACKEND_CHECKPOINT);
    comm_note(l->comm, COMM_SAVE, l->p.step);
    comm_patience(l->comm, LOOP_PATIENCE);
    link_progress(l->o.link, "save", l->p.step, l->total, "{}");
    r = writer_wait(l->writer, e);
    l->p.elapsed = loop_elapsed(l);
    l->p.metrics_bytes = (long)l->curve.size;
    l->p.events_bytes = (long)l->events.size;
    if (!r && loop_leads(l))
        r = curve_sync(&l->curve, e);
    if (!r && loop_leads(l))
        r = tfevents_sync(&l->events, e);
    r = comm_agree(l->comm, r, e);
    if (!r)
        r = snapshot_fill(&s, c.tmp, e);
    if (!r)
        l->saved = l->p.step;
    if (!r && loop_leads(l)) {
        fill_commit(l, &c);
        r = writer_add(&l->writer, commit, &c, sizeof c, e);
    }
    add_to_sum(&l->p.interval.sum, "time_checkpoint", clock_now() - begin);
    enter(l, -1);
    return r;
}

/* best/ is the newest evaluation's model: linked when it is a checkpoint as well. */
static int save_best(struct loop *l, struct err *e)
{
    struct commit c;
    int r;

    if (!loop_leads(l))
        return 0;
    if (l->saved == l->p.step) {
        fill_commit(l, &c);
        return writer_add(&l->writer, commit_best, &c, sizeof c, e);
    }
    r = writer_wait(l->writer, e); /* which may be at an older best/ */
    return r ? r : loop_save_model(l, "best", e);
}

static int lower_is_better(const char *metric)
{
    static const char *const lower[] = {"nll", "ece", "mae", "loss", "perplexity"};

    for (size_t i = 0; i < sizeof lower / sizeof *lower; i++)
        if (!strcmp(metric, lower[i]))
            return 1;
    return 0;
}

/* What the newest evaluation gave, and the best one. */
static void keep_evaluation(struct loop *l, const struct metric_list *m, float *logits)
{
    if (l->last.logits != l->best.logits)
        mem_free(l->last.logits);
    l->last = (struct kept){l->p.step, logits, *m};
    if (l->p.best_step != l->p.step)
        return;
    if (l->best.logits != logits)
        mem_free(l->best.logits);
    l->best = l->last;
}

/* Is the newest evaluation the best so far? Ties go to the lower validation NLL. */
static void compare_best(struct loop *l, double value, double nll)
{
    double sign = lower_is_better(l->select) ? -1 : 1;
    struct progress *p = &l->p;
    int better = p->best_step < 0 || sign * value > sign * p->best_value ||
                 (value == p->best_value && nll < p->best_nll);

    if (!better)
        return;
    p->best_step = p->step;
    p->best_value = value;
    p->best_nll = nll;
    l->want_best = 1;
}

static int early_stop(struct loop *l, const struct metric_list *m, struct err *e)
{
    const char *name = l->c->stop_metric;
    double value, sign;

    if (!name)
        return 0;
    value = metric_get(m, name);
    if (isnan(value))
        return err_set(e, ERR_CONFIG, "stage %s: stop.metric: it has no metric \"%s\"",
                       l->o.stage->name, name);
    sign = lower_is_better(name) ? -1 : 1;
    if (isnan(l->p.stop_value) || sign * value > sign * l->p.stop_value) {
        l->p.stop_value = value;
        l->p.stop_count = 0;
    } else if (++l->p.stop_count >= l->c->stop_patience) {
        l->p.finished = 1;
        log_info("%s: %s has not improved for %ld evaluations: training ends",
                 l->o.stage->name, name, l->p.stop_count);
    }
    return 0;
}

static int evaluate(struct loop *l, struct err *e)
{
    struct metric_list m = {.n = 0};
    struct str line = {0};
    float *logits;
    double value, nll;
    int r;

    r = loop_measure(l, l->model, &l->validation, SPLIT_VALIDATION, &logits, &m, e);
    if (r)
        return r;
    l->p.evaluated = l->p.step;
    l->saved = -1; /* a checkpoint of this step, made by a stop, does not know of it */
    value = metric_get(&m, l->select);
    nll = metric_get(&m, "nll");
    compare_best(l, value, isnan(nll) ? metric_get(&m, "loss") : nll);
    keep_evaluation(l, &m, logits);
    if (isnan(value) && l->c->select == SELECT_BEST)
        return err_set(e, ERR_CONFIG, "stage %s: select: it has no metric \"%s\"",
                       l->o.stage->name, l->select);
    r = early_stop(l, &m, e);
    if (!r)
        r = loop_record(l, "validation", &m, e);
    for (int i = 0; i < m.n && i < 6; i++)
        str_addf(&line, " %s %.4g", m.name[i], m.value[i]);
    log_info("%s: validation at step %ld:%s%s", l->o.stage->name, l->p.step, str_get(&line),
             l->want_best ? " (best)" : "");
    str_fini(&line);
    return r;
}

static void add_to_interval(struct interval *v, const struct step_result *s)
{
    v->steps++;
    v->tokens += (double)s->tokens;
    if (s->bad) {
        v->skipped++;
        return;
    }
    v->loss += s->loss;
    v->grad_norm += s->grad_norm;
    for (int i = 0; i < s->metrics.n; i++)
        add_to_sum(&v->sum, s->metrics.name[i], s->metrics.value[i]);
    for (int i = 0; i < TRAINER_PARTS; i++)
        add_to_sum(&v->sum, trainer_part_names[i], s->seconds[i]);
    /* Also where no checkpoint fell into the interval, or before a resume: each line and
     * event has the same parts. */
    add_to_sum(&v->sum, "time_checkpoint", 0);
}

/* A line of metrics.jsonl with the means since the last one, and one for people. */
static int log_interval(struct loop *l, double lr, struct err *e)
{
    struct interval *v = &l->p.interval;
    struct metric_list m = {.n = 0};
    double n = (double)(v->steps - v->skipped);
    double speed = v->seconds > 0 ? v->tokens / v->seconds : 0;
    int r;

    metric_add(&m, "loss", n > 0 ? v->loss / n : NAN);
    metric_add(&m, "lr", lr);
    metric_add(&m, "grad_norm", n > 0 ? v->grad_norm / n : NAN);
    metric_add(&m, "tokens", l->p.tokens);
    metric_add(&m, "tokens_per_second", speed);
    if (l->p.skipped)
        metric_add(&m, "skipped", (double)l->p.skipped);
    if (l->precision == PRECISION_F16)
        metric_add(&m, "loss_scale", trainer_scale(l->trainer)->factor);
    for (int i = 0; n > 0 && i < v->sum.n && m.n < METRICS_MAX; i++)
        metric_add(&m, v->sum.name[i], v->sum.value[i] / n);
    r = loop_gpu_metrics(l, &m, e);
    if (r)
        return r;
    if (l->stalled) /* the daemon makes an event of it */
        metric_add(&m, "stalled", (double)l->stall.window);
    l->stalled = 0;
    r = loop_record(l, "train", &m, e);
    log_info("%s: step %ld/%ld epoch %.2f loss %.4f lr %.2e grad norm %.3g, %.0f tokens/s",
             l->o.stage->name, l->p.step, l->total,
             (double)l->p.step / (double)l->steps_per_epoch, m.value[0], lr, m.value[2],
             speed);
    memset(v, 0, sizeof *v);
    return r;
}

/* Steps may be shorter than what anybody can see. */
static const double progress_every = 0.05;

static void tell_progress(struct loop *l, const struct step_result *s, double seconds)
{
    double now = clock_now();
    struct str json = {0};

    if (!l->o.link || (now - l->told < progress_every && l->p.step < l->total))
        return;
    l->told = now;
    str_add(&json, "{\"loss\": ");
    json_number(&json, s->loss);
    str_add(&json, ", \"lr\": ");
    json_number(&json, s->lr);
    str_add(&json, ", \"tokens_per_second\": ");
    json_number(&json, seconds > 0 ? (double)s->tokens / seconds : 0);
    str_add_char(&json, '}');
    link_progress(l->o.link, "train", l->p.step, l->total, str_get(&json));
    str_fini(&json);
}

/* Rows of step `step`: the next `batch` of its epoch's permutation; the last batch of an
 * epoch may be smaller. */
static int batch_of(struct loop *l, const uint32_t **example, size_t *n, struct err *e)
{
    long epoch = l->p.step / l->steps_per_epoch;
    size_t rows = l->o.job->data[SPLIT_TRAIN].n;
    size_t first = (size_t)(l->p.step % l->steps_per_epoch) * (size_t)l->batch;

    if (epoch != l->epoch) {
        if (order_epoch(l->order, rows, l->run.seed, l->o.stage->name, epoch))
            return err_set(e, ERR_NOMEM, "order of epoch %ld: out of memory", epoch);
        l->epoch = epoch;
    }
    *example = l->order + first;
    *n = rows - first < (size_t)l->batch ? rows - first : (size_t)l->batch;
    return 0;
}

/* The batch after this one, where it is of the same epoch. */
static void expect_next(struct loop *l, const uint32_t *example, size_t n)
{
    size_t first = (size_t)(example - l->order) + n, rows = l->o.job->data[SPLIT_TRAIN].n;
    size_t left = rows - first, next = left < (size_t)l->batch ? left : (size_t)l->batch;

    if (next && l->p.step + 1 < l->total)
        trainer_expect(l->trainer, example + n, next);
}

/* Too many in a row. The parameters are those of the last good step: they are kept. */
static int give_up(struct loop *l, struct err *e)
{
    struct progress *p = &l->p;
    struct err second;
    int f16 = l->precision == PRECISION_F16;

    if (f16)
        p->step++;
    if (f16 && loop_save(l, &second))
        log_warn("%s", second.msg);
    err_set(
        e, ERR_FAILED,
        "%s: loss or gradients were not finite for %ld steps in a row; it began at step "
        "%ld in %s",
        l->o.stage->name, p->streak, p->streak_step, p->streak_tensor);
    if (f16)
        return err_mend(e,
                        "train in bf16 or f32 (resources.precision): f16 ends at 65504; or "
                        "lower lr");
    return err_mend(e, "lower lr");
}

static int skipped_step(struct loop *l, const char *tensor, struct err *e)
{
    struct progress *p = &l->p;
    long most = l->precision == PRECISION_F16 ? STREAK_F16 : STREAK_MAX;

    p->skipped++;
    if (!p->streak++) {
        p->streak_step = p->step + 1;
        snprintf(p->streak_tensor, sizeof p->streak_tensor, "%s", tensor);
    }
    if (l->precision == PRECISION_F16)
        log_warn("%s: step %ld skipped: %s is not finite; the loss scale is %g now",
                 l->o.stage->name, p->step + 1, tensor, trainer_scale(l->trainer)->factor);
    else
        log_warn("%s: step %ld skipped: %s is not finite", l->o.stage->name, p->step + 1,
                 tensor);
    /* A short stage none of whose steps counted has learned nothing either. */
    return p->streak < most && p->streak < l->total ? 0 : give_up(l, e);
}

/* Seconds another host may be silent within a step: ten times the longest one so far. */
static double patience_of(const struct loop *l)
{
    double x = 10 * l->longest;

    return l->longest == 0 ? 120 : x < 20 ? 20 : x;
}

static int train(struct loop *l, struct err *e)
{
    const uint32_t *example = NULL;
    struct step_result s;
    size_t n = 0;
    double begin = clock_now(), seconds;
    int r = comm_agree(l->comm, batch_of(l, &example, &n, e), e);

    comm_patience(l->comm, patience_of(l));
    if (!r)
        expect_next(l, example, n);
    if (!r)
        r = trainer_step(l->trainer, l->p.step, example, n, &s, e);
    if (r)
        return err_wrap(e, "%s: step %ld", l->o.stage->name, l->p.step + 1);
    seconds = clock_now() - begin;
    l->longest = seconds > l->longest ? seconds : l->longest;
    add_to_interval(&l->p.interval, &s);
    l->p.interval.seconds += seconds;
    l->p.seconds += seconds;
    l->p.tokens += (double)s.tokens;
    if (s.bad) {
        r = skipped_step(l, s.bad, e);
        if (r)
            return r;
    } else {
        l->p.streak = 0;
    }
    l->p.step++;
    if (!s.bad && stall_step(&l->stall, s.loss, l->total - l->p.step)) {
        l->stalled = 1;
        log_warn("%s: the training loss has not fallen for %ld steps", l->o.stage->name,
                 l->stall.window);
    }
    if (loop_leads(l))
        choices_store(l->o.job->backend);
    loop_gpu_say(l);
    tell_progress(l, &s, seconds);
    if (l->p.step % l->log_every == 0 || l->p.step == l->total)
        r = log_interval(l, s.lr, e);
    return r;
}

static int ended(const struct loop *l)
{
    return l->p.finished || l->p.step >= l->total;
}

static int due(const struct loop *l, long every)
{
    return l->p.step > 0 && (l->p.step % every == 0 || l->p.step >= l->total);
}

/* What a rank has to say at a boundary. */
enum { SAY_SAVE = 1, SAY_STOP = 2, SAY_ABORT = 4, SAY_FAILED = 8, SAY_FINISH = 16 };

static unsigned say(struct loop *l, int failed)
{
    enum link_control word = link_control(l->o.link);
    unsigned say = failed ? SAY_FAILED : 0;

    if (word == CONTROL_CHECKPOINT)
        say |= SAY_SAVE;
    if (*l->o.stop || word == CONTROL_STOP)
        say |= SAY_STOP;
    if (word == CONTROL_ABORT)
        say |= SAY_STOP | SAY_ABORT;
    if (link_finish(l->o.link))
        say |= SAY_FINISH;
    return say;
}

/* What comes next at this boundary, the same on all ranks. */
static enum phase next_phase(struct loop *l, unsigned said)
{
    if (said & SAY_SAVE)
        l->want_save = 1;
    if (said & SAY_STOP) {
        l->want_save = !(said & SAY_ABORT);
        return PHASE_STOP;
    }
    if (said & SAY_FINISH && !ended(l)) {
        l->p.finished = 1;
        log_info("%s: skipped at step %ld of %ld: what it has learned is handed on",
                 l->o.stage->name, l->p.step, l->total);
    }
    if (l->validation.n && l->p.evaluated != l->p.step &&
        (l->p.finished || due(l, l->eval_every)))
        return PHASE_EVAL;
    if ((l->want_save || due(l, l->checkpoint_every) || ended(l)) && l->saved != l->p.step)
        return PHASE_SAVE;
    if (l->want_best)
        return PHASE_BEST;
    return ended(l) ? PHASE_FINAL : PHASE_TRAIN;
}

static int stop(struct loop *l, struct err *e)
{
    int r = l->want_save ? loop_save(l, e) : 0;

    if (!r)
        r = writer_wait(l->writer, e);
    r = comm_agree(l->comm, r, e);
    if (r)
        return r;
    err_set(e, ERR_STOPPED, "%s: stopped on request at step %ld of %ld", l->o.stage->name,
            l->p.step, l->total);
    return err_mend(e, "go on with --resume");
}

static int run_phase(struct loop *l, enum phase phase, struct err *e)
{
    int r = 0;

    switch (phase) {
    case PHASE_TRAIN:
        r = fault_hit(FAULT_STEP) ? err_errno(e, ERR_IO, errno, "step boundary") : 0;
        if (!r)
            r = loop_gpu_check(l, e);
        r = comm_agree(l->comm, r, e);
        return r ? r : train(l, e);
    case PHASE_EVAL:
        r = evaluate(l, e);
        return r == ERR_STOPPED ? 0 : r; /* the boundary sees the request again */
    case PHASE_SAVE:
        l->want_save = 0;
        return loop_save(l, e);
    case PHASE_BEST:
        l->want_best = 0;
        return save_best(l, e);
    case PHASE_STOP:
        return stop(l, e);
    case PHASE_FINAL:
        break;
    }
    return r;
}

/* At every boundary the ranks tell each other what happened and what is wanted. */
static int run_phases(struct loop *l, struct err *e)
{
    int r = 0;

    for (;;) {
        unsigned said;
        struct err second;
        enum phase phase;
        int rc;

        if (!r)
            r = writer_failed(l->writer, e);
        said = say(l, r != 0);
        rc = comm_any(l->comm, &said, &second);
        if (rc && !r)
            *e = second;
        if (rc)
            return r ? r : rc;
        if (said & SAY_FAILED)
            return loop_gpu_blame(l, comm_agree(l->comm, r, e), e);
        phase = next_phase(l, said);
        if (phase == PHASE_FINAL)
            return comm_agree(l->comm, writer_wait(l->writer, e), e);
        r = run_phase(l, phase, e);
    }
}

int loop_run(const struct loop_options *o, struct err *e)
{
    struct loop *l = mem_alloc(sizeof *l);
    int r;

    if (!l)
        return err_set(e, ERR_NOMEM, "stage %s: out of memory", o->stage->name);
    l->o = *o;
    l->comm = o->job->comm;
    r = comm_agree(l->comm, loop_load(l, e), e);
    if (!r && l->stage->loss)
        r = run_phases(l, e);
    if (!r && l->stage->loss)
        r = comm_agree(l->comm, loop_final(l, e), e);
    if (!r)
        r = comm_agree(l->comm, loop_test(l, e), e);
    if (r == ERR_FAILED || r == ERR_DEVICE || r == ERR_NOMEM || r == ERR_IO) {
        struct err second;

        writer_wait(l->writer, &second); /* one more, perhaps */
        newest_mend(e);
    }
    loop_unload(l);
    mem_free(l);
    return r;
}
