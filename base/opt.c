#include "base/opt.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { KEYS_MAX = 256 };

/* Everything one map's reading needs. */
struct reader {
    const char *folder;
    struct arena *a;
    struct problems *p;
};

static void *field(const struct opt *o, void *config)
{
    return (char *)config + o->offset;
}

static const void *const_field(const struct opt *o, const void *config)
{
    return (const char *)config + o->offset;
}

void opt_defaults(const struct opt *table, void *config)
{
    for (const struct opt *o = table; o->key; o++) {
        void *at = field(o, config);

        switch (o->type) {
        case OPT_TYPE_BOOL:
        case OPT_TYPE_ENUM:
            *(int *)at = (int)o->init;
            break;
        case OPT_TYPE_INT:
            *(long *)at = (long)o->init;
            break;
        case OPT_TYPE_FLOAT:
            *(double *)at = o->init;
            break;
        case OPT_TYPE_STRING:
        case OPT_TYPE_PATH:
            *(const char **)at = o->text;
            break;
        case OPT_TYPE_STRINGS:
        case OPT_TYPE_PATHS:
        case OPT_TYPE_FLOATS:
            memset(at, 0, sizeof(struct opt_list));
            break;
        case OPT_TYPE_NODE:
            *(const struct node **)at = NULL;
            break;
        case OPT_TYPE_END:
            break;
        }
    }
}

static void no_memory(struct reader *r)
{
    problems_add(r->p, NULL, NULL, "out of memory");
}

static void wrong_type(struct reader *r, const struct opt *o, const struct node *n,
                       const char *want)
{
    if (n->kind == NODE_SCALAR)
        problems_add(r->p, n, NULL, "\"%s\" must be %s, found %s\"%.100s\"", o->key, want,
                     n->quoted ? "the text " : "", n->text);
    else
        problems_add(r->p, n, NULL, "\"%s\" must be %s, found a %s", o->key, want,
                     n->kind == NODE_LIST ? "list" : "map");
}

static void word_list(struct str *out, const char *const *words)
{
    for (int i = 0; words[i]; i++)
        str_addf(out, "%s%s", i ? ", " : "", words[i]);
}

/* An allowed word in the place of a number: 1 and *x. */
static int number_word(const struct opt *o, const struct node *n, double *x)
{
    if (!o->words || n->kind != NODE_SCALAR)
        return 0;
    for (int i = 0; o->words[i]; i++)
        if (!strcmp(n->text, o->words[i])) {
            *x = o->word_values[i];
            return 1;
        }
    return 0;
}

static void wrong_number(struct reader *r, const struct opt *o, const struct node *n,
                         const char *want)
{
    struct str s = {0};

    str_add(&s, want);
    if (o->words) {
        str_add(&s, " or one of ");
        word_list(&s, o->words);
    }
    wrong_type(r, o, n, str_get(&s));
    str_fini(&s);
}

static int in_bounds(struct reader *r, const struct opt *o, const struct node *n, double x)
{
    if (x >= o->min && x <= o->max)
        return 1;
    if (x < o->min && (isinf(o->max) || o->max >= 1e15))
        problems_add(r->p, n, NULL, "\"%s\" is %s, must be at least %g", o->key, n->text,
                     o->min);
    else
        problems_add(r->p, n, NULL, "\"%s\" is %s, must be within %g and %.10g", o->key,
                     n->text, o->min, o->max);
    return 0;
}

static void read_bool(struct reader *r, const struct opt *o, const struct node *n, int *out)
{
    if (n->kind == NODE_SCALAR && !n->quoted) {
        if (!strcasecmp(n->text, "true")) {
            *out = 1;
            return;
        }
        if (!strcasecmp(n->text, "false")) {
            *out = 0;
            return;
        }
    }
    wrong_type(r, o, n, "true or false");
}

static void read_int(struct reader *r, const struct opt *o, const struct node *n, long *out)
{
    double word;
    long x;

    if (number_word(o, n, &word)) {
        *out = (long)word;
        return;
    }
    if (n->kind != NODE_SCALAR || n->quoted || str_to_long(n->text, &x)) {
        wrong_number(r, o, n, "a whole number");
        return;
    }
    if (in_bounds(r, o, n, (double)x))
        *out = x;
}

