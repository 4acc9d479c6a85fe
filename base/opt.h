/* Option tables: one row declares a key's type, default, bounds and help, and from that row
 * come the parser, the bounds check, "did you mean", --describe, `job.resolved.yaml` and
 * the reference in docs.
 *
 * Invariant: after opt_defaults() and opt_apply() every field of the struct is within its
 * bounds. Wrong input never stops at the first problem: all of it goes into `problems`. */
#ifndef BASE_OPT_H
#define BASE_OPT_H

#include <stddef.h>

#include "base/node.h"
#include "base/problems.h"

enum opt_type {
    OPT_TYPE_END,
    OPT_TYPE_BOOL,    /* int: true/false */
    OPT_TYPE_INT,     /* long */
    OPT_TYPE_FLOAT,   /* double */
    OPT_TYPE_ENUM,    /* int: index into names */
    OPT_TYPE_STRING,  /* const char *, NULL when not given and no default; in the arena */
    OPT_TYPE_PATH,    /* as STRING; relative ones are joined to the job file's folder */
    OPT_TYPE_STRINGS, /* struct opt_list: a list of scalars, or one scalar */
    OPT_TYPE_PATHS,   /* struct opt_list of paths */
    OPT_TYPE_FLOATS,  /* struct opt_list: list of numbers in .number */
    OPT_TYPE_NODE,    /* const struct node *: kept as it is for the owner to read */
};

struct opt_list {
    size_t n;
    const char **text;
    double *number;
};

struct opt {
    const char *key;
    enum opt_type type;
    size_t offset;
    double init, min, max;
    const char *const *names; /* OPT_TYPE_ENUM: NULL-terminated */
    const char *help;
    const char *text;          /* default of strings, or NULL */
    const char *const *words;  /* numbers: words that are also allowed, NULL-terminated; */
    const double *word_values; /* ... and what they stand for (e.g. dropout: model = -1) */
};

/* Rows: T is the struct, f both the field and the key, h the help text. */
/* clang-format off */
#define OPT_BOOL(T, f, init, h) {#f, OPT_TYPE_BOOL, offsetof(T, f), init, 0, 1, .help = h}
#define OPT_INT(T, f, init, min, max, h)                                                   \
    {#f, OPT_TYPE_INT, offsetof(T, f), init, min, max, .help = h}
#define OPT_FLOAT(T, f, init, min, max, h)                                                 \
    {#f, OPT_TYPE_FLOAT, offsetof(T, f), init, min, max, .help = h}
#define OPT_ENUM(T, f, init, names, h)                                                     \
    {#f, OPT_TYPE_ENUM, offsetof(T, f), init, 0, 0, names, h}
#define OPT_STRING(T, f, init, h)                                                          \
    {#f, OPT_TYPE_STRING, offsetof(T, f), .help = h, .text = init}
#define OPT_PATH(T, f, h) {#f, OPT_TYPE_PATH, offsetof(T, f), .help = h}
#define OPT_STRINGS(T, f, h) {#f, OPT_TYPE_STRINGS, offsetof(T, f), .help = h}
#define OPT_PATHS(T, f, h) {#f, OPT_TYPE_PATHS, offsetof(T, f), .help = h}
#define OPT_FLOATS(T, f, h) {#f, OPT_TYPE_FLOATS, offsetof(T, f), .help = h}
#define OPT_NODE(T, f, h) {#f, OPT_TYPE_NODE, offsetof(T, f), .help = h}
#define OPT_END {0}
/* clang-format on */

void opt_defaults(const struct opt *table, void *config);

/* Set what the map says. `folder` joins relative paths ("" = as given). `ignore`: keys some
 * other table owns (NULL-terminated, or NULL). Unknown keys, wrong types and values out of
 * bounds are added to `p`; null counts as "not given". A node that is no map is a problem.
 */
void opt_apply(const struct opt *table, void *config, const struct node *map,
               const char *folder, const char *const *ignore, struct arena *a,
               struct problems *p);

/* Several tables over one map (e.g. a stage's own and the common ones): each key must be in
 * one of them. */
struct opt_set {
    const struct opt *table;
    void *config;
};
void opt_apply_all(const struct opt_set *sets, size_t n, const struct node *map,
                   const char *folder, struct arena *a, struct problems *p);

int opt_given(const struct node *map, const char *key);

/* All values, defaults included, as YAML lines "<indent>key: value\n". */
void opt_write_yaml(const struct opt *table, const void *config, int indent,
                    struct str *out);
/* The table as JSON: [{"key", "type", "default", "min", "max", "values", "help"}]. */
void opt_describe_json(const struct opt *table, struct str *out);

#endif
