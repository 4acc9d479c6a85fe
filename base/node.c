#include "base/node.h"

#include <stdio.h>
#include <string.h>
#include <yaml.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"

enum { BYTES_MAX = 1 << 20, DEPTH_MAX = 64, KEYS_MAX = 512, KEY_BYTES_MAX = 128 };

/* State of one parse: the container that is being filled. */
struct build {
    struct arena *a;
    const char *file;
    struct node *root, *open, *last[DEPTH_MAX + 1];
    int depth;
    const char *key; /* read, its value to come */
    int key_line, key_column;
    struct err *e;
};

static int out_of_memory(struct build *b)
{
    return err_set(b->e, ERR_NOMEM, "%s: out of memory", b->file);
}

static int fail_at(struct build *b, int line, int column, const char *what)
{
    return err_set(b->e, ERR_CONFIG, "%s:%d:%d: %s", b->file, line, column, what);
}

static int check_key(struct build *b, const char *key, size_t len, int line, int column)
{
    if (len > KEY_BYTES_MAX)
        return fail_at(b, line, column, "a key is longer than 128 bytes");
    if (b->open->n >= KEYS_MAX)
        return fail_at(b, line, column, "more than 512 keys in one map");
    if (node_get(b->open, key)) {
        err_set(b->e, ERR_CONFIG, "%s:%d:%d: key \"%s\" is given twice", b->file, line,
                column, key);
        return err_mend(b->e, "keep one of them");
    }
    return 0;
}

/* A node as the next child of the open container (or as the root). */
static struct node *attach(struct build *b, enum node_kind kind, int line, int column)
{
    struct node *n = arena_alloc(b->a, sizeof *n);

    if (!n)
        return NULL;
    n->kind = kind;
    n->line = line;
    n->column = column;
    n->parent = b->open;
    if (!b->open) {
        b->root = n;
        return n;
    }
    if (b->open->kind == NODE_MAP) {
        n->key = b->key;
        n->key_line = b->key_line;
        n->key_column = b->key_column;
        b->key = NULL;
    }
    if (b->last[b->depth])
        b->last[b->depth]->next = n;
    else
        b->open->child = n;
    b->last[b->depth] = n;
    b->open->n++;
    return n;
}

static int scalar(struct build *b, const char *text, size_t len, int quoted, int line,
                  int column)
{
    struct node *n;
    char *copy;

    if (memchr(text, '\0', len))
        return fail_at(b, line, column, "a NUL character is not allowed");
    copy = arena_strndup(b->a, text, len);
    if (!copy)
        return out_of_memory(b);
    if (b->open && b->open->kind == NODE_MAP && !b->key) {
        b->key = copy;
        b->key_line = line;
        b->key_column = column;
        return check_key(b, copy, len, line, column);
    }
    n = attach(b, NODE_SCALAR, line, column);
    if (!n)
        return out_of_memory(b);
    n->text = copy;
    n->quoted = quoted;
    return 0;
}

static int push(struct build *b, enum node_kind kind, int line, int column)
{
    struct node *n;

    if (b->open && b->open->kind == NODE_MAP && !b->key)
        return fail_at(b, line, column, "a key must be a plain word");
    if (b->depth == DEPTH_MAX)
        return fail_at(b, line, column, "nested deeper than 64");
    n = attach(b, kind, line, column);
    if (!n)
        return out_of_memory(b);
    b->open = n;
    b->last[++b->depth] = NULL;
    return 0;
}

static void pop(struct build *b)
{
    b->open = b->open->parent;
    b->depth--;
}

