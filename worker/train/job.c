/* Loading a job's shared parts; see job.h. */
#include "worker/train/job.h"

#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "worker/data/prefer.h"
#include "worker/dist/device.h"
#include "worker/model/model.h"
#include "worker/stage/stage.h"
#include "worker/train/bucket.h"
#include "worker/train/choices.h"
#include "worker/train/infer.h"

static int load_data(struct job *j, struct err *e)
{
    struct problems p;
    int r;

    problems_init(&p, NULL);
    r = dataset_load_all(j->data, &j->spec->data, j->spec->task.labels.text,
                         j->spec->task.labels.n, &p, e);
    for (int i = 0; i < p.n; i++)
        if (p.item[i].warning)
            log_warn("%s%s%s", p.item[i].where, *p.item[i].where ? ": " : "",
                     p.item[i].message);
    if (r && p.errors > 1) {
        problems_print(&p, "hone");
        err_set(e, r, "%s: problems in the data, nothing was started", j->spec->file);
    }
    problems_fini(&p);
    return r;
}

static int hash_rows(struct job *j, struct err *e)
{
    struct hash_stream *h = hash_new();
    const struct dataset *d = &j->data[SPLIT_TRAIN];
    struct store_buf buf = {0};
    struct row row;
    int r = 0;

    if (!h)
        return err_set(e, ERR_NOMEM, "hash of the data: out of memory");
    for (size_t i = 0; !r && i < d->n; i++) {
        r = dataset_get(d, i, &buf, &row, e);
        if (r)
            break;
        hash_add(h, &row.label, sizeof row.label);
        for (int t = 0; t < 2 && row.text[t]; t++)
            hash_add(h, row.text[t], row.len[t] + 1);
    }
    hash_hex(h, j->data_hash);
    hash_free(h);
    store_buf_fini(&buf);
    return r;
}

/* Distances between candidate texts: cosine of the base model's mean-pooled states. */
static int embed_candidates(struct job *j, double *distance, struct err *e)
{
    struct model_options o = {
        .backend = j->backend, .head = HEAD_NONE, .pooling = POOLING_MEAN, .dropout = 0};
    struct sequences s = {0};
    struct model *m = NULL;
    struct row *row = mem_array((size_t)j->K, sizeof *row);
    float *x = NULL;
    int r;

    if (!row)
        return err_set(e, ERR_NOMEM, "preference order: out of memory");
    for (int i = 0; i < j->K; i++) {
        row[i].text[0] = j->spec->task.candidate_text[i];
        row[i].len[0] = strlen(row[i].text[0]);
    }
    r = encode_policy(&s, row, (size_t)j->K, &j->encode, e);
    if (!r)
        r = model_open(&m, j->spec->model, &o, e);
    if (r)
        goto done;
    x = mem_array((size_t)j->K * (size_t)model_get_info(m)->width, sizeof *x);
    r = x ? infer_embeddings(m, &s, x, e)
          : err_set(e, ERR_NOMEM, "preference order: out of memory");
    if (!r)
        prefer_cosine(j->K, (int)model_get_info(m)->width, x, distance);
done:
    model_close(m);
    sequences_fini(&s);
    mem_free(row);
    mem_free(x);
    return r;
}

static int make_order(struct job *j, struct err *e)
{
    const struct task_spec *task = &j->spec->task;
    size_t K = (size_t)j->K;
    double *distance = NULL;
    int r = 0;

    j->order = mem_array(K * K, sizeof *j->order);
    if (!j->order)
        return err_set(e, ERR_NOMEM, "preference order: out of memory");
    if (task->order != ORDER_ORDINAL) {
        distance = mem_array(K * K, sizeof *distance);
        if (!distance)
            return err_set(e, ERR_NOMEM, "preference order: out of memory");
        r = task->order == ORDER_MATRIX
                ? prefer_read_matrix(task->order_text, j->K, distance, e)
                : embed_candidates(j, distance, e);
    }
    if (!r)
        prefer_order(j->K, distance, (enum prefer_ties)task->ties, j->order);
    mem_free(distance);
    return r ? err_wrap(e, "preference order") : 0;
}