static void read_float(struct reader *r, const struct opt *o, const struct node *n,
                       double *out)
{
    double x;

    if (number_word(o, n, &x)) {
        *out = x;
        return;
    }
    if (n->kind != NODE_SCALAR || n->quoted || str_to_double(n->text, &x)) {
        wrong_number(r, o, n, "a number");
        return;
    }
    if (in_bounds(r, o, n, x))
        *out = x;
}

static void read_enum(struct reader *r, const struct opt *o, const struct node *n, int *out)
{
    struct str want = {0}, mend = {0};
    const char *near;

    for (int i = 0; n->kind == NODE_SCALAR && o->names[i]; i++)
        if (!strcmp(n->text, o->names[i])) {
            *out = i;
            return;
        }
    near = n->kind == NODE_SCALAR ? str_nearest(n->text, o->names) : NULL;
    str_add(&want, "one of ");
    word_list(&want, o->names);
    if (near)
        str_addf(&mend, "did you mean \"%s\"?", near);
    if (n->kind == NODE_SCALAR)
        problems_add(r->p, n, str_get(&mend), "\"%s\" must be %s, found \"%.100s\"", o->key,
                     str_get(&want), n->text);
    else
        wrong_type(r, o, n, str_get(&want));
    str_fini(&want);
    str_fini(&mend);
}

/* A copy in the arena; paths are joined to the folder. NULL: a problem was added. */
static const char *text_of(struct reader *r, const struct opt *o, const struct node *n,
                           int path)
{
    const char *s;

    if (n->kind != NODE_SCALAR || node_is_null(n)) {
        wrong_type(r, o, n, path ? "a path" : "text");
        return NULL;
    }
    if (path && !*n->text) {
        problems_add(r->p, n, NULL, "\"%s\" is an empty path", o->key);
        return NULL;
    }
    if (path && n->text[0] != '/' && *r->folder)
        s = arena_printf(r->a, "%s/%s", r->folder, n->text);
    else
        s = arena_strdup(r->a, n->text);
    if (!s)
        no_memory(r);
    return s;
}

static void read_list(struct reader *r, const struct opt *o, const struct node *n,
                      struct opt_list *out)
{
    const struct node *first = n->kind == NODE_LIST ? n->child : n;
    size_t count = n->kind == NODE_LIST ? n->n : 1, k = 0;
    struct opt_list l = {0};

    if (n->kind == NODE_MAP) {
        wrong_type(r, o, n, "a list");
        return;
    }
    if (o->type == OPT_TYPE_FLOATS)
        l.number = arena_array(r->a, count + 1, sizeof *l.number);
    else
        l.text = arena_array(r->a, count + 1, sizeof *l.text);
    if (!l.number && !l.text) {
        no_memory(r);
        return;
    }
    for (const struct node *c = first; k < count; c = c->next, k++) {
        if (o->type != OPT_TYPE_FLOATS)
            l.text[k] = text_of(r, o, c, o->type == OPT_TYPE_PATHS);
        else if (c->kind != NODE_SCALAR || c->quoted ||
                 str_to_double(c->text, &l.number[k]))
            wrong_type(r, o, c, "a list of numbers");
        if (l.text && !l.text[k])
            l.text[k] = ""; /* a problem was added; nobody meets a NULL */
    }
    l.n = count;
    *out = l;
}

static void read_value(struct reader *r, const struct opt *o, const struct node *n,
                       void *config)
{
    const char *s;
    void *at = field(o, config);

    if (node_is_null(n))
        return;
    switch (o->type) {
    case OPT_TYPE_BOOL:
        read_bool(r, o, n, at);
        break;
    case OPT_TYPE_INT:
        read_int(r, o, n, at);
        break;
    case OPT_TYPE_FLOAT:
        read_float(r, o, n, at);
        break;
    case OPT_TYPE_ENUM:
        read_enum(r, o, n, at);
        break;
    case OPT_TYPE_STRING:
    case OPT_TYPE_PATH:
        s = text_of(r, o, n, o->type == OPT_TYPE_PATH);
        if (s)
            *(const char **)at = s;
        break;
    case OPT_TYPE_STRINGS:
    case OPT_TYPE_PATHS:
    case OPT_TYPE_FLOATS:
        read_list(r, o, n, at);
        break;
    case OPT_TYPE_NODE:
        *(const struct node **)at = n;
        break;
    case OPT_TYPE_END:
        break;
    }
}

