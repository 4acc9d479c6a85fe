/* Choices of the back end on disk; see choices.h. */
#include "worker/train/choices.h"

#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "worker/train/cache.h"

enum { KEY_BYTES = 192, CACHE_BYTES_MAX = 1 << 20, CHECKPOINT_BYTES_MAX = 1 << 27 };

static unsigned long stored; /* changes that the cache has */

/* As text, mem_alloc'ed; NULL: out of memory. */
static char *as_text(const struct backend *b, int all)
{
    size_t n = b->choices->get(NULL, 0, all) + 1;
    char *text = mem_alloc(n);

    if (text)
        b->choices->get(text, n, all);
    return text;
}

void choices_load(const struct backend *b)
{
    char path[FILE_PATH_MAX], key[KEY_BYTES];
    const char *of = NULL, *text = NULL;
    json_t *root = NULL;
    struct err e;
    int r;

    if (!b->choices)
        return;
    b->choices->key(key, sizeof key);
    if (cache_path(path, "products", key, 0, &e) || !file_exists(path))
        return;
    r = json_read(path, CACHE_BYTES_MAX, &root, &e);
    if (!r)
        r = json_get_string(root, "of", 1, &of, &e);
    if (!r)
        r = json_get_string(root, "products", 1, &text, &e);
    if (!r && strcmp(of, key))
        r = err_set(&e, ERR_CORRUPT, "it is of another device, %.80s", of);
    if (!r && b->choices->put(text))
        r = err_set(&e, ERR_CORRUPT, "%s", b->error());
    if (r)
        log_warn("%s is ignored, products are timed again: %s", path, e.msg);
    else
        stored = b->choices->changes();
    json_decref(root);
}

void choices_store(const struct backend *b)
{
    char path[FILE_PATH_MAX], key[KEY_BYTES], *text;
    json_t *root = NULL;
    struct err e;

    if (!b->choices || b->choices->changes() == stored)
        return;
    stored = b->choices->changes();
    b->choices->key(key, sizeof key);
    text = as_text(b, 0);
    if (text)
        root = json_pack("{s:s, s:s}", "of", key, "products", text);
    if (root && !cache_path(path, "products", key, 1, &e) && !json_write(path, root, &e))
        chmod(path, 0600);
    json_decref(root);
    mem_free(text);
}

/* Texts of all ranks, each `most` bytes, on rank 0 and the others. */
static int gather(const struct comm *c, const char *text, char **all, size_t *most,
                  struct err *e)
{
    unsigned long n = strlen(text) + 1;
    unsigned long *bytes = mem_array((size_t)c->world, sizeof *bytes);
    char *mine = NULL;
    int r = comm_agree(
        c, bytes ? 0 : err_set(e, ERR_NOMEM, "choices of the ranks: out of memory"), e);

    if (!r)
        r = c->all_gather(c, &n, sizeof n, bytes, e);
    *most = 1;
    for (int k = 0; !r && k < c->world; k++)
        *most = bytes[k] > *most ? bytes[k] : *most;
    if (!r) {
        mine = mem_alloc(*most);
        *all = mem_array((size_t)c->world, *most);
        if (mine && *all)
            memcpy(mine, text, n);
        else
            r = err_set(e, ERR_NOMEM, "choices of the ranks: out of memory");
        r = comm_agree(c, r, e);
    }
    if (!r)
        r = c->all_gather(c, mine, *most, *all, e);
    mem_free(mine);
    mem_free(bytes);
    return r;
}

static int write_file(const struct backend *b, const struct comm *c, const char *all,
                      size_t most, const char *path, struct err *e)
{
    json_t *root = json_object(), *ranks = json_array();
    char key[KEY_BYTES];
    int bad = 0, r;

    b->choices->key(key, sizeof key);
    for (int k = 0; k < c->world; k++)
        bad |= json_array_append_new(ranks, json_string(all + (size_t)k * most));
    bad |= json_object_set_new(root, "of", json_string(key));
    bad |= json_object_set_new(root, "ranks", ranks);
    r = bad ? err_set(e, ERR_NOMEM, "%s: out of memory", path) : json_write(path, root, e);
    json_decref(root);
    return r;
}

int choices_save(const struct backend *b, const struct comm *c, const char *path,
                 struct err *e)
{
    char *text, *all = NULL;
    size_t most = 0;
    int r;

    if (!b->choices)
        return 0;
    choices_store(b);
    text = as_text(b, 1);
    r = comm_agree(
        c, text ? 0 : err_set(e, ERR_NOMEM, "choices of the ranks: out of memory"), e);
    if (!r)
        r = gather(c, text, &all, &most, e);
    if (!r && c->rank == 0)
        r = write_file(b, c, all, most, path, e);
    mem_free(all);
    mem_free(text);
    return r;
}

int choices_resume(const struct backend *b, const struct comm *c, const char *path,
                   struct err *e)
{
    const char *of = NULL, *text;
    char key[KEY_BYTES];
    json_t *root = NULL, *ranks;
    int r;

    if (!b->choices || !file_exists(path))
        return 0;
    r = json_read(path, CHECKPOINT_BYTES_MAX, &root, e);
    if (r)
        return r;
    b->choices->key(key, sizeof key);
    r = json_get_string(root, "of", 1, &of, e);
    ranks = json_object_get(root, "ranks");
    text = json_string_value(json_array_get(
        ranks, json_array_size(ranks) ? (size_t)c->rank % json_array_size(ranks) : 0));
    if (!r && !text)
        r = err_set(e, ERR_CORRUPT, "%s: \"ranks\" holds no choices", path);
    if (!r && strcmp(of, key))
        log_warn("the checkpoint was made on %s, this is %s: results may differ in the "
                 "last bits",
                 of, key);
    else if (!r && b->choices->put(text))
        log_warn("%s: %s: results may differ in the last bits", path, b->error());
    json_decref(root);
    return r;
}
