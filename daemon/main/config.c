/* honed's configuration: see config.h. */
#include "daemon/main/config.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/node.h"
#include "base/str.h"

enum { KEYS_MAX = 64, KEY_MAX = 64 };

/* Not for files: what the program does instead of running, and the file itself. */
static int is_key(const struct arg_flag *f)
{
    return f->kind != ARG_KIND_SWITCH && strcmp(f->name, "--config") != 0 &&
           strcmp(f->name, "--owner") != 0;
}

/* "--keep-jobs" is the key "keep_jobs". */
static void key_of(const struct arg_flag *f, char key[KEY_MAX])
{
    size_t n = 0;

    for (const char *p = f->name + 2; *p && n < KEY_MAX - 1; p++)
        key[n++] = *p == '-' ? '_' : *p;
    key[n] = '\0';
}

static int bad(const char *path, const struct node *at, const char *what, struct err *e)
{
    return err_set(
        e, ERR_CONFIG, "%s:%d:%d: %s: %s", path, at->key_line ? at->key_line : at->line,
        at->key_line ? at->key_column : at->column, at->key ? at->key : "", what);
}

static const struct arg_flag *find(const struct arg_spec *spec, const char *path,
                                   const struct node *n, struct err *e)
{
    const char *names[KEYS_MAX + 1], *near;
    char keys[KEYS_MAX][KEY_MAX];
    int count = 0;

    for (const struct arg_flag *f = spec->flags; f->name && count < KEYS_MAX; f++) {
        if (!is_key(f))
            continue;
        key_of(f, keys[count]);
        if (!strcmp(keys[count], n->key))
            return f;
        names[count] = keys[count];
        count++;
    }
    names[count] = NULL;
    bad(path, n, "unknown key", e);
    near = str_nearest(n->key, names);
    if (near)
        err_mend(e, "did you mean %s?", near);
    else
        err_mend(e, "honed --help: the flags are the keys");
    return NULL;
}

/* A folder is relative to the file's. NULL: out of memory, or too long. */
static const char *text_of(const struct arg_flag *f, const char *path, const char *text,
                           struct arena *a)
{
    char folder[FILE_PATH_MAX], joined[FILE_PATH_MAX];
    struct err e;

    if (strcmp(f->what, "DIR") != 0)
        return arena_strdup(a, text);
    file_dirname(folder, sizeof folder, path);
    return file_join(joined, sizeof joined, folder, text, &e) ? NULL
                                                              : arena_strdup(a, joined);
}

static int take_list(const struct arg_flag *f, const char *path, const struct node *n,
                     struct arg_list *list, struct arena *a, struct err *e)
{
    const struct node *item = n->kind == NODE_LIST ? n->child : n;

    if (list->n) /* the command line's */
        return 0;
    for (; item; item = n->kind == NODE_LIST ? item->next : NULL) {
        if (item->kind != NODE_SCALAR || node_is_null(item))
            return bad(path, n, "a list of texts is needed", e);
        if (list->n == ARGS_LIST_MAX)
            return bad(path, n, "too many", e);
        list->item[list->n] = text_of(f, path, item->text, a);
        if (!list->item[list->n++])
            return err_set(e, ERR_NOMEM, "%s: out of memory", path);
    }
    return 0;
}

static int take(const struct arg_flag *f, const char *path, const struct node *n, void *out,
                struct arena *a, struct err *e)
{
    const char **value = (const char **)((char *)out + f->offset);

    if (f->kind == ARG_KIND_LIST)
        return take_list(f, path, n, (struct arg_list *)((char *)out + f->offset), a, e);
    if (n->kind != NODE_SCALAR || node_is_null(n))
        return bad(path, n, "one value is needed", e);
    if (*value)
        return 0;
    *value = text_of(f, path, n->text, a);
    return *value ? 0 : err_set(e, ERR_NOMEM, "%s: out of memory", path);
}

/* 1: there is such a file. */
static int users_file(char *out, size_t n, struct err *e)
{
    const char *base = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    int rc;

    if (base && base[0] == '/')
        rc = file_join(out, n, base, "hone/honed.yaml", e);
    else if (home && home[0] == '/')
        rc = file_join(out, n, home, ".config/hone/honed.yaml", e);
    else
        return 0;
    return rc ? rc : file_exists(out);
}

static int read_map(const char *path, struct arena *a, struct node **out, struct err *e)
{
    int rc = node_read(a, path, out, e);

    if (!rc && (*out)->kind != NODE_MAP && !node_is_null(*out))
        rc = err_set(e, ERR_CONFIG, "%s: keys and values are needed", path);
    return rc;
}

int config_read(const struct arg_spec *spec, const char *path, void *out, struct arena *a,
                struct err *e)
{
    char users[FILE_PATH_MAX];
    struct node *root;
    int rc = path ? 1 : users_file(users, sizeof users, e);

    if (rc <= 0)
        return rc;
    path = path ? path : users;
    rc = read_map(path, a, &root, e);
    for (const struct node *n = rc ? NULL : root->child; !rc && n; n = n->next) {
        const struct arg_flag *f = find(spec, path, n, e);

        rc = f ? take(f, path, n, out, a, e) : ERR_CONFIG;
    }
    return rc;
}

int config_state(char *out, size_t n, struct err *e)
{
    static const struct arg_flag state = {"--state", ARG_KIND_VALUE, 0, "DIR", ""};
    char path[FILE_PATH_MAX];
    struct arena a = {0};
    struct node *root = NULL;
    const struct node *at = NULL;
    const char *text = NULL;
    int rc = users_file(path, sizeof path, e);

    if (rc <= 0)
        return rc;
    rc = read_map(path, &a, &root, e);
    if (!rc && root->kind == NODE_MAP)
        at = node_get(root, "state");
    if (at)
        rc = take(&state, path, at, &text, &a, e);
    if (!rc && text)
        rc = file_join(out, n, "", text, e);
    arena_fini(&a);
    return rc ? rc : text != NULL;
}