/* The longest candidate must leave room for text. */
static int check_candidates(struct job *j, struct err *e)
{
    long max = j->spec->data.max_tokens;
    long least = encode_least_tokens(&j->encode, j->data[SPLIT_TRAIN].pairs, e);

    if (least < 0)
        return (int)least;
    if (max >= least)
        return 0;
    err_set(e, ERR_CONFIG,
            "data.max_tokens: %ld leaves no room beside the longest candidate", max);
    return err_mend(e, "set max_tokens to at least %ld", least);
}

static int wants_reward_input(const struct spec *spec)
{
    for (size_t i = 0; i < spec->n_stages; i++) {
        const struct stage_spec *s = &spec->stage[i];
        struct stage_shape shape = {0};

        s->stage->shape(s->config, spec, &shape);
        if (shape.reward_input)
            return 1;
    }
    return 0;
}

int job_encode_spec(const struct spec *s, const struct tok *tok, struct encode_spec *out,
                    struct err *e)
{
    struct model_info info;
    int r;

    *out = (struct encode_spec){.tok = tok,
                                .max_tokens = s->data.max_tokens,
                                .prefix = s->task.prefix,
                                .candidate = s->task.candidate_text,
                                .n_candidates = (int)s->task.labels.n,
                                .answers = s->task.kind == TASK_GENERATE,
                                .template = s->task.template};
    if (!out->answers)
        return 0;
    r = model_read_info(s->model, &info, e);
    if (r)
        return r;
    out->eos = info.eos_id;
    if (!info.causal)
        return err_set(e, ERR_CONFIG, "%s: %s models do not generate text", s->model,
                       info.family);
    if (info.eos_id < 0 || info.eos_id >= info.vocab)
        return err_set(e, ERR_CONFIG,
                       "%s: config.json has no eos_token_id that would end an answer",
                       s->model);
    return 0;
}

int job_open(struct job *j, const struct spec *spec, const struct comm *comm, int threads,
             struct err *e)
{
    int r;

    memset(j, 0, sizeof *j);
    j->spec = spec;
    j->comm = comm;
    j->K = (int)spec->task.labels.n;
    j->backend = backend_find(spec_device(spec));
    if (!j->backend || *backend_reason(spec_device(spec))) {
        err_set(e, ERR_DEVICE, "device \"%s\" cannot be used here: %s", spec_device(spec),
                backend_reason(spec_device(spec)));
        return err_mend(e, "set resources.device to auto or cpu");
    }
    j->backend->set_threads(threads);
    choices_load(j->backend);
    r = load_data(j, e);
    if (!r && !j->data[SPLIT_TRAIN].n)
        r = err_set(e, ERR_CONFIG, "the training split has no rows");
    if (!r)
        r = hash_rows(j, e);
    if (!r)
        r = tok_open(&j->tok, spec->model, e);
    if (r)
        goto fail;
    r = job_encode_spec(spec, j->tok, &j->encode, e);
    if (r)
        goto fail;
    j->encode.threads = j->backend->threads();
    if (wants_reward_input(spec)) {
        r = check_candidates(j, e);
        if (!r)
            r = make_order(j, e);
    }
    if (!r)
        return 0;
fail:
    job_close(j);
    return r;
}

int job_connect(struct job *j, struct err *e)
{
    int two_bytes = j->spec->resources.gradients == GRADIENTS_BF16;
    int r = device_open(&j->sums, j->comm, j->backend, two_bytes, e);

    if (!r && j->sums)
        j->comm = j->sums;
    return r ? r : bucket_choose(j, &j->bucket_mb, e);
}

void job_close(struct job *j)
{
    device_close(j->sums);
    for (int i = 0; i < SPLITS; i++)
        dataset_fini(&j->data[i]);
    tok_close(j->tok);
    mem_free(j->order);
    memset(j, 0, sizeof *j);
}
