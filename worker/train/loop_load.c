/* Before the first step: options resolved to steps, sequences, tables, model, trainer, and
 * on resume the newest good checkpoint. Everything that can be wrong is found here. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "worker/ckpt/state.h"
#include "worker/data/pack.h"
#include "worker/train/bucket.h"
#include "worker/train/choices.h"
#include "worker/train/health_watch.h"
#include "worker/train/loop_internal.h"
#include "worker/train/memory.h"
#include "worker/train/newest.h"
#include "worker/train/precision.h"
#include "worker/train/writer.h"

static const struct stage_spec *needed(const struct loop *l, int need)
{
    return &l->o.job->spec->stage[l->o.stage->needs[need]];
}

/* Folder of the model the stage starts from: the job's, or a finished stage's output. */
static int find_source(struct loop *l, struct err *e)
{
    const struct spec *spec = l->o.job->spec;
    int need = l->stage->init_from
                   ? l->stage->init_from(l->o.stage->config, spec, l->o.stage)
                   : -1;
    int n;

    if (need < 0)
        return file_join(l->source, sizeof l->source, "", spec->model, e);
    n = snprintf(l->source, sizeof l->source, "%s/%s/final", l->o.run_dir,
                 needed(l, need)->name);
    if (n >= (int)sizeof l->source)
        return err_set(e, ERR_CONFIG, "path is too long: %s", l->o.run_dir);
    return 0;
}

static int check_needs(struct loop *l, struct err *e)
{
    char path[FILE_PATH_MAX];

    for (int i = 0; i < l->o.stage->n_needs; i++) {
        const char *name = needed(l, i)->name;

        if (snprintf(path, sizeof path, "%s/%s/final", l->o.run_dir, name) >=
            (int)sizeof path)
            return err_set(e, ERR_CONFIG, "path is too long: %s", l->o.run_dir);
        if (file_is_dir(path))
            continue;
        err_set(e, ERR_CONFIG, "stage %s needs %s, which has not finished: %s is not there",
                l->o.stage->name, name, path);
        return err_mend(e, "run stage %s first", name);
    }
    return 0;
}

/* What the Hugging Face format cannot say, for hone.json. */
static int make_extra(struct loop *l, struct err *e)
{
    const struct spec *spec = l->o.job->spec;
    struct str s = {0};

    str_add(&s, "{\"candidates\": [");
    for (int i = 0; i < l->o.job->K; i++) {
        const char *text = spec->task.candidate_text[i];

        str_add(&s, i ? ", " : "");
        str_add_json(&s, text, strlen(text));
    }
    str_addf(&s, "], \"max_tokens\": %ld, \"prefix\": ", spec->data.max_tokens);
    if (spec->task.prefix)
        str_add_json(&s, spec->task.prefix, strlen(spec->task.prefix));
    else
        str_add(&s, "null");
    str_addf(&s, ", \"precision\": \"%s\"", model_precision_names[l->precision]);
    str_add(&s, ", \"provenance\": {\"job\": ");
    str_add_json(&s, spec->name, strlen(spec->name));
    str_add(&s, ", \"stage\": ");
    str_add_json(&s, l->o.stage->name, strlen(l->o.stage->name));
    str_addf(&s, ", \"seed\": %ld, \"hone\": \"%s\"}}", spec->seed, HONE_VERSION);
    l->extra = str_failed(&s) ? NULL : arena_strdup(&l->arena, s.s);
    str_fini(&s);
    return l->extra ? 0
                    : err_set(e, ERR_NOMEM, "stage %s: out of memory", l->o.stage->name);
}

