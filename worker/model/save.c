/* Saving a model as a Hugging Face folder.
 *
 * model.safetensors keeps the order, names, types and passengers of the file it came from;
 * when nothing was added, renamed or replaced its header is the source's, byte for byte.
 * Values that were narrower in the file are rounded to nearest; one that no longer fits its
 * type is ERR_FAILED rather than an infinity.
 *
 * Heads: under the architecture's own names when pooling is the architecture's own (then
 * the Auto classes of transformers load the folder); otherwise "hone_classifier", so that
 * they report missing weights instead of answering wrongly. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "worker/model/internal.h"

enum { HONE_FORMAT = 1, CHUNK = 1 << 16 };

static int no_memory(const char *dir, struct err *e)
{
    return err_set(e, ERR_NOMEM, "%s: out of memory", dir);
}

/* ---- model.safetensors --------------------------------------------------------------- */

static int by_begin(const void *a, const void *b)
{
    const struct model_tensor *x = *(const struct model_tensor *const *)a;
    const struct model_tensor *y = *(const struct model_tensor *const *)b;

    return x->begin < y->begin ? -1 : x->begin > y->begin;
}

static size_t count(const struct model_tensor *t)
{
    size_t n = 1;

    for (int i = 0; i < t->rank; i++)
        n *= (size_t)t->shape[i];
    return n;
}

/* Where an F64 tensor was not changed, its full value stays. */
static void keep_doubles(double *out, const double *was, const float *now, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float rounded = (float)was[i];

        if (!memcmp(&rounded, &now[i], sizeof rounded))
            out[i] = was[i];
    }
}

struct buffers {
    float in[CHUNK];
    double out[CHUNK];
};

/* Elements [at, at + k), which lie in buf->in. */
static int put_chunk(const struct model_tensor *t, struct safetensors_out *o,
                     struct buffers *buf, size_t at, size_t k, struct err *e)
{
    float bad;

    if (dtype_from_f32(t->dtype, buf->in, buf->out, k, &bad)) {
        err_set(e, ERR_FAILED, "tensor %s: %g does not fit %s", t->saved, (double)bad,
                dtype_name(t->dtype));
        return err_mend(e, "lower the learning rate, or start from an F32 checkpoint");
    }
    if (t->dtype == DTYPE_F64 && t->bytes)
        keep_doubles(buf->out, (const double *)t->bytes + at, buf->in, k);
    return safetensors_put(o, buf->out, k * dtype_size(t->dtype), e);
}

static int put_param(const struct model *m, const struct model_tensor *t,
                     struct safetensors_out *o, struct buffers *buf, struct err *e)
{
    const struct backend *b = m->options.backend;
    const float *data = m->param[t->param].data + t->first;
    float *whole = NULL;
    size_t n = count(t);
    int rc = 0;

    if (t->transposed && !(whole = fix_to_file(m, t, data, e)))
        return e->code;
    for (size_t at = 0, k; at < n && !rc; at += k) {
        k = n - at < CHUNK ? n - at : CHUNK;
        if (whole)
            memcpy(buf->in, whole + at, k * sizeof *data);
        else if (b->copy_out(buf->in, data + at, k * sizeof *data))
            rc = err_set(e, ERR_DEVICE, "tensor %s: %s", t->saved, b->error());
        if (!rc)
            rc = put_chunk(t, o, buf, at, k, e);
    }
    mem_free(whole);
    return rc;
}

static int put_tensors(const struct model *m, const struct model_tensor *const *order,
                       struct safetensors_out *o, struct err *e)
{
    struct buffers *buf = mem_alloc(sizeof *buf);
    int rc = buf ? 0 : no_memory(o->path, e);

    for (size_t i = 0; i < m->n_tensors && !rc; i++) {
        const struct model_tensor *t = order[i];

        rc = t->param >= 0
                 ? put_param(m, t, o, buf, e)
                 : safetensors_put(o, t->bytes, count(t) * dtype_size(t->dtype), e);
    }
    mem_free(buf);
    return rc;
}

static int make_header(const struct model *m, struct str *header, struct err *e)
{
    struct safetensors_item *item;
    int rc;

    if (m->unchanged) {
        str_add_bytes(header, m->header, m->header_len);
        return str_failed(header) ? no_memory(m->dir, e) : 0;
    }
    item = mem_array(m->n_tensors, sizeof *item);
    if (!item)
        return no_memory(m->dir, e);
    for (size_t i = 0; i < m->n_tensors; i++) {
        const struct model_tensor *t = &m->tensor[i];

        item[i] =
            (struct safetensors_item){.name = t->saved, .dtype = t->dtype, .rank = t->rank};
        memcpy(item[i].shape, t->shape, sizeof t->shape);
    }
    /* transformers refuses a file that does not say which framework wrote it. */
    rc = safetensors_header(header, m->metadata ? m->metadata : "{\"format\":\"pt\"}", item,
                            m->n_tensors, e);
    mem_free(item);
    return rc;
}

static int save_tensors(const struct model *m, const char *dir, struct err *e)
{
    const struct model_tensor **order = mem_array(m->n_tensors + 1, sizeof *order);
    struct safetensors_out out = {0};
    struct str header = {0};
    char path[FILE_PATH_MAX];
    uint64_t total = 0;
    int rc = order ? 0 : no_memory(dir, e);

    for (size_t i = 0; i < m->n_tensors && order; i++) {
        order[i] = &m->tensor[i];
        total += count(order[i]) * dtype_size(order[i]->dtype);
    }
    if (!rc && m->unchanged)
        qsort(order, m->n_tensors, sizeof *order, by_begin);
    if (!rc)
        rc = file_join(path, sizeof path, dir, "model.safetensors", e);
    if (!rc)
        rc = make_header(m, &header, e);
    if (!rc)
        rc = safetensors_create(&out, path, str_get(&header), header.len, total, e);
    if (!rc)
        rc = put_tensors(m, order, &out, e);
    if (!rc)
        rc = safetensors_finish(&out, e);
    safetensors_abort(&out);
    str_fini(&header);
    mem_free(order);
    return rc;
}

