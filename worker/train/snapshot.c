/* Checkpoints of a stage in training; see snapshot.h. */
#include "worker/train/snapshot.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "worker/ckpt/safetensors.h"
#include "worker/ckpt/state.h"
#include "worker/train/choices.h"

enum { SNAPSHOT_FORMAT = 1, TRAINER_BYTES_MAX = 1 << 20, CHUNK = 1 << 18 };

/* ---- trainer.json -------------------------------------------------------------------- */

/* The members of struct progress and struct interval, by kind. */
#define PROGRESS_LONGS(X)                                                                  \
    X(step)                                                                                \
    X(metrics_bytes)                                                                       \
    X(events_bytes)                                                                        \
    X(evaluated)                                                                           \
    X(skipped)                                                                             \
    X(streak)                                                                              \
    X(streak_step)                                                                         \
    X(best_step)                                                                           \
    X(stop_count)                                                                          \
    X(interval.steps)                                                                      \
    X(interval.skipped)
#define PROGRESS_DOUBLES(X)                                                                \
    X(tokens)                                                                              \
    X(seconds)                                                                             \
    X(elapsed)                                                                             \
    X(best_value)                                                                          \
    X(best_nll)                                                                            \
    X(stop_value)                                                                          \
    X(interval.loss)                                                                       \
    X(interval.grad_norm)                                                                  \
    X(interval.tokens)                                                                     \
    X(interval.seconds)

static json_t *exact(double x)
{
    char text[40];

    snprintf(text, sizeof text, "%a", x);
    return json_string(text);
}

static int read_exact(const json_t *o, const char *key, double *out, struct err *e)
{
    const char *text = NULL;
    char *end;
    int r = json_get_string(o, key, 1, &text, e);

    if (r)
        return r;
    *out = strtod(text, &end);
    if (end == text || *end)
        return err_set(e, ERR_CORRUPT, "\"%s\" is no number: \"%s\"", key, text);
    return 0;
}

/* Metric sums and the stage's own state: {"name": number, ...}, [number, ...]. */
static int add_lists(json_t *root, const struct snapshot *s)
{
    const struct metric_list *sum = &s->progress->interval.sum;
    json_t *sums = json_object(), *state = json_array();
    int bad = 0;

    for (int i = 0; i < sum->n; i++)
        bad |= json_object_set_new(sums, sum->name[i], exact(sum->value[i]));
    for (int i = 0; i < STAGE_STATE_MAX; i++)
        bad |= json_array_append_new(state, exact(s->run->state[i]));
    bad |= json_object_set_new(root, "interval.sum", sums);
    bad |= json_object_set_new(root, "stage", state);
    return bad;
}

static int write_trainer(const struct snapshot *s, const char *path, struct err *e)
{
    const struct progress *p = s->progress;
    json_t *root = json_object();
    int bad = json_object_set_new(root, "format", json_integer(SNAPSHOT_FORMAT)), r;

    bad |= json_object_set_new(root, "job", json_string(s->job_hash));
    bad |= json_object_set_new(root, "data", json_string(s->data_hash));
    bad |= json_object_set_new(
        root, "precision",
        json_string(model_precision_names[model_get_precision(s->model)]));
    bad |= json_object_set_new(
        root, "bucket_mb",
        json_integer((long)(trainer_optim(s->trainer)->options.bucket >> 18)));
    bad |= json_object_set_new(root, "updates",
                               json_integer(trainer_optim(s->trainer)->updates));
    bad |=
        json_object_set_new(root, "loss_scale", exact(trainer_scale(s->trainer)->factor));
    bad |= json_object_set_new(root, "loss_scale_steps",
                               json_integer(trainer_scale(s->trainer)->good));
    bad |= json_object_set_new(root, "finished", json_boolean(p->finished));
    bad |= json_object_set_new(root, "streak_tensor", json_string(p->streak_tensor));
#define X(f) bad |= json_object_set_new(root, #f, json_integer(p->f));
    PROGRESS_LONGS(X)
#undef X
#define X(f) bad |= json_object_set_new(root, #f, exact(p->f));
    PROGRESS_DOUBLES(X)
#undef X
    bad |= add_lists(root, s);
    r = bad ? err_set(e, ERR_NOMEM, "%s: out of memory", path) : json_write(path, root, e);
    json_decref(root);
    return r;
}

