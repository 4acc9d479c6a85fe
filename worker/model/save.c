/* Saving a model as a Hugging Face folder.
 *
 * model.safetensors keeps the order, names, types and passengers of the file it came from;
 * when nothing was added, renamed or replaced its header is the source's, byte for byte.
 * Values that were narrower in the file, or are asked to be saved narrower, are rounded to
 * nearest; one that no longer fits its type is ERR_FAILED rather than an infinity. What is
 * larger than a shard becomes model-00001-of-0000N.safetensors and their index.
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

/* As it was loaded, unless another type was asked for. */
static enum dtype saved_dtype(const struct model *m, const struct model_tensor *t)
{
    static const enum dtype asked[] = {[MODEL_SAVE_F32] = DTYPE_F32,
                                       [MODEL_SAVE_BF16] = DTYPE_BF16,
                                       [MODEL_SAVE_F16] = DTYPE_F16};
    int save = m->options.save.dtype;

    return save == MODEL_SAVE_AS_LOADED || !dtype_is_float(t->dtype) ? t->dtype
                                                                     : asked[save];
}

static uint64_t saved_bytes(const struct model *m, const struct model_tensor *t)
{
    return count(t) * dtype_size(saved_dtype(m, t));
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
static int put_chunk(const struct model_tensor *t, enum dtype dtype,
                     struct safetensors_out *o, struct buffers *buf, size_t at, size_t k,
                     struct err *e)
{
    float bad;

    if (dtype_from_f32(dtype, buf->in, buf->out, k, &bad)) {
        err_set(e, ERR_FAILED, "tensor %s: %g does not fit %s", t->saved, (double)bad,
                dtype_name(dtype));
        return err_mend(e, "set save.dtype to f32 or bf16, or lower the learning rate");
    }
    if (dtype == DTYPE_F64 && t->bytes)
        keep_doubles(buf->out, (const double *)t->bytes + at, buf->in, k);
    return safetensors_put(o, buf->out, k * dtype_size(dtype), e);
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
            rc = put_chunk(t, saved_dtype(m, t), o, buf, at, k, e);
    }
    mem_free(whole);
    return rc;
}

/* A tensor that only came along. */
static int put_passenger(const struct model *m, const struct model_tensor *t,
                         struct safetensors_out *o, struct buffers *buf, struct err *e)
{
    enum dtype dtype = saved_dtype(m, t);
    size_t n = count(t), size = dtype_size(t->dtype);
    int rc = 0;

    if (dtype == t->dtype)
        return safetensors_put(o, t->bytes, n * size, e);
    for (size_t at = 0, k; at < n && !rc; at += k) {
        k = n - at < CHUNK ? n - at : CHUNK;
        dtype_to_f32(t->dtype, (const char *)t->bytes + at * size, buf->in, k);
        rc = put_chunk(t, dtype, o, buf, at, k, e);
    }
    return rc;
}

static int put_tensors(const struct model *m, const struct model_tensor *const *order,
                       size_t n, struct safetensors_out *o, struct err *e)
{
    struct buffers *buf = mem_alloc(sizeof *buf);
    int rc = buf ? 0 : no_memory(o->path, e);

    for (size_t i = 0; i < n && !rc; i++) {
        const struct model_tensor *t = order[i];

        rc = t->param >= 0 ? put_param(m, t, o, buf, e) : put_passenger(m, t, o, buf, e);
    }
    mem_free(buf);
    return rc;
}

/* A file of consecutive tensors. */
struct shard {
    size_t first, n;
    uint64_t bytes;
};

static int is_as_it_was(const struct model *m, size_t n)
{
    int same = m->unchanged && n == m->n_tensors;

    for (size_t i = 0; i < m->n_tensors; i++)
        same &= saved_dtype(m, &m->tensor[i]) == m->tensor[i].dtype;
    return same;
}

static int make_header(const struct model *m, const struct model_tensor *const *order,
                       size_t n, struct str *header, struct err *e)
{
    struct safetensors_item *item;
    int rc;

    if (is_as_it_was(m, n)) {
        str_add_bytes(header, m->header, m->header_len);
        return str_failed(header) ? no_memory(m->dir, e) : 0;
    }
    item = mem_array(n, sizeof *item);
    if (!item)
        return no_memory(m->dir, e);
    for (size_t i = 0; i < n; i++) {
        const struct model_tensor *t = order[i];

        item[i] = (struct safetensors_item){
            .name = t->saved, .dtype = saved_dtype(m, t), .rank = t->rank};
        memcpy(item[i].shape, t->shape, sizeof t->shape);
    }
    /* transformers refuses a file that does not say which framework wrote it. */
    rc = safetensors_header(header, m->metadata ? m->metadata : "{\"format\":\"pt\"}", item,
                            n, e);
    mem_free(item);
    return rc;
}

/* Tensors in their order, a new file where the next one would not fit: as transformers
 * does it, so that a file is larger only if it holds a single tensor. */
static size_t cut_shards(const struct model *m, const struct model_tensor *const *order,
                         struct shard *shard)
{
    uint64_t most = m->options.save.shard_bytes ? (uint64_t)m->options.save.shard_bytes
                                                : MODEL_SHARD_BYTES;
    size_t n = 1;

