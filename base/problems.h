/* Problems: every complaint about an input, collected, so that a user mends a file once.
 *
 * A problem names its place and where known its mend. Invariant: at most PROBLEMS_MAX are
 * kept (a count of the rest is printed), each once. Warnings never fail anything. */
#ifndef BASE_PROBLEMS_H
#define BASE_PROBLEMS_H

#include "base/arena.h"
#include "base/err.h"
#include "base/node.h"

enum { PROBLEMS_MAX = 100 };

struct problem {
    const char *where;   /* "job.yaml:12:5", "train.jsonl: row 17" or "" */
    const char *message; /* "unknown key \"epoch\"" */
    const char *mend;    /* "did you mean \"epochs\"?" or "" */
    int warning;
};

struct problems {
    struct arena arena;
    const char *file; /* names the nodes' file; may be NULL */
    struct problem item[PROBLEMS_MAX];
    int n, errors, dropped;
};

void problems_init(struct problems *p, const char *file);
void problems_fini(struct problems *p);

/* Add an error at a node (may be NULL), or at a place given as text. */
void problems_add(struct problems *p, const struct node *at, const char *mend,
                  const char *fmt, ...) __attribute__((format(printf, 4, 5)));
void problems_add_at(struct problems *p, const char *where, const char *mend,
                     const char *fmt, ...) __attribute__((format(printf, 4, 5)));
void problems_warn(struct problems *p, const char *where, const char *mend, const char *fmt,
                   ...) __attribute__((format(printf, 4, 5)));

/* Print all to stderr, "hone: job.yaml:12:5: message" with "  try: mend" lines. */
void problems_print(const struct problems *p, const char *program);
void problems_write_json(const struct problems *p, struct str *out); /* a JSON array */

/* 0 when there are no errors; otherwise ERR_CONFIG with the first (and a count) in *e. */
int problems_result(const struct problems *p, struct err *e);

#endif
