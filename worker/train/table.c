/* Tables of frozen models; see table.h. Fails as its parts do, wrapped with the table's
 * name; a stored table that does not fit is computed again. */
#include "worker/train/table.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "worker/ckpt/safetensors.h"
#include "worker/train/infer.h"

struct table {
    const struct table_request *q;
    struct stage_run *run;
    char model[FILE_PATH_MAX], file[FILE_PATH_MAX];
    struct sequences s; /* of the visited rows */
    size_t n;           /* visited rows */
    char hash[33];
};

static int find_paths(struct table *t, struct err *e)
{
    const struct run_context *c = t->run->context;
    char dir[FILE_PATH_MAX];
    int r = file_join(dir, sizeof dir, t->run->dir, "tables", e);

    if (!r)
        r = file_make_dirs(dir, e);
    if (r)
        return r;
    if (snprintf(t->model, sizeof t->model, "%s/%s/final", c->run_dir, t->q->need) >=
            (int)sizeof t->model ||
        snprintf(t->file, sizeof t->file, "%s/%s.safetensors", dir, t->q->name) >=
            (int)sizeof t->file)
        return err_set(e, ERR_CONFIG, "path is too long: %s", dir);
    return 0;
}

static int encode(struct table *t, struct err *e)
{
    const struct run_context *c = t->run->context;
    int r = encode_dataset(&t->s, c->data, c->visited, t->q->reward_input, c->encode, e);

    t->n = r ? 0 : t->s.n / t->s.per_example;
    return r;
}

static int hash_sequences(const struct sequences *s, struct hash_stream *h, struct err *e)
{
    struct store_buf buf = {0};
    int *ids = mem_array(2 * s->longest + 1, sizeof *ids);
    int r = ids ? 0 : err_set(e, ERR_NOMEM, "out of memory");

    for (size_t i = 0; !r && i < s->n; i++) {
        size_t n = s->offset[i + 1] - s->offset[i];

        r = sequences_read(s, i, &buf, ids, ids + n, e);
        hash_add(h, &n, sizeof n);
        hash_add(h, ids, 2 * n * sizeof *ids);
    }
    store_buf_fini(&buf);
    mem_free(ids);
    return r;
}

/* Of everything the table depends on: the model's manifest, the precision and
 * the token sequences. */
static int hash_inputs(struct table *t, struct err *e)
{
    char manifest[FILE_PATH_MAX], *text;
    struct hash_stream *h;
    size_t n;
    int r = file_join(manifest, sizeof manifest, t->model, "manifest.json", e);

    if (!r)
        r = file_read(manifest, 1 << 20, &text, &n, e);
    if (r)
        return r;
    h = hash_new();
    if (h) {
        hash_add(h, text, n);
        hash_add(h, &t->run->context->precision, sizeof t->run->context->precision);
        hash_add(h, t->run->context->visited, t->run->n_rows);
        r = hash_sequences(&t->s, h, e);
        hash_hex(h, t->hash);
    } else {
        r = err_set(e, ERR_NOMEM, "out of memory");
    }
    hash_free(h);
    mem_free(text);
    return r;
}

/* The stored table, if it is of the same inputs. */
static int is_stored(const struct table *t, float *x, size_t O)
{
    struct safetensors f;
    const struct safetensors_tensor *v;
    json_t *meta = NULL;
    const char *hash = NULL;
    struct err e;
    int ok = 0;

    if (!file_exists(t->file) || safetensors_open(&f, t->file, &e))
        return 0;
    v = safetensors_find(&f, "values");
    ok = f.metadata && !json_parse(t->file, f.metadata, strlen(f.metadata), &meta, &e) &&
         !json_get_string(meta, "hash", 1, &hash, &e) && !strcmp(hash, t->hash) && v &&
         v->elements == t->n * O && !safetensors_read_f32(&f, v, 0, t->n * O, x, &e);
    json_decref(meta);
    safetensors_close(&f);
    return ok;
}

