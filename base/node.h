/* Configuration trees: what a YAML or JSON file says, with the place of every value.
 *
 * YAML is read with libyaml's events, JSON (first character `{`) with jansson, into the
 * same tree. Limits: 1 MiB, depth 64, 512 keys a map, keys of 128 bytes, no aliases, no
 * anchors, no tags, one document, no duplicate keys. Fails with ERR_CONFIG and
 * "file:line:column: what". Scalars stay text until an option table asks for a type. */
#ifndef BASE_NODE_H
#define BASE_NODE_H

#include <stddef.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/str.h"

enum node_kind { NODE_SCALAR, NODE_LIST, NODE_MAP };

struct node {
    enum node_kind kind;
    int line, column; /* 1-based; 0 where unknown (--set) */
    int key_line, key_column;
    const char *key;  /* name within the parent map, or NULL */
    const char *text; /* NODE_SCALAR */
    int quoted;       /* NODE_SCALAR: "12" is a string, 12 a number */
    struct node *child, *next, *parent;
    size_t n; /* children */
};

/* Parse text (file names it in messages); nodes live in the arena. */
int node_parse(struct arena *a, const char *file, const char *text, size_t len,
               struct node **out, struct err *e);
int node_read(struct arena *a, const char *path, struct node **out, struct err *e);

/* Is it an unquoted null (also "" and "~")? */
int node_is_null(const struct node *n);
/* Would this text, unquoted, be a number, a boolean or null in YAML 1.2's core schema? */
int node_text_is_typed(const char *text);
/* "stages.sft.lr" */
void node_path(const struct node *n, struct str *out);

struct node *node_get(const struct node *map, const char *key); /* NULL: absent */

/* --set stages.sft.lr=3e-5: parse the value as YAML and put it at the dotted path, making
 * maps on the way. Refuses to replace a map by walking through a scalar. */
int node_set(struct arena *a, struct node *root, const char *assignment, struct err *e);

/* Write as YAML (block style, scalars quoted where needed) or as JSON (unquoted scalars
 * that are numbers, true, false or null in YAML 1.2's core schema stay so). */
void node_write_yaml(const struct node *n, struct str *out);
void node_write_json(const struct node *n, struct str *out);
/* On one line, in YAML's flow style: {kind: tsv, header: false}. */
void node_write_flow(const struct node *n, struct str *out);
/* One string as a YAML scalar: plain where it reads back as this string, else quoted. */
void node_write_string(const char *text, struct str *out);

#endif