static int read_lists(const json_t *root, const struct snapshot *s, struct arena *a,
                      struct err *e)
{
    json_t *sums = json_object_get(root, "interval.sum"), *v;
    json_t *state = json_object_get(root, "stage");
    struct metric_list *sum = &s->progress->interval.sum;
    const char *key;
    int r = 0;

    if (!json_is_object(sums) || json_object_size(sums) > METRICS_MAX)
        return err_set(e, ERR_CORRUPT, "\"interval.sum\" is missing or too long");
    sum->n = 0;
    json_object_foreach(sums, key, v)
    {
        if (!r)
            r = read_exact(sums, key, &sum->value[sum->n], e);
        sum->name[sum->n] = arena_strdup(a, key);
        if (!r && !sum->name[sum->n++])
            r = err_set(e, ERR_NOMEM, "out of memory");
    }
    if (!r && json_array_size(state) != STAGE_STATE_MAX)
        r = err_set(e, ERR_CORRUPT, "\"stage\" must hold %d numbers", STAGE_STATE_MAX);
    for (size_t i = 0; !r && i < STAGE_STATE_MAX; i++) {
        const char *text = json_string_value(json_array_get(state, i));

        if (!text)
            r = err_set(e, ERR_CORRUPT, "\"stage\" must hold numbers as text");
        else
            s->run->state[i] = strtod(text, NULL);
    }
    return r;
}

/* The checkpoint must be of this job and these rows. */
static int check_hashes(const json_t *root, const struct snapshot *s, struct err *e)
{
    const char *job = NULL, *data = NULL;
    long format = 0;
    int r = json_get_long(root, "format", 1, &format, e);

    if (!r && format != SNAPSHOT_FORMAT)
        return err_set(e, ERR_UNSUPPORTED, "format %ld, this is %d", format,
                       SNAPSHOT_FORMAT);
    if (!r)
        r = json_get_string(root, "job", 1, &job, e);
    if (!r)
        r = json_get_string(root, "data", 1, &data, e);
    if (r)
        return r;
    if (strcmp(job, s->job_hash))
        return err_set(e, ERR_CONFIG, "it belongs to another job");
    if (strcmp(data, s->data_hash))
        return err_set(e, ERR_CONFIG, "the training rows have changed since");
    return 0;
}

/* The loss scale, which older checkpoints do not have: then it stays as it is. */
static int read_scale(const json_t *root, struct loss_scale *s, struct err *e)
{
    int r = 0;

    if (!json_object_get(root, "loss_scale"))
        return 0;
    r = read_exact(root, "loss_scale", &s->factor, e);
    if (!r && !(s->factor > 0 && s->factor < 1e30))
        r = err_set(e, ERR_CORRUPT, "\"loss_scale\" is out of bounds");
    return r ? r : json_get_long(root, "loss_scale_steps", 1, &s->good, e);
}

static int read_trainer(const struct snapshot *s, const char *path, struct arena *a,
                        struct err *e)
{
    struct progress *p = s->progress;
    const char *tensor = NULL;
    json_t *root = NULL;
    int r = json_read(path, TRAINER_BYTES_MAX, &root, e);