/* One event; *end at the end of the stream. */
static int event(struct build *b, const yaml_event_t *ev, int *documents, int *end)
{
    int line = (int)ev->start_mark.line + 1, column = (int)ev->start_mark.column + 1;
    const void *anchor = NULL, *tag = NULL;

    switch (ev->type) {
    case YAML_SCALAR_EVENT:
        anchor = ev->data.scalar.anchor;
        tag = ev->data.scalar.tag;
        break;
    case YAML_SEQUENCE_START_EVENT:
        anchor = ev->data.sequence_start.anchor;
        tag = ev->data.sequence_start.tag;
        break;
    case YAML_MAPPING_START_EVENT:
        anchor = ev->data.mapping_start.anchor;
        tag = ev->data.mapping_start.tag;
        break;
    default:
        break;
    }
    if (anchor || ev->type == YAML_ALIAS_EVENT)
        return fail_at(b, line, column, "anchors (&) and aliases (*) are not allowed");
    if (tag)
        return fail_at(b, line, column, "tags (!) are not allowed");
    switch (ev->type) {
    case YAML_SCALAR_EVENT:
        return scalar(b, (const char *)ev->data.scalar.value, ev->data.scalar.length,
                      ev->data.scalar.style != YAML_PLAIN_SCALAR_STYLE, line, column);
    case YAML_SEQUENCE_START_EVENT:
        return push(b, NODE_LIST, line, column);
    case YAML_MAPPING_START_EVENT:
        return push(b, NODE_MAP, line, column);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        pop(b);
        return 0;
    case YAML_DOCUMENT_START_EVENT:
        if (++*documents > 1)
            return fail_at(b, line, column, "more than one YAML document");
        return 0;
    case YAML_STREAM_END_EVENT:
        *end = 1;
        return 0;
    default:
        return 0;
    }
}

static int yaml_failed(struct build *b, const yaml_parser_t *parser)
{
    const char *what = parser->problem ? parser->problem : "cannot be read as YAML";
    int line = (int)parser->problem_mark.line + 1;
    int column = (int)parser->problem_mark.column + 1;

    if (parser->error == YAML_MEMORY_ERROR)
        return out_of_memory(b);
    if (parser->error == YAML_READER_ERROR) { /* has an offset, no mark */
        line = (int)parser->mark.line + 1;
        column = (int)parser->mark.column + 1;
    }
    err_set(b->e, ERR_CONFIG, "%s:%d:%d: %s%s%s", b->file, line, column,
            parser->context ? parser->context : "", parser->context ? ": " : "", what);
    if (strstr(what, "cannot start any token"))
        return err_mend(b->e, "quote the value; indent with blanks, not with tabs");
    return ERR_CONFIG;
}

static int parse_yaml(struct build *b, const char *text, size_t len)
{
    yaml_parser_t parser;
    int rc = 0, end = 0, documents = 0;

    if (!yaml_parser_initialize(&parser))
        return out_of_memory(b);
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, len);
    while (!rc && !end) {
        yaml_event_t ev;

        if (!yaml_parser_parse(&parser, &ev)) {
            rc = yaml_failed(b, &parser);
            break;
        }
        rc = event(b, &ev, &documents, &end);
        yaml_event_delete(&ev);
    }
    yaml_parser_delete(&parser);
    if (!rc && !b->root)
        rc = err_set(b->e, ERR_CONFIG, "%s: the file is empty", b->file);
    return rc;
}

/* A number's text that reads back as the same double. */
static int real_text(char *buf, size_t n, double x)
{
    for (int digits = 15; digits <= 17; digits++) {
        double y;

        snprintf(buf, n, "%.*g", digits, x);
        if (!str_to_double(buf, &y) && y == x)
            break;
    }
    return (int)strlen(buf);
}

static int from_json(struct build *b, const json_t *v)
{
    const char *key;
    char buf[40];
    json_t *child;
    size_t i;
    int rc;

    switch (json_typeof(v)) {
    case JSON_OBJECT:
        rc = push(b, NODE_MAP, 0, 0);
        if (rc)
            return rc;
        json_object_foreach((json_t *)v, key, child)
        {
            rc = scalar(b, key, strlen(key), 1, 0, 0);
            if (!rc)
                rc = from_json(b, child);
            if (rc)
                return rc;
        }
        pop(b);
        return 0;
    case JSON_ARRAY:
        rc = push(b, NODE_LIST, 0, 0);
        if (rc)
            return rc;
        json_array_foreach(v, i, child)
        {
            rc = from_json(b, child);
            if (rc)
                return rc;
        }
        pop(b);
        return 0;
    case JSON_STRING:
        return scalar(b, json_string_value(v), json_string_length(v), 1, 0, 0);
    case JSON_INTEGER:
        snprintf(buf, sizeof buf, "%lld", (long long)json_integer_value(v));
        return scalar(b, buf, strlen(buf), 0, 0, 0);
    case JSON_REAL:
        return scalar(b, buf, (size_t)real_text(buf, sizeof buf, json_real_value(v)), 0, 0,
                      0);
    case JSON_TRUE:
        return scalar(b, "true", 4, 0, 0, 0);
    case JSON_FALSE:
        return scalar(b, "false", 5, 0, 0, 0);
    default:
        return scalar(b, "null", 4, 0, 0, 0);
    }
}