    for (size_t i = 0; i < m->n_tensors; i++) {
        uint64_t bytes = saved_bytes(m, order[i]);
        struct shard *s = &shard[n - 1];

        if (s->n && s->bytes + bytes > most) {
            s = &shard[n++];
            s->first = i;
        }
        s->n++;
        s->bytes += bytes;
    }
    return n;
}

static void name_shard(char out[64], size_t i, size_t n)
{
    if (n == 1)
        snprintf(out, 64, "model.safetensors");
    else
        snprintf(out, 64, "model-%05zu-of-%05zu.safetensors", i + 1, n);
}

static int save_shard(const struct model *m, const char *dir, const char *name,
                      const struct model_tensor *const *order, const struct shard *s,
                      struct err *e)
{
    struct safetensors_out out = {0};
    struct str header = {0};
    char path[FILE_PATH_MAX];
    int rc = file_join(path, sizeof path, dir, name, e);

    if (!rc)
        rc = make_header(m, order + s->first, s->n, &header, e);
    if (!rc)
        rc = safetensors_create(&out, path, str_get(&header), header.len, s->bytes, e);
    if (!rc)
        rc = put_tensors(m, order + s->first, s->n, &out, e);
    if (!rc)
        rc = safetensors_finish(&out, e);
    safetensors_abort(&out);
    str_fini(&header);
    return rc;
}

/* model.safetensors.index.json: which file holds which tensor. */
static int save_index(const char *dir, const struct model_tensor *const *order,
                      const struct shard *shard, size_t n, struct err *e)
{
    char path[FILE_PATH_MAX], name[64];
    json_t *map = json_object(), *root;
    uint64_t total = 0;
    int rc, failed = !map;

    for (size_t i = 0; i < n; i++) {
        name_shard(name, i, n);
        total += shard[i].bytes;
        for (size_t k = 0; k < shard[i].n; k++)
            failed |= json_object_set_new(map, order[shard[i].first + k]->saved,
                                          json_string(name));
    }
    root = json_pack("{s:{s:I}, s:O}", "metadata", "total_size", (json_int_t)total,
                     "weight_map", map);
    rc = failed || !root ? no_memory(dir, e)
                         : file_join(path, sizeof path, dir, MODEL_INDEX_NAME, e);
    if (!rc)
        rc = json_write(path, root, e);
    json_decref(root);
    json_decref(map);
    return rc;
}

static int save_tensors(const struct model *m, const char *dir, struct err *e)
{
    const struct model_tensor **order = mem_array(m->n_tensors + 1, sizeof *order);
    struct shard *shard = mem_array(m->n_tensors + 1, sizeof *shard);
    size_t shards = 0;
    int rc = order && shard ? 0 : no_memory(dir, e);

    for (size_t i = 0; i < m->n_tensors && order; i++)
        order[i] = &m->tensor[i];
    if (!rc && m->unchanged)
        qsort(order, m->n_tensors, sizeof *order, by_begin);
    if (!rc)
        shards = cut_shards(m, order, shard);
    for (size_t i = 0; i < shards && !rc; i++) {
        char name[64];

        name_shard(name, i, shards);
        rc = save_shard(m, dir, name, order, &shard[i], e);
    }
    if (!rc && shards > 1)
        rc = save_index(dir, order, shard, shards, e);
    mem_free(order);
    mem_free(shard);
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

/* The type that transformers loads the folder in; its newer versions say "dtype". */
static int set_dtype(json_t *config, int dtype)
{
    static const char *const names[] = {[MODEL_SAVE_F32] = "float32",
                                        [MODEL_SAVE_BF16] = "bfloat16",
                                        [MODEL_SAVE_F16] = "float16"};
    const char *key = json_object_get(config, "dtype") ? "dtype" : "torch_dtype";

    return json_object_set_new(config, key, json_string(names[dtype]));
}

static int save_config(const struct model *m, const char *dir, struct err *e)
{
    json_t *config = json_deep_copy(m->json_config);
    int native = m->pooling == POOLING_MODEL, failed = !config, rc;
    char path[FILE_PATH_MAX];

    if (m->options.save.dtype != MODEL_SAVE_AS_LOADED)
        failed |= set_dtype(config, m->options.save.dtype);

    if (is_classifier(m)) {
        const char *arch = native ? m->family->arch_classify : m->family->arch_base;

        failed |= json_object_set_new(config, "architectures", json_pack("[s]", arch));
        if (!same_labels(m))
            failed |= set_labels(m, config);
    }
    if (m->options.head == HEAD_LOGPROB)
        failed |= json_object_set_new(config, "architectures",
                                      json_pack("[s]", m->family->arch_causal));
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
    static const char *const heads[] = {
        [HEAD_NONE] = "none",     [HEAD_CLASSIFY] = "classify", [HEAD_REWARD] = "reward",
        [HEAD_CAUSAL] = "causal", [HEAD_MASKED] = "masked",     [HEAD_LOGPROB] = "causal"};
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