static int store(const struct table *t, const float *x, size_t O, struct err *e)
{
    struct safetensors_item item = {"values", DTYPE_F32, 2, {(long)t->n, (long)O}, x};
    char meta[64];

    snprintf(meta, sizeof meta, "{\"hash\": \"%s\"}", t->hash);
    return safetensors_write(t->file, meta, &item, 1, e);
}

static void progress(void *arg, size_t done, size_t n)
{
    const struct run_context *c = arg;
    enum link_control word = link_control(c->link);

    if (word == CONTROL_STOP || word == CONTROL_ABORT)
        *c->stop = 1;
    link_progress(c->link, "table", (long)done, (long)n, "{}");
}

static int compute(const struct table *t, float *x, struct err *e)
{
    const struct run_context *c = t->run->context;
    struct infer_options i = {.micro_tokens = t->run->stage->common.micro_tokens,
                              .progress = progress,
                              .arg = (void *)c,
                              .stop = c->stop,
                              .comm = c->comm};
    struct model_options o = {.backend = c->backend,
                              .head = t->q->head,
                              .outputs = t->q->head == HEAD_CLASSIFY ? t->run->K : 1,
                              .keep_head = 1,
                              .precision = c->precision};
    struct model *m = NULL;
    int r = model_default_pooling(t->model, o.head, &o.pooling, e);

    if (!r)
        r = model_open(&m, t->model, &o, e);
    r = comm_agree(c->comm, r, e);
    if (!r)
        r = infer_outputs(m, &t->s, &i, x, NULL, e);
    model_close(m);
    return r;
}

/* Rows that are not visited: NAN. */
static float *spread(const struct table *t, const float *x, size_t O)
{
    const unsigned char *visited = t->run->context->visited;
    float *all = mem_array(t->run->n_rows * O, sizeof *all);

    for (size_t i = 0; all && i < t->run->n_rows; i++) {
        if (visited[i])
            memcpy(all + i * O, x, O * sizeof *all);
        for (size_t k = 0; !visited[i] && k < O; k++)
            all[i * O + k] = NAN;
        x += visited[i] ? O : 0;
    }
    return all;
}

/* Compute the table, or take the one that rank 0 finds stored. */
static int fill(const struct table *t, float *x, size_t O, struct err *e)
{
    const struct comm *c = t->run->context->comm;
    int stored = c->rank == 0 && is_stored(t, x, O);
    int r = c->broadcast(c, &stored, sizeof stored, 0, e);

    if (r)
        return r;
    if (stored)
        return c->broadcast(c, x, t->n * O * sizeof *x, 0, e);
    if (c->rank == 0)
        log_info("%s: %s of %zu rows", t->run->stage->name, t->q->name, t->n);
    r = compute(t, x, e);
    if (!r && c->rank == 0)
        r = store(t, x, O, e);
    return comm_agree(c, r, e);
}

int table_compute(struct stage_run *run, const struct table_request *q, float **out,
                  struct err *e)
{
    struct table *t = mem_alloc(sizeof *t);
    size_t O = (size_t)run->K;
    float *x = NULL;
    int r;

    *out = NULL;
    if (comm_agree(run->context->comm, t ? 0 : err_set(e, ERR_NOMEM, "out of memory"), e)) {
        mem_free(t);
        return err_wrap(e, "table of %s", q->name);
    }
    t->q = q;
    t->run = run;
    r = find_paths(t, e);
    if (!r)
        r = encode(t, e);
    if (!r)
        r = hash_inputs(t, e);
    x = r ? NULL : mem_array(t->n * O, sizeof *x);
    if (!r && !x)
        r = err_set(e, ERR_NOMEM, "out of memory");
    r = comm_agree(run->context->comm, r, e);
    if (!r)
        r = fill(t, x, O, e);
    if (!r) {
        *out = spread(t, x, O);
        if (!*out)
            r = err_set(e, ERR_NOMEM, "out of memory");
    }
    sequences_fini(&t->s);
    mem_free(x);
    mem_free(t);
    return r ? err_wrap(e, "table of %s", q->name) : 0;
}
