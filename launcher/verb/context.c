/* hone context: the daemons that have names (launcher/config.h). Tokens stay in their own
 * files; here only the files are named. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/args.h"
#include "base/str.h"
#include "launcher/config.h"
#include "launcher/remote.h"
#include "launcher/verb.h"
#include "proto/address.h"

struct options {
    struct arg_list words;
    const char *file[4];
    int json, use;
};

static const char *const file_keys[] = {"authority", "token_file", "certificate", "key"};

enum { FILES = sizeof file_keys / sizeof *file_keys };

static const struct arg_flag flags[] = {
    ARG_VALUE("--authority", "FILE", "add: certificate that signed the daemon's (ca.crt)",
              struct options, file[0]),
    ARG_VALUE("--token-file", "FILE", "add: file with the token, mode 0600", struct options,
              file[1]),
    ARG_VALUE("--certificate", "FILE", "add: our own certificate, instead of a token",
              struct options, file[2]),
    ARG_VALUE("--key", "FILE", "add: its key", struct options, file[3]),
    ARG_SWITCH("--use", "add: it is the default from now on", struct options, use),
    ARG_SWITCH("--json", "list: one JSON document", struct options, json),
    ARG_END};

static const struct arg_spec spec = {
    "hone context",
    "list [--json] | use DAEMON | remove DAEMON |\n"
    "       add NAME ADDRESS [--authority FILE] [--token-file FILE]\n"
    "       [--certificate FILE] [--key FILE] [--use]",
    "Daemons with names, for --to, in ~/.config/hone/config.yaml.\n\n"
    "  list           all of them; * is the default of --to\n"
    "  use DAEMON     makes one the default; `here` is honed on this machine\n"
    "  remove DAEMON  takes one out\n"
    "  add NAME ADDRESS   puts one in: unix:PATH or HOST:PORT\n\n"
    "Comments in the file are lost when it is written.",
    flags,
    1,
    3,
    offsetof(struct options, words)};

static const char here[] = "here";

static const char *text_of(const struct node *entry, const char *key)
{
    const struct node *n = node_get(entry, key);

    return n && n->kind == NODE_SCALAR ? n->text : NULL;
}

static void add_member(struct str *out, const char *key, const char *value)
{
    str_addf(out, ", \"%s\": ", key);
    if (value)
        str_add_json(out, value, strlen(value));
    else
        str_add(out, "null");
}

static void list_json(const struct config *c, struct str *out)
{
    str_add(out, "{\"file\": ");
    str_add_json(out, c->path, strlen(c->path));
    add_member(out, "default", c->chosen);
    str_add(out, ", \"daemons\": [");
    for (const struct node *n = config_first(c); n; n = n->next) {
        str_add(out, n == config_first(c) ? "{\"name\": " : ", {\"name\": ");
        str_add_json(out, n->key, strlen(n->key));
        add_member(out, "address", text_of(n, "address"));
        for (size_t i = 0; i < FILES; i++)
            add_member(out, file_keys[i], text_of(n, file_keys[i]));
        str_add(out, "}");
    }
    str_add(out, "]}\n");
}

static void list_row(struct str *out, int chosen, const char *name, const char *address,
                     const char *how)
{
    char a[64], b[128];

    str_addf(out, "%c %-16s  %-32s  %s\n", chosen ? '*' : ' ',
             remote_clean(a, sizeof a, name), remote_clean(b, sizeof b, address), how);
}

static void list_table(const struct config *c, struct str *out)
{
    list_row(out, 0, "NAME", "ADDRESS", "WITH");
    list_row(out, !c->chosen, here, "honed on this machine", "-");
    for (const struct node *n = config_first(c); n; n = n->next)
        list_row(out, c->chosen && !strcmp(c->chosen, n->key), n->key,
                 text_of(n, "address") ? text_of(n, "address") : "-",
                 text_of(n, "token_file")    ? "token"
                 : text_of(n, "certificate") ? "certificate"
                                             : "-");
    if (c->chosen && !config_find(c, c->chosen))
        list_row(out, 1, "-", c->chosen, "-");
}

static int list(const struct options *o, struct config *c, struct arena *a, struct err *e)
{
    struct str out = {0};
    int rc;

    (void)a;
    if (o->json)
        list_json(c, &out);
    else
        list_table(c, &out);
    rc = str_failed(&out) ? err_set(e, ERR_NOMEM, "out of memory") : 0;
    if (!rc)
        fputs(str_get(&out), stdout);
    str_fini(&out);
    return rc;
}

/* Take the child out of its map. */
static void unlink_node(struct node *map, const char *key)
{
    for (struct node **p = map ? &map->child : NULL; p && *p; p = &(*p)->next)
        if (!strcmp((*p)->key, key)) {
            *p = (*p)->next;
            map->n--;
            return;
        }
}

static int unknown(const struct config *c, const char *name, struct err *e)
{
    enum { NAMES_MAX = 64 };
    const char *names[NAMES_MAX + 2], *near;
    int n = 0;

    for (const struct node *d = config_first(c); d && n < NAMES_MAX; d = d->next)
        names[n++] = d->key;
    names[n++] = here;
    names[n] = NULL;
    near = str_nearest(name, names);
    err_set(e, ERR_USAGE, "no daemon is called \"%.100s\" in %s", name, c->path);
    return near ? err_mend(e, "did you mean %s?", near)
                : err_mend(e, "hone context list, or hone context add NAME ADDRESS");
}

