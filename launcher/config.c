/* The user's file of daemons: see config.h. */
#include "launcher/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"

int config_user_path(const char *name, const char *rest, const char *tail, char *out,
                     size_t n)
{
    const char *base = getenv(name), *home = getenv("HOME");
    struct err e;

    if (base && base[0] == '/')
        return file_join(out, n, base, tail, &e) != 0;
    if (!home || home[0] != '/')
        return 1;
    return snprintf(out, n, "%s/%s/%s", home, rest, tail) >= (int)n;
}

static int wrong(const struct config *c, const struct node *at, const char *what,
                 struct err *e)
{
    return err_set(e, ERR_CONFIG, "%s:%d:%d: %s", c->path, at->line, at->column, what);
}

static int check_daemons(const struct config *c, const struct node *daemons, struct err *e)
{
    if (daemons->kind != NODE_MAP && !node_is_null(daemons))
        return wrong(c, daemons, "\"daemons\" is a map of names", e);
    for (const struct node *n = daemons->child; n; n = n->next)
        if (n->kind != NODE_MAP) {
            wrong(c, n, "a daemon is a map", e);
            return err_mend(e, "%.60s: {address: \"HOST:PORT\"}", n->key);
        }
    return 0;
}

static int check_default(struct config *c, const struct node *at, struct err *e)
{
    if (at->kind != NODE_SCALAR)
        return wrong(c, at, "\"default\" is a name, or an address", e);
    c->chosen = node_is_null(at) ? NULL : at->text;
    return 0;
}

static int check(struct config *c, struct err *e)
{
    static const char *const keys[] = {"default", "daemons", NULL};
    int rc = 0;

    if (c->root->kind != NODE_MAP)
        return wrong(c, c->root, "this is no map with \"daemons\"", e);
    for (const struct node *n = c->root->child; !rc && n; n = n->next) {
        if (!strcmp(n->key, "daemons")) {
            rc = check_daemons(c, n, e);
        } else if (strcmp(n->key, "default") != 0) {
            const char *near = str_nearest(n->key, keys);

            err_set(e, ERR_CONFIG, "%s:%d:%d: unknown key \"%.60s\"", c->path, n->key_line,
                    n->key_column, n->key);
            rc = err_mend(e, near ? "did you mean %s?" : "default, or daemons", near);
        }
    }
    for (const struct node *n = c->root->child; !rc && n; n = n->next)
        if (!strcmp(n->key, "default"))
            rc = check_default(c, n, e);
    return rc;
}

int config_read(struct config *c, struct arena *a, struct err *e)
{
    int rc;

    memset(c, 0, sizeof *c);
    if (config_user_path("XDG_CONFIG_HOME", ".config", "hone/config.yaml", c->path,
                         sizeof c->path))
        c->path[0] = '\0';
    if (!*c->path || !file_exists(c->path)) {
        c->root = arena_alloc(a, sizeof *c->root);
        if (!c->root)
            return err_set(e, ERR_NOMEM, "out of memory");
        c->root->kind = NODE_MAP;
        return 0;
    }
    rc = node_read(a, c->path, &c->root, e);
    return rc ? rc : check(c, e);
}

struct node *config_first(const struct config *c)
{
    const struct node *daemons = node_get(c->root, "daemons");

    return daemons ? daemons->child : NULL;
}

struct node *config_find(const struct config *c, const char *name)
{
    struct node *n = config_first(c);

    while (n && strcmp(n->key, name) != 0)
        n = n->next;
    return n;
}

int config_write(const struct config *c, struct err *e)
{
    char folder[FILE_PATH_MAX];
    struct str out = {0};
    int rc;

    if (!*c->path)
        return err_set(e, ERR_USAGE, "no place for config.yaml: HOME is not set");
    file_dirname(folder, sizeof folder, c->path);
    rc = file_make_dirs(folder, e);
    node_write_yaml(c->root, &out);
    if (!rc && str_failed(&out))
        rc = err_set(e, ERR_NOMEM, "out of memory");
    if (!rc)
        rc = file_write_atomic(c->path, str_get(&out), out.len, e);
    str_fini(&out);
    return rc;
}
