/* config.json and hone.json of a checkpoint folder, without its tensors.
 *
 * Pooling of a checkpoint that does not say: hone.json; else the architecture's own head
 * (MODEL), which transformers would use, unless a BERT has no pooler: then the first token
 * (CLS). Failures name the file and the key. */
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "worker/model/internal.h"

enum { CONFIG_BYTES_MAX = 4 << 20, LAYERS_MAX = 4096 };

int config_read(const char *dir, json_t **json, const struct family **family,
                struct model_config *config, struct err *e)
{
    char path[FILE_PATH_MAX];
    const char *type = NULL;
    int rc = file_join(path, sizeof path, dir, "config.json", e);

    *json = NULL;
    memset(config, 0, sizeof *config);
    if (rc)
        return rc;
    if (!file_is_dir(dir)) {
        err_set(e, ERR_CONFIG,
                file_exists(dir) ? "%s is not a folder" : "%s: no such folder", dir);
        return err_mend(e, "model must name a Hugging Face checkpoint folder");
    }
    rc = json_read(path, CONFIG_BYTES_MAX, json, e);
    if (rc)
        return rc;
    rc = json_get_string(*json, "model_type", 1, &type, e);
    if (!rc) {
        *family = family_find(type, e);
        rc = *family ? (*family)->configure(*json, config, e) : e->code;
    }
    if (!rc && config->dims.L > LAYERS_MAX)
        rc = err_set(e, ERR_CORRUPT, "%ld layers, at most %d are supported", config->dims.L,
                     LAYERS_MAX);
    if (!rc)
        return 0;
    err_wrap(e, "%s", path);
    mem_free(config->rotary_freq);
    config->rotary_freq = NULL;
    json_decref(*json);
    *json = NULL;
    return rc;
}

int config_read_hone(const char *dir, struct hone_json *out, struct err *e)
{
    char path[FILE_PATH_MAX];
    const char *pooling = NULL;
    json_t *json = NULL;
    int rc = file_join(path, sizeof path, dir, "hone.json", e);

    memset(out, 0, sizeof *out);
    if (rc || !file_exists(path))
        return rc;
    rc = json_read(path, CONFIG_BYTES_MAX, &json, e);
    if (rc)
        return rc;
    out->found = 1;
    rc = json_get_string(json, "pooling", 0, &pooling, e);
    for (int i = 0; !rc && pooling && pooling_names[i]; i++)
        if (!strcmp(pooling, pooling_names[i])) {
            out->has_pooling = 1;
            out->pooling = (enum pooling)i;
        }
    if (!rc && pooling && !out->has_pooling)
        rc = err_set(e, ERR_CORRUPT, "\"pooling\" is \"%.40s\", which Hone does not know",
                     pooling);
    json_decref(json);
    return rc ? err_wrap(e, "%s", path) : 0;
}

long config_labels(const json_t *config)
{
    const json_t *names = json_object_get(config, "id2label");
    const json_t *n = json_object_get(config, "num_labels");

    if (json_is_object(names))
        return (long)json_object_size(names);
    return json_is_integer(n) && json_integer_value(n) > 0 ? (long)json_integer_value(n)
                                                           : 0;
}

/* Elements of the rows that every model of the family has. */
static long count_parameters(const struct family *f, const struct model_config *c)
{
    const unsigned skip = ROW_OPTIONAL | ROW_PASSENGER | ROW_HEAD | ROW_TIED;
    double total = 0; /* sizes of a hostile file may overflow a long */

    for (const struct weight_row *r = f->rows; r->slot; r++) {
        struct err ignored;
        long shape[2] = {1, 1};

        if (r->flags & skip || family_shape(r->shape, &c->dims, shape, &ignored) < 0)
            continue;
        total += (double)shape[0] * (double)shape[1] *
                 (double)(strstr(r->name, "%d") ? c->dims.L : 1);
    }
    return total < 1e18 ? (long)total : (long)1e18;
}

void config_info(const struct family *f, const struct model_config *c,
                 struct model_info *out)
{
    *out = (struct model_info){.family = f->model_type,
                               .layers = c->dims.L,
                               .width = c->dims.D,
                               .heads = c->dims.H,
                               .kv_heads = c->dims.K,
                               .ff = c->dims.F,
                               .vocab = c->dims.V,
                               .positions = c->dims.P - c->position_offset,
                               .types = c->dims.X,
                               .parameters = count_parameters(f, c),
                               .causal = c->causal,
                               .pad_id = c->pad_id,
                               .eos_id = c->eos_id};
}

int model_read_info(const char *dir, struct model_info *out, struct err *e)
{
    const struct family *family;
    struct model_config config;
    json_t *json;
    int rc = config_read(dir, &json, &family, &config, e);

    if (rc)
        return rc;
    config_info(family, &config, out);
    mem_free(config.rotary_freq);
    json_decref(json);
    return 0;
}

/* A tensor called `name` or prefix + name. */
static int holds(const struct weights *w, const char *prefix, const char *name)
{
    char full[256];

    snprintf(full, sizeof full, "%s%s", prefix, name);
    for (size_t i = 0; i < w->n; i++)
        if (safetensors_find(&w->file[i], name) || safetensors_find(&w->file[i], full))
            return 1;
    return 0;
}

int model_default_pooling(const char *dir, enum head_kind head, enum pooling *out,
                          struct err *e)
{
    const struct family *family;
    struct model_config config;
    struct weights *w = NULL;
    struct hone_json hone;
    json_t *json;
    int rc = config_read(dir, &json, &family, &config, e);

    *out = POOLING_MODEL;
    if (rc)
        return rc;
    rc = config_read_hone(dir, &hone, e);
    if (!rc && hone.has_pooling) {
        *out = hone.pooling;
    } else if (!rc && config.native == NATIVE_POOLER_TANH && !head_is_causal(head) &&
               head != HEAD_MASKED) {
        rc = weights_open(&w, dir, e);
        if (!rc && !holds(w, family->prefix, "pooler.dense.weight"))
            *out = POOLING_CLS;
        weights_close(w);
    }
    mem_free(config.rotary_freq);
    json_decref(json);
    return rc;
}
