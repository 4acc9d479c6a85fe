/* The tensor files of a checkpoint folder. Pickles are refused: to read one is to run the
 * program in it. Fails with ERR_CONFIG where there is nothing to read, ERR_UNSUPPORTED for
 * other formats, and as safetensors_open() does. */
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "worker/model/internal.h"

enum { INDEX_BYTES_MAX = 32 << 20, SHARDS_MAX = 4096 };

static int join(char out[FILE_PATH_MAX], const char *dir, const char *name, struct err *e)
{
    return file_join(out, FILE_PATH_MAX, dir, name, e);
}

/* Say what lies there instead of safetensors. */
static int nothing_to_read(const char *dir, struct err *e)
{
    static const char *const others[] = {"pytorch_model.bin",
                                         "pytorch_model.bin.index.json", "tf_model.h5",
                                         "flax_model.msgpack", NULL};
    char path[FILE_PATH_MAX];

    for (int i = 0; others[i]; i++) {
        if (join(path, dir, others[i], e))
            return e->code;
        if (!file_exists(path))
            continue;
        err_set(e, ERR_UNSUPPORTED,
                "%s: only %s is there, which can run code when it is read; Hone reads "
                "safetensors",
                dir, others[i]);
        return err_mend(e,
                        "convert it once where you trust it: python -c \"import sys, "
                        "transformers as t; t.AutoModel.from_pretrained(sys.argv[1])"
                        ".save_pretrained(sys.argv[2])\" %s NEW_DIR",
                        dir);
    }
    err_set(e, ERR_CONFIG, "%s: there is no model.safetensors", dir);
    return err_mend(e, "model must name a Hugging Face checkpoint folder");
}

static int open_shard(struct weights *w, const char *dir, const char *name, struct err *e)
{
    char path[FILE_PATH_MAX];
    int rc = join(path, dir, name, e);

    if (rc)
        return rc;
    rc = safetensors_open(&w->file[w->n], path, e);
    if (!rc)
        w->n++;
    return rc;
}

/* The shard called `name`, opened now if it was not; NULL with *e filled. */
static const struct safetensors *shard(struct weights *w, const char *dir, const char *name,
                                       struct err *e)
{
    for (size_t i = 0; i < w->n; i++)
        if (!strcmp(file_basename(w->file[i].path), name))
            return &w->file[i];
    if (!*name || strchr(name, '/') || name[0] == '.') {
        err_set(e, ERR_CORRUPT, "\"%.80s\" is no name of a file in the folder", name);
        return NULL;
    }
    if (w->n == SHARDS_MAX) {
        err_set(e, ERR_CORRUPT, "more than %d files", SHARDS_MAX);
        return NULL;
    }
    return open_shard(w, dir, name, e) ? NULL : &w->file[w->n - 1];
}

static int open_index(struct weights *w, const char *dir, const char *path, struct err *e)
{
    json_t *root = NULL, *map, *v;
    const char *name;
    int rc = json_read(path, INDEX_BYTES_MAX, &root, e);

    if (rc)
        return rc;
    map = json_object_get(root, "weight_map");
    if (!json_is_object(map) || json_object_size(map) == 0)
        rc = err_set(e, ERR_CORRUPT, "%s: weight_map must be an object with tensors", path);
    json_object_foreach(map, name, v)
    {
        const struct safetensors *s;

        if (rc)
            break;
        if (!json_is_string(v)) {
            rc = err_set(e, ERR_CORRUPT, "%s: weight_map: %.80s must name a file", path,
                         name);
            break;
        }
        s = shard(w, dir, json_string_value(v), e);
        if (!s)
            rc = err_wrap(e, "%s: weight_map: %.80s", path, name);
        else if (!safetensors_find(s, name))
            rc = err_set(e, ERR_CORRUPT, "%s: tensor %.80s is not in %s", path, name,
                         s->path);
    }
    json_decref(root);
    return rc;
}

int weights_open(struct weights **out, const char *dir, struct err *e)
{
    char path[FILE_PATH_MAX];
    struct weights *w = mem_alloc(sizeof *w);
    int rc;

    *out = NULL;
    if (w)
        w->file = mem_array(SHARDS_MAX, sizeof *w->file);
    if (!w || !w->file) {
        mem_free(w);
        return err_set(e, ERR_NOMEM, "%s: out of memory", dir);
    }
    rc = join(path, dir, "model.safetensors", e);
    if (!rc && file_exists(path)) {
        rc = open_shard(w, dir, "model.safetensors", e);
    } else if (!rc) {
        rc = join(path, dir, MODEL_INDEX_NAME, e);
        if (!rc)
            rc = file_exists(path) ? open_index(w, dir, path, e) : nothing_to_read(dir, e);
    }
    if (rc) {
        weights_close(w);
        return rc;
    }
    *out = w;
    return 0;
}

void weights_close(struct weights *w)
{
    if (!w)
        return;
    for (size_t i = 0; i < w->n; i++)
        safetensors_close(&w->file[i]);
    mem_free(w->file);
    mem_free(w);
}

int model_is_stored_exactly(const char *dir, int *yes, struct err *e)
{
    struct weights *w;
    int rc = weights_open(&w, dir, e);

    if (rc)
        return rc;
    *yes = 1;
    for (size_t i = 0; i < w->n; i++)
        for (size_t k = 0; k < w->file[i].n; k++) {
            enum dtype d = w->file[i].tensor[k].dtype;

            if (dtype_is_float(d) && d != DTYPE_F32)
                *yes = 0;
        }
    weights_close(w);
    return 0;
}