/* Rank 0 decides. r: what this rank's work has come to so far. */
static int find_precision(struct loop *l, int r, struct err *e)
{
    const struct backend *b = l->o.job->backend;
    const char *units;

    if (!r && loop_leads(l))
        r = precision_of_stage(l->o.job->spec, b, l->dir, l->o.resume, &l->precision, e);
    r = comm_agree(l->comm, r, e);
    if (!r)
        r = l->comm->broadcast(l->comm, &l->precision, sizeof l->precision, 0, e);
    units = precision_units(b, l->precision);
    if (!r)
        log_info("%s: matrix products in %s%s%s", l->o.stage->name,
                 model_precision_names[l->precision], units ? " by " : "",
                 units ? units : "");
    return r;
}

static long at_least_one(double x)
{
    return x < 1 ? 1 : (long)x;
}

/* Steps, and the intervals that were left to suit the length. */
static void resolve_lengths(struct loop *l)
{
    const struct common_options *c = l->c;
    long rows = (long)l->run.n_rows;

    l->batch = c->batch;
    l->steps_per_epoch = (rows + l->batch - 1) / l->batch;
    l->total = c->steps;
    if (!l->stage->loss)
        l->total = 0;
    else if (!l->total)
        l->total = at_least_one(ceil(c->epochs * (double)l->steps_per_epoch - 1e-9));
    stall_init(&l->stall, l->stage->loss_wanders ? -1 : c->stall, l->total);
    l->log_every = c->log_every ? c->log_every : at_least_one((double)l->total / 100);
    l->eval_every = c->eval_every ? c->eval_every : l->steps_per_epoch;
    l->checkpoint_every = c->checkpoint_every        ? c->checkpoint_every
                          : l->steps_per_epoch < 500 ? l->steps_per_epoch
                                                     : 500;
}

int loop_encode(struct loop *l, enum split split, struct sequences *out, struct err *e)
{
    const struct dataset *d = &l->o.job->data[split];
    int r = encode_dataset(out, d, NULL, l->shape.reward_input, &l->o.job->encode, e);

    if (!r && out->truncated)
        log_info("%s: %zu of %zu %s sequences were cut to %ld tokens", l->o.stage->name,
                 out->truncated, out->n, split_names[split], l->o.job->encode.max_tokens);
    return r;
}

/* Which training rows the run will see: all of them unless it ends in the first epoch. */
static int mark_visited(struct loop *l, struct err *e)
{
    size_t n = l->run.n_rows, seen = n;

    l->visited = mem_alloc(n);
    l->order = mem_array(n, sizeof *l->order);
    if (!l->visited || !l->order ||
        order_epoch(l->order, n, l->run.seed, l->o.stage->name, 0))
        return err_set(e, ERR_NOMEM, "order of the rows: out of memory");
    l->epoch = 0;
    if (l->total < l->steps_per_epoch)
        seen = (size_t)l->total * (size_t)l->batch;
    for (size_t i = 0; i < seen; i++)
        l->visited[l->order[i]] = 1;
    return 0;
}

int loop_open_model(struct loop *l, const char *dir, enum loop_use use, struct model **out,
                    struct err *e)
{
    const struct spec *spec = l->o.job->spec;
    int train = use == LOOP_TRAIN;
    struct model_options o = {.backend = l->o.job->backend,
                              .head = l->shape.head,
                              .outputs = l->shape.head == HEAD_CLASSIFY ? l->o.job->K : 1,
                              .pooling = l->pooling,
                              .value_head = use != LOOP_TEST && l->shape.value_head,
                              .trainable = train,
                              .keep_head = train ? l->shape.keep_head : 1,
                              .dropout = train ? l->c->dropout : 0,
                              .precision = l->precision,
                              .seed = (uint64_t)spec->seed,
                              .save = spec->save};

    if (l->shape.head == HEAD_CLASSIFY)
        o.labels = spec->task.labels.text;
    return model_open(out, dir, &o, e);
}

static int shards(const struct loop *l)
{
    return l->comm->world > 1 && l->o.job->spec->resources.shard_optimizer != SHARD_FALSE;
}