/* jansson keeps order but no places: walk the text, known to be valid, beside the tree. */
struct place {
    const char *p, *end;
    int line, column;
};

static void advance(struct place *at)
{
    if (*at->p == '\n') {
        at->line++;
        at->column = 0;
    }
    if (((unsigned char)*at->p & 0xc0) != 0x80)
        at->column++;
    at->p++;
}

static void skip(struct place *at, const char *set)
{
    while (at->p < at->end && *at->p && strchr(set, *at->p))
        advance(at);
}

static void skip_scalar(struct place *at)
{
    if (at->p < at->end && *at->p == '"') {
        advance(at);
        while (at->p < at->end && *at->p != '"') {
            if (*at->p == '\\')
                advance(at);
            if (at->p < at->end)
                advance(at);
        }
        if (at->p < at->end)
            advance(at);
        return;
    }
    while (at->p < at->end && *at->p && !strchr(" \t\r\n,:]}", *at->p))
        advance(at);
}

static void locate(struct node *n, struct place *at)
{
    skip(at, " \t\r\n,:");
    n->line = at->line;
    n->column = at->column;
    if (n->kind == NODE_SCALAR) {
        skip_scalar(at);
        return;
    }
    if (at->p < at->end)
        advance(at); /* the opening bracket */
    for (struct node *c = n->child; c; c = c->next) {
        skip(at, " \t\r\n,:");
        if (c->key) {
            c->key_line = at->line;
            c->key_column = at->column;
            skip_scalar(at);
        }
        locate(c, at);
    }
    skip(at, " \t\r\n,:");
    if (at->p < at->end)
        advance(at);
}

static int parse_json(struct build *b, const char *text, size_t len)
{
    struct place at = {text, text + len, 1, 1};
    json_t *v = NULL;
    int rc = json_parse(b->file, text, len, &v, b->e);

    if (rc == ERR_CORRUPT)
        rc = b->e->code = ERR_CONFIG;
    if (!rc)
        rc = from_json(b, v);
    json_decref(v);
    if (!rc)
        locate(b->root, &at);
    return rc;
}

static int line_of(const char *text, size_t offset)
{
    int line = 1;

    for (size_t i = 0; i < offset; i++)
        line += text[i] == '\n';
    return line;
}

int node_parse(struct arena *a, const char *file, const char *text, size_t len,
               struct node **out, struct err *e)
{
    struct build b = {.a = a, .file = file, .e = e};
    size_t valid;
    int rc;

    *out = NULL;
    if (len > BYTES_MAX)
        return err_set(e, ERR_CONFIG, "%s: %zu bytes, at most 1 MiB is allowed", file, len);
    valid = str_utf8_valid(text, len);
    if (valid < len)
        return err_set(e, ERR_CONFIG, "%s:%d: byte 0x%02x is not UTF-8", file,
                       line_of(text, valid), (unsigned char)text[valid]);
    if (len >= 3 && !memcmp(text, "\xef\xbb\xbf", 3)) { /* byte order mark */
        text += 3;
        len -= 3;
    }
    rc = len && *text == '{' ? parse_json(&b, text, len) : parse_yaml(&b, text, len);
    if (!rc)
        *out = b.root;
    return rc;
}

int node_read(struct arena *a, const char *path, struct node **out, struct err *e)
{
    char *text = NULL;
    size_t len = 0;
    int rc = file_read(path, BYTES_MAX, &text, &len, e);

    *out = NULL;
    if (!rc)
        rc = node_parse(a, path, text, len, out, e);
    mem_free(text);
    return rc;
}

