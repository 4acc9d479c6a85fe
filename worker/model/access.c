/* What others may ask of a model, and copying weights between two. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "worker/model/internal.h"

const struct model_info *model_get_info(const struct model *m)
{
    return &m->info;
}

const struct backend *model_get_backend(const struct model *m)
{
    return m->options.backend;
}

const char *const model_precision_names[] = {[PRECISION_F32] = "f32",
                                             [PRECISION_BF16] = "bf16",
                                             [PRECISION_F16] = "f16",
                                             [PRECISION_TF32] = "tf32",
                                             NULL};

enum op_precision model_get_precision(const struct model *m)
{
    return m->options.precision;
}

struct param *model_params(struct model *m, size_t *n)
{
    *n = m->n_params;
    return m->param;
}

long model_outputs(const struct model *m)
{
    return m->outputs;
}

enum pooling model_get_pooling(const struct model *m)
{
    return m->pooling;
}

int model_has_value_head(const struct model *m)
{
    return m->value_w >= 0;
}

const char *model_get_label(const struct model *m, long i)
{
    const json_t *names = json_object_get(m->json_config, "id2label");
    char key[24];

    if (i < 0 || i >= m->outputs)
        return NULL;
    if (m->options.labels)
        return m->options.labels[i];
    snprintf(key, sizeof key, "%ld", i);
    return json_string_value(json_object_get(names, key));
}

void model_touch(struct model *m)
{
    for (size_t i = 0; i < m->n_params; i++) {
        m->param[i].pack[0].version++;
        m->param[i].pack[1].version++;
    }
}

/* Heads belong to their task; the pooler goes along where both have one. */
static int is_head(const char *slot)
{
    return str_starts(slot, "head.") || str_starts(slot, "value.") ||
           str_starts(slot, "lm.") || str_starts(slot, "mlm.");
}

static struct param *find(struct model *m, const char *slot)
{
    for (size_t i = 0; i < m->n_params; i++)
        if (!strcmp(m->param[i].name, slot))
            return &m->param[i];
    return NULL;
}

/* Through a host buffer: the two may live on different back ends. */
static int copy_param(struct model *to, struct param *a, const struct model *from,
                      const struct param *b, float *buf, size_t most, struct err *e)
{
    size_t n = (size_t)a->rows * (size_t)a->cols;

    for (size_t at = 0; at < n; at += most) {
        size_t k = n - at < most ? n - at : most;

        if (from->options.backend->copy_out(buf, b->data + at, k * sizeof *buf))
            return err_set(e, ERR_DEVICE, "copy %s: %s", b->name,
                           from->options.backend->error());
        if (to->options.backend->copy_in(a->data + at, buf, k * sizeof *buf))
            return err_set(e, ERR_DEVICE, "copy %s: %s", a->name,
                           to->options.backend->error());
    }
    return 0;
}

int model_copy_encoder(struct model *to, struct model *from, struct err *e)
{
    enum { CHUNK = 1 << 18 };
    float *buf = mem_array(CHUNK, sizeof *buf);
    int rc = buf ? 0 : err_set(e, ERR_NOMEM, "copy the encoder: out of memory");

    for (size_t i = 0; !rc && i < to->n_params; i++) {
        struct param *a = &to->param[i], *b = find(from, a->name);

        if (is_head(a->name) || (!b && str_starts(a->name, "pooler.")))
            continue;
        if (!b)
            rc = err_set(e, ERR_CONFIG, "copy the encoder: %s has no %s", from->dir,
                         a->name);
        else if (a->rows != b->rows || a->cols != b->cols)
            rc = err_set(e, ERR_CONFIG,
                         "copy the encoder: %s is %ld x %ld in %s, but %ld x %ld in %s",
                         a->name, b->rows, b->cols, from->dir, a->rows, a->cols, to->dir);
        else
            rc = copy_param(to, a, from, b, buf, CHUNK, e);
    }
    mem_free(buf);
    model_touch(to);
    return rc;
}