    if (r)
        return r;
    r = check_hashes(root, s, e);
    if (!r)
        r = json_get_long(root, "updates", 1, &trainer_optim(s->trainer)->updates, e);
    if (!r)
        r = read_scale(root, trainer_scale(s->trainer), e);
    if (!r)
        r = json_get_bool(root, "finished", 1, &p->finished, e);
    if (!r)
        r = json_get_string(root, "streak_tensor", 1, &tensor, e);
    if (!r)
        snprintf(p->streak_tensor, sizeof p->streak_tensor, "%s", tensor);
#define X(f)                                                                               \
    if (!r)                                                                                \
        r = json_get_long(root, #f, 1, &p->f, e);
    PROGRESS_LONGS(X)
#undef X
#define X(f)                                                                               \
    if (!r)                                                                                \
        r = read_exact(root, #f, &p->f, e);
    PROGRESS_DOUBLES(X)
#undef X
    if (!r)
        r = read_lists(root, s, a, e);
    json_decref(root);
    return r ? err_wrap(e, "%s", path) : 0;
}

/* ---- optimizer.safetensors ----------------------------------------------------------- */

struct moments { /* of one tensor */
    int *rows;   /* NULL: all */
    long n, cols;
};

/* Three items a tensor: rows.<name> (only where rows are picked), m.<name>, v.<name>. */
static int list_items(const struct optim *o, struct moments *mom, struct arena *a,
                      struct safetensors_item *item, size_t *n, struct err *e)
{
    *n = 0;
    for (int i = 0; i < o->n; i++) {
        const char *name = o->param[i]->name;
        int r = optim_rows(o, i, &mom[i].rows, &mom[i].n, e);

        if (r)
            return r;
        mom[i].cols = o->param[i]->cols;
        if (mom[i].rows)
            item[(*n)++] = (struct safetensors_item){
                arena_printf(a, "rows.%s", name), DTYPE_I32, 1, {mom[i].n}, NULL};
        for (const char *kind = "mv"; *kind; kind++)
            item[(*n)++] = (struct safetensors_item){arena_printf(a, "%c.%s", *kind, name),
                                                     DTYPE_F32,
                                                     2,
                                                     {mom[i].n, mom[i].cols},
                                                     NULL};
    }
    for (size_t i = 0; i < *n; i++)
        if (!item[i].name)
            return err_set(e, ERR_NOMEM, "optimizer state: out of memory");
    return 0;
}

/* Moment `kind` of a dense parameter, from all ranks, into the file that rank 0 writes. */
static int put_dense(struct safetensors_out *out, const struct optim *o, int i, char kind,
                     int leads, struct err *e)
{
    size_t n = (size_t)o->param[i]->rows * (size_t)o->param[i]->cols;
    float *all = mem_array(n, sizeof *all);
    int r = comm_agree(
        o->comm, all ? 0 : err_set(e, ERR_NOMEM, "%s: out of memory", o->param[i]->name),
        e);

    if (!r)
        r = optim_moment(o, i, kind, all, e);
    if (!r && leads)
        r = safetensors_put(out, all, n * sizeof *all, e);
    mem_free(all);
    return comm_agree(o->comm, r, e);
}

/* Rows of a device matrix, through the host, into the file. */
static int put_rows(struct safetensors_out *out, const struct optim *o,
                    const struct moments *mom, const float *from, float *buf, struct err *e)
{
    long cols = mom->cols, fit = CHUNK / cols > 0 ? CHUNK / cols : 1;

    for (long i = 0; i < mom->n;) {
        long k = mom->rows ? 1 : mom->n - i < fit ? mom->n - i : fit;
        long row = mom->rows ? mom->rows[i] : i;
        size_t bytes = (size_t)k * (size_t)cols * sizeof *buf;
        int r;

        if (o->backend->copy_out(buf, from + row * cols, bytes))
            return err_set(e, ERR_DEVICE, "optimizer state: %s", o->backend->error());
        r = safetensors_put(out, buf, bytes, e);
        if (r)
            return r;
        i += k;
    }
    return 0;
}

/* A buffer for any row of the optimizer's tensors. */
static float *row_buffer(const struct optim *o)
{
    size_t widest = CHUNK;

    for (int i = 0; i < o->n; i++)
        if ((size_t)o->param[i]->cols > widest)
            widest = (size_t)o->param[i]->cols;
    return mem_array(widest, sizeof(float));
}

/* The file of rank 0, up to where the tensors begin. */
static int begin_moments(const struct optim *o, struct moments *mom, const char *path,
                         struct safetensors_out *out, struct err *e)
{
    size_t count = (size_t)o->n + 1, n = 0, total = 0;
    struct safetensors_item *item = mem_array(3 * count, sizeof *item);
    struct str header = {0};
    struct arena a = {0};
    int r = item ? list_items(o, mom, &a, item, &n, e)
                 : err_set(e, ERR_NOMEM, "%s: out of memory", path);

    for (size_t i = 0; !r && i < n; i++)
        total += safetensors_item_bytes(&item[i]);
    if (!r)
        r = safetensors_header(&header, NULL, item, n, e);
    if (!r)
        r = safetensors_create(out, path, header.s, header.len, total, e);
    mem_free(item);
    str_fini(&header);
    arena_fini(&a);
    return r;
}

/* A sparse table is whole on every rank: rank 0 writes its own. */
static int put_sparse(struct safetensors_out *out, const struct optim *o, int i,
                      const struct moments *mom, float *buf, struct err *e)
{
    int from, to, r = safetensors_put(out, mom->rows, (size_t)mom->n * sizeof(int), e);

    optim_pieces(o, i, &from, &to);
    invariant(to == from + 1);
    if (!r)
        r = put_rows(out, o, mom, o->tensor[from].m, buf, e);
    return r ? r : put_rows(out, o, mom, o->tensor[from].v, buf, e);
}

static int write_moments(const struct optim *o, const char *path, int leads, struct err *e)
{
    struct moments *mom = mem_array((size_t)o->n + 1, sizeof *mom);
    float *buf = row_buffer(o);
    struct safetensors_out out = {0};
    int r = mom && buf ? 0 : err_set(e, ERR_NOMEM, "%s: out of memory", path);

    if (!r && leads)
        r = begin_moments(o, mom, path, &out, e);
    r = comm_agree(o->comm, r, e);
    for (int i = 0; !r && i < o->n; i++) {
        if (o->ready[i])
            r = leads ? put_sparse(&out, o, i, &mom[i], buf, e) : 0;
        for (const char *kind = "mv"; !o->ready[i] && !r && *kind; kind++)
            r = put_dense(&out, o, i, *kind, leads, e);
        r = comm_agree(o->comm, r, e);
    }
    if (!r && leads)
        r = safetensors_finish(&out, e);
    safetensors_abort(&out);
    for (int i = 0; mom && i < o->n; i++)
        mem_free(mom[i].rows);
    mem_free(mom);
    mem_free(buf);
    return r;
}

static int find_item(const struct safetensors *f, const char *prefix, const char *name,
                     enum dtype dtype, long rows, long cols,
                     const struct safetensors_tensor **out, struct err *e)
{
    char full[256];

    snprintf(full, sizeof full, "%s.%s", prefix, name);
    *out = safetensors_find(f, full);
    if (!*out || (*out)->dtype != dtype || (rows >= 0 && (*out)->shape[0] != rows) ||
        (cols && ((*out)->rank != 2 || (*out)->shape[1] != cols)))
        return err_set(e, ERR_CORRUPT, "%s: tensor %s is missing or has another shape",
                       f->path, full);
    return 0;
}

/* One moment of a piece; rows: those of a sparse table, else NULL. */
static int read_piece(struct optim *o, int k, const struct safetensors *f, char kind,
                      const int *rows, long n, float *buf, struct err *e)
{
    const struct optim_piece *piece = &o->piece[k];
    const struct param *p = o->param[piece->param];
    float *to = kind == 'm' ? o->tensor[k].m : o->tensor[k].v;
    const struct safetensors_tensor *t;
    size_t cols = (size_t)p->cols, all = rows ? (size_t)n * cols : piece->n;
    char name[2] = {kind, 0};
    int r = find_item(f, name, p->name, DTYPE_F32, n, p->cols, &t, e);

    for (size_t at = 0; !r && at < all;) {
        size_t k_elements = rows ? cols : all - at < CHUNK ? all - at : CHUNK;
        size_t place = rows ? (size_t)rows[at / cols] * cols : at;

        r = safetensors_read_f32(f, t, (rows ? 0 : piece->first) + at, k_elements, buf, e);
        if (!r && o->backend->copy_in(to + place, buf, k_elements * sizeof *buf))
            r = err_set(e, ERR_DEVICE, "%s: %s", p->name, o->backend->error());
        at += k_elements;
    }
    return r;
}

/* Which rows of tensor i the file holds; they become live. */
static int read_rows(struct optim *o, int i, const struct safetensors *f, int **rows,
                     long *n, struct err *e)
{
    struct param *p = o->param[i];
    const struct safetensors_tensor *t;
    int r = find_item(f, "rows", p->name, DTYPE_I32, -1, 0, &t, e);

    if (r)
        return r;
    *n = (long)t->elements;
    *rows = mem_array(t->elements + 1, sizeof **rows);
    if (!*rows)
        return err_set(e, ERR_NOMEM, "%s: out of memory", f->path);
    r = safetensors_read(f, t, 0, t->elements, *rows, e);
    for (long k = 0; !r && k < *n; k++) {
        int row = (*rows)[k];

        if (row < 0 || row >= p->rows)
            return err_set(e, ERR_CORRUPT, "%s: %s has no row %d", f->path, p->name, row);
        p->live[row] = 1;
        o->ready[i][row] = 1;
    }
    return r;
}

static int read_moments(struct optim *o, const char *path, struct err *e)
{
    struct safetensors f;
    float *buf = row_buffer(o);
    int r;

    if (!buf)
        return err_set(e, ERR_NOMEM, "%s: out of memory", path);
    r = safetensors_open(&f, path, e);
    if (r)
        goto done;
    for (int i = 0; !r && i < o->n; i++) {
        int *rows = NULL, from, to;
        long n = o->param[i]->rows;

        if (o->ready[i])
            r = read_rows(o, i, &f, &rows, &n, e);
        optim_pieces(o, i, &from, &to);
        for (int k = from; k < to; k++)
            for (const char *kind = "mv"; !r && *kind; kind++)
                r = read_piece(o, k, &f, *kind, rows, n, buf, e);
        mem_free(rows);
    }
    safetensors_close(&f);
done:
    mem_free(buf);
    return r;
}

/* ---- weights ------------------------------------------------------------------------- */

/* All parameters as f32, through a small buffer. */
static int write_weights(struct model *m, const char *path, struct err *e)
{
    const struct backend *b = model_get_backend(m);
    size_t n, total = 0;
    struct param *p = model_params(m, &n);
    struct safetensors_item *item = mem_array(n + 1, sizeof *item);
    float *buf = mem_array(CHUNK, sizeof *buf);
    struct safetensors_out out = {0};
    struct str header = {0};
    int r = item && buf ? 0 : err_set(e, ERR_NOMEM, "%s: out of memory", path);

    for (size_t i = 0; !r && i < n; i++) {
        item[i] = (struct safetensors_item){
            p[i].name, DTYPE_F32, 2, {p[i].rows, p[i].cols}, NULL};
        total += safetensors_item_bytes(&item[i]);
    }
    if (!r)
        r = safetensors_header(&header, NULL, item, n, e);
    if (!r)
        r = safetensors_create(&out, path, header.s, header.len, total, e);
    for (size_t i = 0; !r && i < n; i++) {
        size_t elements = (size_t)p[i].rows * (size_t)p[i].cols, k;

        for (size_t at = 0; !r && at < elements; at += k) {
            k = elements - at < CHUNK ? elements - at : CHUNK;
            if (b->copy_out(buf, p[i].data + at, k * sizeof *buf))
                r = err_set(e, ERR_DEVICE, "%s: %s", path, b->error());
            else
                r = safetensors_put(&out, buf, k * sizeof *buf, e);
        }
    }
    if (!r)
        r = safetensors_finish(&out, e);
    safetensors_abort(&out);
    mem_free(item);
    mem_free(buf);
    str_fini(&header);
    return r;
}

/* Host values of parameter i: from the exact file, or from the saved model. */
static int fetch_weight(const struct param *to, struct model *saved,
                        const struct safetensors *exact_file, float *buf, struct err *e)
{
    const struct backend *b = model_get_backend(saved);
    size_t n, elements = (size_t)to->rows * (size_t)to->cols;
    struct param *p = model_params(saved, &n);

    if (exact_file) {
        const struct safetensors_tensor *t = safetensors_find(exact_file, to->name);

        if (!t || t->elements != elements)
            return err_set(e, ERR_CORRUPT, "%s: tensor %s is missing or has another shape",
                           exact_file->path, to->name);
        return safetensors_read_f32(exact_file, t, 0, elements, buf, e);
    }
    for (size_t i = 0; i < n; i++)
        if (!strcmp(p[i].name, to->name) && p[i].rows == to->rows && p[i].cols == to->cols)
            return b->copy_out(buf, p[i].data, elements * sizeof *buf)
                       ? err_set(e, ERR_DEVICE, "%s: %s", to->name, b->error())
                       : 0;
    return err_set(e, ERR_CORRUPT, "the checkpoint has no tensor for %s", to->name);
}

static int read_weights(struct model *m, struct model *saved, const char *path,
                        struct err *e)
{
    const struct backend *b = model_get_backend(m);
    int has_exact = file_exists(path), r = 0;
    struct safetensors f;
    size_t n;
    struct param *p = model_params(m, &n);

    if (has_exact)
        r = safetensors_open(&f, path, e);
    if (r)
        return r;
    for (size_t i = 0; !r && i < n; i++) {
        size_t elements = (size_t)p[i].rows * (size_t)p[i].cols;
        float *buf = mem_array(elements, sizeof *buf);

        if (!buf)
            r = err_set(e, ERR_NOMEM, "resume: out of memory");
        else
            r = fetch_weight(&p[i], saved, has_exact ? &f : NULL, buf, e);
        if (!r && b->copy_in(p[i].data, buf, elements * sizeof *buf))
            r = err_set(e, ERR_DEVICE, "%s: %s", p[i].name, b->error());
        mem_free(buf);
    }
    if (has_exact)
        safetensors_close(&f);
    model_touch(m);
    return r;
}

/* ---- the whole ----------------------------------------------------------------------- */

/* The model's part of the folder `tmp`, and the state's folder. */
static int fill_model(const struct snapshot *s, const char *tmp, char state[FILE_PATH_MAX],
                      struct err *e)
{
    char path[FILE_PATH_MAX];
    int exact_model = 0;
    int r = model_save(s->model, tmp, s->extra, e);

    if (!r)
        r = file_join(state, FILE_PATH_MAX, tmp, "state", e);
    if (!r)
        r = file_make_dirs(state, e);
    if (!r)
        r = model_is_stored_exactly(tmp, &exact_model, e);
    if (!r)
        r = file_join(path, sizeof path, state, "weights.safetensors", e);
    return r || exact_model ? r : write_weights(s->model, path, e);
}

/* Fill the folder `tmp` with everything but the manifest. */
static int fill(const struct snapshot *s, const char *tmp, struct err *e)
{
    char state[FILE_PATH_MAX] = "", path[FILE_PATH_MAX];
    int leads = s->comm->rank == 0;
    int r = comm_agree(s->comm, leads ? fill_model(s, tmp, state, e) : 0, e);

    if (!r)
        r = file_join(path, sizeof path, state, "optimizer.safetensors", e);
    if (!r)
        r = write_moments(trainer_optim(s->trainer), path, leads, e);
    if (!r)
        r = file_join(path, sizeof path, state, "products.json", e);
    if (!r)
        r = choices_save(model_get_backend(s->model), s->comm, path, e);
    if (!r && leads)
        r = file_join(path, sizeof path, state, "trainer.json", e);
    return r || !leads ? r : write_trainer(s, path, e);
}

int snapshot_fill(const struct snapshot *s, char tmp[FILE_PATH_MAX], struct err *e)
{
    struct err ignored;
    char name[64];
    int leads = s->comm->rank == 0, r;

    *tmp = 0;
    snprintf(name, sizeof name, "checkpoint-%ld", s->progress->step);
    r = comm_agree(s->comm, leads ? state_begin(s->dir, name, tmp, e) : 0, e);
    if (!r)
        r = fill(s, tmp, e);
    r = comm_agree(s->comm, r, e);
    if (r && leads && *tmp)
        file_remove_tree(tmp, &ignored); /* gives a full disk its space back */
    return r ? err_wrap(e, "save %s", name) : 0;
}

int snapshot_commit(const char *dir, long step, const char *tmp, struct err *e)
{
    struct err ignored;
    char name[64];
    int r;

    snprintf(name, sizeof name, "checkpoint-%ld", step);
    r = state_commit(dir, name, tmp, e);
    if (r)
        file_remove_tree(tmp, &ignored);
    return r ? err_wrap(e, "save %s", name) : 0;
}

int snapshot_load(const struct snapshot *s, long step, struct model *saved, struct arena *a,
                  struct err *e)
{
    char dir[FILE_PATH_MAX], path[FILE_PATH_MAX];
    int r;

    state_path(dir, s->dir, step);
    r = file_join(path, sizeof path, dir, "state/trainer.json", e);
    if (!r)
        r = read_trainer(s, path, a, e);
    if (!r)
        r = file_join(path, sizeof path, dir, "state/optimizer.safetensors", e);
    if (!r)
        r = read_moments(trainer_optim(s->trainer), path, e);
    if (!r)
        r = file_join(path, sizeof path, dir, "state/products.json", e);
    if (!r)
        r = choices_resume(model_get_backend(s->model), s->comm, path, e);
    if (!r)
        r = file_join(path, sizeof path, dir, "state/weights.safetensors", e);
    return r ? r : read_weights(s->model, saved, path, e);
}