static int open_trainer(struct loop *l, struct err *e)
{
    const struct common_options *c = l->c;
    struct trainer_setup s = {.model = l->model,
                              .comm = l->comm,
                              .stage = l->stage,
                              .run = &l->run,
                              .sequences = &l->train,
                              .optim = {c->lr, c->head_lr, c->beta1, c->beta2, c->eps,
                                        c->weight_decay, shards(l),
                                        BUCKET_ELEMENTS(l->bucket_mb)},
                              .clip = c->clip,
                              .dropout = c->dropout != 0,
                              .micro_tokens = l->micro_tokens,
                              .step_bytes = l->step_bytes,
                              .recompute = l->recompute};
    int r;

    sched_init(&s.sched, (enum schedule)c->schedule, c->warmup, l->total);
    r = trainer_open(&l->trainer, &s, e);
    l->run.trainer = l->trainer;
    return r;
}

/* Go on from the newest checkpoint that is whole, if the caller asked for it. */
static int resume(struct loop *l, struct err *e)
{
    struct snapshot s = {.dir = l->dir,
                         .job_hash = l->o.job_hash,
                         .data_hash = l->o.job->data_hash,
                         .model = l->model,
                         .trainer = l->trainer,
                         .run = &l->run,
                         .progress = &l->p,
                         .comm = l->comm};
    char dir[FILE_PATH_MAX];
    struct model *saved = NULL;
    long step = -1;
    int r = l->o.resume && loop_leads(l) ? state_newest(l->dir, &step, e) : 0;

    r = comm_agree(l->comm, r, e);
    if (!r)
        r = l->comm->broadcast(l->comm, &step, sizeof step, 0, e);
    if (r || step < 0)
        return r;
    state_path(dir, l->dir, step);
    r = loop_open_model(l, dir, LOOP_RESUME, &saved, e);
    if (!r)
        r = snapshot_load(&s, step, saved, &l->arena, e);
    model_close(saved);
    r = comm_agree(l->comm, r, e);
    if (r)
        return err_wrap(e, "resume %s from checkpoint-%ld", l->o.stage->name, step);
    l->saved = step;
    l->want_best = l->p.best_step == step;
    log_info("%s: going on from checkpoint-%ld", l->o.stage->name, step);
    return 0;
}

static int load_data(struct loop *l, struct err *e)
{
    int r;

    l->stage->shape(l->o.stage->config, l->o.job->spec, &l->shape);
    l->context = (struct run_context){.run_dir = l->o.run_dir,
                                      .backend = l->o.job->backend,
                                      .tok = l->o.job->tok,
                                      .encode = &l->o.job->encode,
                                      .data = &l->o.job->data[SPLIT_TRAIN],
                                      .stop = l->o.stop,
                                      .link = l->o.link,
                                      .precision = l->precision,
                                      .comm = l->comm};
    l->run = (struct stage_run){.spec = l->o.job->spec,
                                .stage = l->o.stage,
                                .config = l->o.stage->config,
                                .label = l->o.job->data[SPLIT_TRAIN].label,
                                .n_rows = l->o.job->data[SPLIT_TRAIN].n,
                                .K = l->o.job->K,
                                .order = l->o.job->order,
                                .seed = (uint64_t)l->o.job->spec->seed,
                                .dir = l->dir,
                                .context = &l->context};
    resolve_lengths(l);
    r = mark_visited(l, e);
    l->context.visited = l->visited;
    if (!r)
        r = loop_encode(l, SPLIT_TRAIN, &l->train, e);
    if (!r)
        r = loop_encode(l, SPLIT_VALIDATION, &l->validation, e);
    return r;
}

/* ---- device memory ---- */

/* As for the whole job, or what a checkpoint was made with where the job names no size. */
static int find_bucket(struct loop *l, struct err *e)
{
    long kept = 0;
    int r;

    l->bucket_mb = l->o.job->bucket_mb;
    if (!l->bucket_mb || !l->stage->loss)
        return 0;
    if (l->o.resume && loop_leads(l) && !l->o.job->spec->resources.bucket_mb)
        kept = bucket_of_checkpoint(l->dir);
    r = l->comm->broadcast(l->comm, &kept, sizeof kept, 0, e);
    if (kept)
        l->bucket_mb = kept;
    if (!r && loop_leads(l))
        log_info("%s: gradients go between devices in buckets of %ld MiB%s",
                 l->o.stage->name, l->bucket_mb, kept ? ", as in the checkpoint" : "");
    return r;
}