struct node *node_get(const struct node *map, const char *key)
{
    if (!map || map->kind != NODE_MAP)
        return NULL;
    for (struct node *c = map->child; c; c = c->next)
        if (!strcmp(c->key, key))
            return c;
    return NULL;
}

void node_path(const struct node *n, struct str *out)
{
    const struct node *chain[2 * DEPTH_MAX];
    int k = 0;

    for (; n && n->parent && k < 2 * DEPTH_MAX; n = n->parent)
        chain[k++] = n;
    for (int i = k - 1; i >= 0; i--) {
        if (chain[i]->key) {
            str_addf(out, "%s%s", i < k - 1 ? "." : "", chain[i]->key);
        } else {
            size_t index = 0;

            for (const struct node *c = chain[i]->parent->child; c != chain[i]; c = c->next)
                index++;
            str_addf(out, "[%zu]", index);
        }
    }
}

/* The child of `map` named by key[0..n), made when absent. */
static struct node *child_at(struct arena *a, struct node *map, const char *key, size_t n)
{
    struct node **link = &map->child, *c;

    for (; *link; link = &(*link)->next)
        if (strlen((*link)->key) == n && !memcmp((*link)->key, key, n))
            return *link;
    c = arena_alloc(a, sizeof *c);
    if (!c)
        return NULL;
    c->key = arena_strndup(a, key, n);
    if (!c->key)
        return NULL;
    c->text = "";
    c->parent = map;
    *link = c;
    map->n++;
    return c;
}

static void forget_places(struct node *n)
{
    n->line = n->column = n->key_line = n->key_column = 0;
    for (struct node *c = n->child; c; c = c->next)
        forget_places(c);
}

/* Put the parsed value in the place of `at`, which keeps its key. */
static void replace(struct node *at, struct node *value)
{
    forget_places(value);
    at->kind = value->kind;
    at->text = value->text;
    at->quoted = value->quoted;
    at->child = value->child;
    at->n = value->n;
    for (struct node *c = at->child; c; c = c->next)
        c->parent = at;
    at->line = at->column = at->key_line = at->key_column = 0;
}

int node_set(struct arena *a, struct node *root, const char *assignment, struct err *e)
{
    const char *eq = strchr(assignment, '='), *p = assignment;
    struct build b = {.a = a, .file = "--set", .e = e};
    struct node *at = root, empty = {.kind = NODE_SCALAR, .text = ""};
    int rc, parts = 0;

    if (!eq || eq == assignment) {
        err_set(e, ERR_USAGE, "--set %.200s: expected KEY=VALUE", assignment);
        return err_mend(e, "--set stages.sft.lr=3e-5");
    }
    if (strlen(assignment) > BYTES_MAX ||
        str_utf8_valid(assignment, strlen(assignment)) < strlen(assignment))
        return err_set(e, ERR_USAGE, "--set: too long, or not UTF-8");
    rc = eq[1] ? parse_yaml(&b, eq + 1, strlen(eq + 1)) : 0;
    if (rc)
        return rc;
    while (p < eq) {
        size_t n = 0;

        while (p + n < eq && p[n] != '.')
            n++;
        if (n == 0 || n > KEY_BYTES_MAX || (p[n] == '.' && p + n + 1 == eq))
            return err_set(e, ERR_USAGE, "--set %.200s: a key is empty or too long",
                           assignment);
        if (++parts > 16)
            return err_set(e, ERR_USAGE, "--set %.200s: more than 16 keys", assignment);
        if (at->kind == NODE_SCALAR && node_is_null(at)) {
            at->kind = NODE_MAP;
            at->text = NULL;
        }
        if (at->kind != NODE_MAP)
            return err_set(e, ERR_USAGE, "--set %.200s: \"%s\" is no map", assignment,
                           at->key ? at->key : "the job");
        at = child_at(a, at, p, n);
        if (!at)
            return err_set(e, ERR_NOMEM, "--set: out of memory");
        p += n + (p[n] == '.');
    }
    replace(at, b.root ? b.root : &empty);
    return 0;
}