static void unknown_key(struct reader *r, const struct opt_set *sets, size_t n_sets,
                        const char *const *ignore, const struct node *n)
{
    const char *names[KEYS_MAX + 1], *near;
    struct node at = *n;
    struct str mend = {0};
    int k = 0;

    for (size_t i = 0; i < n_sets; i++)
        for (const struct opt *o = sets[i].table; o->key && k < KEYS_MAX; o++)
            names[k++] = o->key;
    for (; ignore && *ignore && k < KEYS_MAX; ignore++)
        names[k++] = *ignore;
    names[k] = NULL;
    near = str_nearest(n->key, names);
    if (near) {
        str_addf(&mend, "did you mean \"%s\"?", near);
    } else {
        str_add(&mend, "known keys are ");
        word_list(&mend, names);
    }
    at.line = n->key_line;
    at.column = n->key_column;
    problems_add(r->p, &at, str_get(&mend), "unknown key \"%s\"", n->key);
    str_fini(&mend);
}

static void apply(const struct opt_set *sets, size_t n_sets, const struct node *map,
                  const char *const *ignore, struct reader *r)
{
    if (!map || node_is_null(map))
        return;
    if (map->kind != NODE_MAP) {
        problems_add(r->p, map, NULL, "%s%s%s must be a map of keys, found a %s",
                     map->key ? "\"" : "", map->key ? map->key : "this",
                     map->key ? "\"" : "",
                     map->kind == NODE_LIST ? "list" : "single value");
        return;
    }
    for (const struct node *c = map->child; c; c = c->next) {
        int known = 0;

        for (size_t i = 0; i < n_sets && !known; i++)
            for (const struct opt *o = sets[i].table; o->key && !known; o++)
                if (!strcmp(o->key, c->key)) {
                    read_value(r, o, c, sets[i].config);
                    known = 1;
                }
        for (int i = 0; ignore && ignore[i] && !known; i++)
            known = !strcmp(ignore[i], c->key);
        if (!known)
            unknown_key(r, sets, n_sets, ignore, c);
    }
}

void opt_apply(const struct opt *table, void *config, const struct node *map,
               const char *folder, const char *const *ignore, struct arena *a,
               struct problems *p)
{
    struct opt_set set = {table, config};
    struct reader r = {folder, a, p};

    apply(&set, 1, map, ignore, &r);
}

void opt_apply_all(const struct opt_set *sets, size_t n, const struct node *map,
                   const char *folder, struct arena *a, struct problems *p)
{
    struct reader r = {folder, a, p};

    apply(sets, n, map, NULL, &r);
}

int opt_given(const struct node *map, const char *key)
{
    const struct node *n = node_get(map, key);

    return n && !node_is_null(n);
}

/* The shortest of 15 to 17 digits that reads back as the same double. */
static void write_number(double x, struct str *out)
{
    char buf[40];
    double y;

    for (int digits = 15; digits <= 17; digits++) {
        snprintf(buf, sizeof buf, "%.*g", digits, x);
        if (!str_to_double(buf, &y) && y == x)
            break;
    }
    str_add(out, buf);
}

static const char *word_for(const struct opt *o, double x)
{
    for (int i = 0; o->words && o->words[i]; i++)
        if (o->word_values[i] == x)
            return o->words[i];
    return NULL;
}

static void write_text(const char *s, int json, struct str *out)
{
    if (!s)
        str_add(out, "null");
    else if (json)
        str_add_json(out, s, strlen(s));
    else
        node_write_string(s, out);
}