static int choose(struct config *c, struct arena *a, const char *name, struct err *e)
{
    struct str s = {0};
    int rc;

    if (!strcmp(name, here)) {
        unlink_node(c->root, "default");
        return 0;
    }
    str_add(&s, "default=");
    node_write_string(name, &s);
    rc = str_failed(&s) ? err_set(e, ERR_NOMEM, "out of memory")
                        : node_set(a, c->root, s.s, e);
    str_fini(&s);
    return rc;
}

static int use(const struct options *o, struct config *c, struct arena *a, struct err *e)
{
    const char *name = o->words.item[1];
    int rc;

    if (strcmp(name, here) != 0 && !config_find(c, name))
        return unknown(c, name, e);
    rc = choose(c, a, name, e);
    return rc ? rc : config_write(c, e);
}

static int drop(const struct options *o, struct config *c, struct arena *a, struct err *e)
{
    const char *name = o->words.item[1];

    (void)a;
    if (!config_find(c, name))
        return unknown(c, name, e);
    unlink_node(node_get(c->root, "daemons"), name);
    if (c->chosen && !strcmp(c->chosen, name)) {
        unlink_node(c->root, "default");
        fprintf(stderr, "%s was the default: it is honed on this machine now\n", name);
    }
    return config_write(c, e);
}

static int check_name(const struct config *c, const char *name, struct err *e)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "0123456789-_";

    if (!*name || strspn(name, allowed) != strlen(name) || strlen(name) > 60 ||
        *name == '-' || !strcmp(name, here)) {
        err_set(e, ERR_USAGE, "\"%.100s\" cannot be the name of a daemon", name);
        return err_mend(e, "letters, digits, - and _; `here` is taken");
    }
    if (!config_find(c, name))
        return 0;
    err_set(e, ERR_USAGE, "%s has a daemon \"%s\" already", c->path, name);
    return err_mend(e, "hone context remove %s, then add it again", name);
}

/* {address: ..., token_file: ...} with absolute paths of files that are there. */
static int write_entry(const struct options *o, struct str *out, struct err *e)
{
    char cwd[FILE_PATH_MAX], path[FILE_PATH_MAX];
    int rc = 0;

    if (!getcwd(cwd, sizeof cwd))
        return err_errno(e, ERR_FAILED, errno, "current folder");
    str_add(out, "{address: ");
    str_add_json(out, o->words.item[2], strlen(o->words.item[2]));
    for (size_t i = 0; !rc && i < FILES; i++) {
        if (!o->file[i])
            continue;
        rc = file_join(path, sizeof path, cwd, o->file[i], e);
        if (!rc && !file_exists(path))
            rc = err_set(e, ERR_USAGE, "%s is not there", path);
        str_addf(out, ", %s: ", file_keys[i]);
        str_add_json(out, path, strlen(path));
    }
    str_add(out, "}");
    return rc;
}

static int add(const struct options *o, struct config *c, struct arena *a, struct err *e)
{
    struct client_target target;
    struct str s = {0};
    struct address address;
    int rc = check_name(c, o->words.item[1], e);

    if (!rc)
        rc = address_parse(o->words.item[2], &address, e);
    if (!rc && !o->file[2] != !o->file[3])
        rc = err_set(e, ERR_USAGE, "--certificate and --key belong together");
    if (!rc) {
        str_addf(&s, "daemons.%s=", o->words.item[1]);
        rc = write_entry(o, &s, e);
    }
    if (!rc)
        rc = str_failed(&s) ? err_set(e, ERR_NOMEM, "out of memory")
                            : node_set(a, c->root, s.s, e);
    str_fini(&s);
    if (!rc) /* as it will be used */
        rc = remote_use(c, config_find(c, o->words.item[1]), a, &target, e);
    if (!rc && o->use)
        rc = choose(c, a, o->words.item[1], e);
    return rc ? rc : config_write(c, e);
}

static int run_context(const struct options *o, struct err *e)
{
    static const struct {
        const char *name;
        int words;
        int (*run)(const struct options *o, struct config *c, struct arena *a,
                   struct err *e);
    } verbs[] = {{"list", 1, list}, {"use", 2, use}, {"remove", 2, drop}, {"add", 3, add}};
    struct arena a = {0};
    struct config c;
    int rc = ERR_USAGE;
    size_t i = 0, n = sizeof verbs / sizeof *verbs;

    while (i < n &&
           (strcmp(o->words.item[0], verbs[i].name) != 0 || o->words.n != verbs[i].words))
        i++;
    if (i == n) {
        err_set(e, ERR_USAGE, "hone context %.50s: that is not how it goes",
                o->words.item[0]);
        return err_mend(e, "hone context --help");
    }
    rc = config_read(&c, &a, e);
    if (!rc)
        rc = verbs[i].run(o, &c, &a, e);
    arena_fini(&a);
    return rc;
}

static int run(int argc, char **argv)
{
    struct options o = {0};
    struct err e;
    int rc = args_parse(&spec, argc, argv, &o, &e);

    if (rc == ARGS_HELP)
        return 0;
    if (!rc)
        rc = run_context(&o, &e);
    if (rc)
        err_print(&e, "hone");
    return err_exit_status(rc);
}

const struct verb verb_context = {"context", "daemons with names, and the default one",
                                  run};