/* The smallest micro-batch that a rank has chosen is everybody's, so is recomputation. */
static int agree_parts(struct loop *l, struct err *e)
{
    long own[2] = {l->micro_tokens, l->recompute};
    long(*all)[2] = mem_array((size_t)l->comm->world, sizeof *all);
    int r = comm_agree(l->comm,
                       all ? 0 : err_set(e, ERR_NOMEM, "memory plan: out of memory"), e);

    if (!r)
        r = l->comm->all_gather(l->comm, own, sizeof own, all, e);
    for (int k = 0; !r && k < l->comm->world; k++) {
        if (all[k][0] < l->micro_tokens)
            l->micro_tokens = all[k][0];
        l->recompute |= (int)all[k][1];
    }
    mem_free(all);
    return r;
}

static int reserve(struct loop *l, const struct memory_request *r,
                   const struct memory_plan *p, size_t left, size_t all, struct err *e)
{
    const struct backend *b = r->backend;
    char device[256];

    if (p->peak <= left && !b->reserve(p->peak - p->buffers + p->between, p->scratch)) {
        l->step_bytes = p->step;
        return 0;
    }
    b->describe(device, sizeof device);
    if (p->peak <= left)
        snprintf(device, sizeof device, "%s", b->error());
    return memory_explain(r, p, device, left, all, e);
}

/* On a device: how much of it the stage needs, and that is taken before anything else. */
static int reserve_device(struct loop *l, struct err *e)
{
    const struct spec *spec = l->o.job->spec;
    const struct sequences none = {0};
    struct memory_request r = {.spec = spec,
                               .stage = l->o.stage,
                               .shape = &l->shape,
                               .backend = l->o.job->backend,
                               .precision = l->precision,
                               .ranks = l->comm->world,
                               .shard = shards(l),
                               .bucket_mb = l->bucket_mb,
                               .train = &l->train,
                               .validation = &l->validation,
                               .test = &none,
                               .steps = l->total};
    struct memory_plan p = {0};
    size_t left, all;
    char size[32];
    int rc = 0;

    l->micro_tokens = l->c->micro_tokens;
    l->recompute = spec->resources.recompute == RECOMPUTE_ON;
    if (r.backend->memory(&left, &all))
        rc = err_set(e, ERR_DEVICE, "%s", r.backend->error());
    rc = comm_agree(l->comm, rc, e);
    if (rc || !all || !l->stage->loss)
        return rc;
    rc = memory_plan_device(&r, all, &p, e);
    l->micro_tokens = p.micro_tokens;
    l->recompute = p.recompute;
    rc = comm_agree(l->comm, rc, e);
    if (!rc)
        rc = agree_parts(l, e);
    if (rc)
        return rc;
    if (l->micro_tokens != p.micro_tokens || l->recompute != p.recompute) {
        r.micro_tokens = l->micro_tokens;
        r.recompute = l->recompute;
        rc = memory_plan(&r, &p, e);
    }
    if (!rc)
        rc = reserve(l, &r, &p, left, all, e);
    if (!rc)
        log_info("%s: %s of device memory reserved, at most %ld tokens at once%s",
                 l->o.stage->name, str_bytes(size, sizeof size, (double)p.peak),
                 l->micro_tokens, l->recompute ? ", layers recomputed" : "");
    return comm_agree(l->comm, rc, e);
}