static void write_value(const struct opt *o, const void *at, int json, struct str *out)
{
    const struct opt_list *l = at;
    double x;

    switch (o->type) {
    case OPT_TYPE_BOOL:
        str_add(out, *(const int *)at ? "true" : "false");
        break;
    case OPT_TYPE_INT:
    case OPT_TYPE_FLOAT:
        x = o->type == OPT_TYPE_INT ? (double)*(const long *)at : *(const double *)at;
        if (word_for(o, x))
            write_text(word_for(o, x), json, out);
        else if (o->type == OPT_TYPE_INT)
            str_addf(out, "%ld", *(const long *)at);
        else
            write_number(x, out);
        break;
    case OPT_TYPE_ENUM:
        write_text(*(const int *)at < 0 ? NULL : o->names[*(const int *)at], json, out);
        break;
    case OPT_TYPE_STRING:
    case OPT_TYPE_PATH:
        write_text(*(const char *const *)at, json, out);
        break;
    case OPT_TYPE_STRINGS:
    case OPT_TYPE_PATHS:
    case OPT_TYPE_FLOATS:
        str_add_char(out, '[');
        for (size_t i = 0; i < l->n; i++) {
            if (i)
                str_add(out, ", ");
            if (o->type == OPT_TYPE_FLOATS)
                write_number(l->number[i], out);
            else
                write_text(l->text[i], json, out);
        }
        str_add_char(out, ']');
        break;
    case OPT_TYPE_NODE:
        if (!*(const struct node *const *)at)
            str_add(out, "null");
        else if (json)
            node_write_json(*(const struct node *const *)at, out);
        else
            node_write_flow(*(const struct node *const *)at, out);
        break;
    case OPT_TYPE_END:
        break;
    }
}

void opt_write_yaml(const struct opt *table, const void *config, int indent,
                    struct str *out)
{
    for (const struct opt *o = table; o->key; o++) {
        str_addf(out, "%*s%s: ", indent, "", o->key);
        write_value(o, const_field(o, config), 0, out);
        str_add_char(out, '\n');
    }
}

static void write_default(const struct opt *o, struct str *out)
{
    union {
        int i;
        long l;
        double d;
        const char *s;
        const struct node *n;
        struct opt_list list;
    } value;
    struct opt one[2] = {*o, {0}};

    memset(&value, 0, sizeof value);
    one[0].offset = 0;
    opt_defaults(one, &value);
    write_value(one, &value, 1, out);
}

void opt_describe_json(const struct opt *table, struct str *out)
{
    static const char *const types[] = {
        [OPT_TYPE_BOOL] = "bool",     [OPT_TYPE_INT] = "int",
        [OPT_TYPE_FLOAT] = "float",   [OPT_TYPE_ENUM] = "enum",
        [OPT_TYPE_STRING] = "string", [OPT_TYPE_PATH] = "path",
        [OPT_TYPE_STRINGS] = "texts", [OPT_TYPE_PATHS] = "paths",
        [OPT_TYPE_FLOATS] = "floats", [OPT_TYPE_NODE] = "any",
        [OPT_TYPE_END] = ""};

    str_add_char(out, '[');
    for (const struct opt *o = table; o->key; o++) {
        const char *const *values = o->type == OPT_TYPE_ENUM ? o->names : o->words;

        str_addf(out, "%s{\"key\": \"%s\", \"type\": \"%s\", \"default\": ",
                 o == table ? "" : ", ", o->key, types[o->type]);
        write_default(o, out);
        if (o->type == OPT_TYPE_INT || o->type == OPT_TYPE_FLOAT) {
            str_add(out, ", \"min\": ");
            if (isinf(o->min))
                str_add(out, "null");
            else
                write_number(o->min, out);
            str_add(out, ", \"max\": ");
            if (isinf(o->max))
                str_add(out, "null");
            else
                write_number(o->max, out);
        }
        if (values) {
            str_add(out, ", \"values\": [");
            for (int i = 0; values[i]; i++) {
                str_add(out, i ? ", " : "");
                str_add_json(out, values[i], strlen(values[i]));
            }
            str_add_char(out, ']');
        }
        str_add(out, ", \"help\": ");
        str_add_json(out, o->help ? o->help : "", o->help ? strlen(o->help) : 0);
        str_add_char(out, '}');
    }
    str_add_char(out, ']');
}