/* ---- config.json --------------------------------------------------------------------- */

static int is_classifier(const struct model *m)
{
    return m->options.head == HEAD_CLASSIFY || m->options.head == HEAD_REWARD;
}

/* Does the source's config.json already name these labels? */
static int same_labels(const struct model *m)
{
    if (!json_is_object(json_object_get(m->json_config, "id2label")) ||
        config_labels(m->json_config) != m->outputs)
        return 0;
    for (long i = 0; m->options.labels && i < m->outputs; i++) {
        char key[24];
        const char *name;

        snprintf(key, sizeof key, "%ld", i);
        name = json_string_value(
            json_object_get(json_object_get(m->json_config, "id2label"), key));
        if (!name || strcmp(name, m->options.labels[i]))
            return 0;
    }
    return 1;
}

static int set_labels(const struct model *m, json_t *config)
{
    json_t *names = json_object(), *ids = json_object();
    int failed = 0;

    for (long i = 0; i < m->outputs; i++) {
        char key[24], label[40];
        const char *name = m->options.labels ? m->options.labels[i] : label;

        snprintf(key, sizeof key, "%ld", i);
        snprintf(label, sizeof label, "LABEL_%ld", i);
        failed |= json_object_set_new(names, key, json_string(name));
        failed |= json_object_set_new(ids, name, json_integer(i));
    }
    failed |= json_object_set_new(config, "id2label", names);
    failed |= json_object_set_new(config, "label2id", ids);
    failed |= json_object_set_new(config, "num_labels", json_integer(m->outputs));
    failed |= json_object_set_new(
        config, "problem_type",
        json_string(m->outputs == 1 ? "regression" : "single_label_classification"));
    return failed;
}

static int save_config(const struct model *m, const char *dir, struct err *e)
{
    json_t *config = json_deep_copy(m->json_config);
    int native = m->pooling == POOLING_MODEL, failed = !config, rc;
    char path[FILE_PATH_MAX];

    if (is_classifier(m)) {
        const char *arch = native ? m->family->arch_classify : m->family->arch_base;

        failed |= json_object_set_new(config, "architectures", json_pack("[s]", arch));
        if (!same_labels(m))
            failed |= set_labels(m, config);
    }
    rc = failed ? no_memory(dir, e) : file_join(path, sizeof path, dir, "config.json", e);
    if (!rc)
        rc = json_write(path, config, e);
    json_decref(config);
    return rc;
}

/* ---- hone.json ----------------------------------------------------------------------- */

static json_t *labels_of(const struct model *m)
{
    json_t *list = json_array();

    for (long i = 0; i < m->outputs; i++) {
        const char *name = model_get_label(m, i);
        char label[40];

        snprintf(label, sizeof label, "LABEL_%ld", i);
        json_array_append_new(list, json_string(name ? name : label));
    }
    return list;
}

static int save_hone(const struct model *m, const char *dir, const char *extra,
                     struct err *e)
{
    static const char *const heads[] = {[HEAD_NONE] = "none",
                                        [HEAD_CLASSIFY] = "classify",
                                        [HEAD_REWARD] = "reward",
                                        [HEAD_CAUSAL] = "causal",
                                        [HEAD_MASKED] = "masked"};
    json_t *more = NULL,
           *root = json_pack("{s:i, s:s, s:s, s:b}", "format", HONE_FORMAT, "head",
                             heads[m->options.head], "pooling", pooling_names[m->pooling],
                             "value_head", m->value_w >= 0);
    char path[FILE_PATH_MAX];
    int rc = root ? file_join(path, sizeof path, dir, "hone.json", e) : no_memory(dir, e);

    if (!rc && m->options.head == HEAD_CLASSIFY &&
        json_object_set_new(root, "labels", labels_of(m)))
        rc = no_memory(dir, e);
    if (!rc && extra)
        rc = json_parse("hone.json", extra, strlen(extra), &more, e);
    if (!rc && more && json_object_update(root, more))
        rc = no_memory(dir, e);
    if (!rc)
        rc = json_write(path, root, e);
    json_decref(more);
    json_decref(root);
    return rc;
}

/* ---- the whole ----------------------------------------------------------------------- */

static int save_files(struct model *m, const char *dir, struct err *e)
{
    char path[FILE_PATH_MAX];
    int rc = files_read(m, e);

    for (size_t i = 0; i < m->n_files && !rc; i++) {
        rc = file_join(path, sizeof path, dir, m->file[i].name, e);
        if (!rc)
            rc = file_write_atomic(path, m->file[i].bytes, m->file[i].len, e);
    }
    return rc;
}

int model_save(struct model *m, const char *dir, const char *extra, struct err *e)
{
    int rc = file_make_dirs(dir, e);

    if (!rc)
        rc = save_tensors(m, dir, e);
    if (!rc)
        rc = save_config(m, dir, e);
    if (!rc)
        rc = save_hone(m, dir, extra, e);
    if (!rc)
        rc = save_files(m, dir, e);
    return rc ? err_wrap(e, "save model") : 0;
}