static int load_model(struct loop *l, struct err *e)
{
    int r = 0;

    if (l->c->pooling >= 0)
        l->pooling = (enum pooling)l->c->pooling;
    else
        r = model_default_pooling(l->source, l->shape.head, &l->pooling, e);
    if (!r)
        r = loop_open_model(l, l->source, LOOP_TRAIN, &l->model, e);
    r = comm_agree(l->comm, r, e);
    if (r || !l->stage->loss) /* a stage that only measures */
        return r;
    r = open_trainer(l, e);
    if (!r)
        r = resume(l, e);
    if (r)
        return r;
    r = comm_agree(l->comm, model_prepare(l->model, e),
                   e); /* what a checkpoint leaves open */
    choices_store(l->o.job->backend);
    return r;
}

/* A rank without a single example in every batch would only cost. */
static int check_ranks(const struct loop *l, struct err *e)
{
    long most = l->batch < (long)l->run.n_rows ? l->batch : (long)l->run.n_rows;

    if (!l->stage->loss || l->comm->world <= most)
        return 0;
    err_set(e, ERR_CONFIG, "stage %s: %d ranks, but a batch has %ld examples",
            l->o.stage->name, l->comm->world, most);
    return err_mend(e, "start at most %ld ranks, or set batch to at least %d", most,
                    l->comm->world);
}

int loop_load(struct loop *l, struct err *e)
{
    int r;

    l->stage = l->o.stage->stage;
    l->c = &l->o.stage->common;
    l->saved = l->p.evaluated = l->p.best_step = l->last.step = l->best.step = -1;
    l->p.stop_value = NAN;
    l->started = clock_now();
    comm_note(l->comm, COMM_LOAD, 0);
    comm_patience(l->comm, LOOP_PATIENCE);
    link_progress(l->o.link, "load", 0, 1, "{}");
    l->select = spec_select_metric(l->o.stage);
    r = file_join(l->dir, sizeof l->dir, l->o.run_dir, l->o.stage->name, e);
    newest_stage(!r && l->stage->loss ? l->dir : NULL, l->o.stage->name);
    if (!r)
        r = check_needs(l, e);
    if (!r)
        r = find_source(l, e);
    r = find_precision(l, r, e);
    if (r)
        return r;
    r = make_extra(l, e);
    if (!r)
        r = load_data(l, e);
    if (!r)
        r = check_ranks(l, e);
    if (!r)
        r = file_make_dirs(l->dir, e);
    if (!r && loop_leads(l))
        r = state_clean(l->dir, e);
    r = comm_agree(l->comm, r, e);
    if (r)
        return r;
    r = find_bucket(l, e);
    if (!r)
        r = reserve_device(l, e);
    /* Tables come before the model they serve: the peak is one model less. */
    if (!r && l->stage->prepare)
        r = l->stage->prepare(&l->run, e);
    if (!r)
        r = load_model(l, e);
    if (!r && loop_leads(l))
        r = curve_open(&l->curve, l->dir, l->p.metrics_bytes, e);
    if (!r && loop_leads(l))
        r = tfevents_open(&l->events, l->dir, l->p.events_bytes, e);
    l->started = clock_now() - l->p.elapsed;
    if (!r)
        r = loop_gpu_watch(l, e);
    if (!r)
        log_info("%s: %ld steps of %ld rows, %zu rows, %zu tokens in them",
                 l->o.stage->name, l->total, l->batch, l->run.n_rows,
                 l->train.offset[l->train.n]);
    return r;
}

void loop_unload(struct loop *l)
{
    writer_free(l->writer);
    health_watch_stop(l->watch);
    newest_stage(NULL, NULL);
    mem_free(l->gpus);
    if (l->stage && l->stage->release)
        l->stage->release(&l->run);
    trainer_close(l->trainer);
    model_close(l->model);
    sequences_fini(&l->train);
    sequences_fini(&l->validation);
    if (l->best.logits != l->last.logits)
        mem_free(l->best.logits);
    mem_free(l->last.logits);
    mem_free(l->visited);
    mem_free(l->order);
    arena_fini(&l->arena);
    memset(l, 0, sizeof *l);
}
