/* Lines of a stream (standard input, a pipe, a file) in bounded memory, for verbs that
 * answer line by line. A line above 16 MiB is stepped over and reported as such. */
#ifndef WORKER_DATA_LINES_H
#define WORKER_DATA_LINES_H

#include <stddef.h>
#include <stdio.h>

#include "base/err.h"

enum { LINES_END = 0, LINES_OK = 1, LINES_TOO_LONG = 2 };

struct lines {
    FILE *f;
    const char *name; /* for messages: the path, or "standard input" */
    long number;      /* of the last line, from 1 */
    char *s;          /* the line without its end, NUL-terminated */
    size_t n, cap;
    int owned;
};

/* path NULL or "-": standard input. */
int lines_open(struct lines *l, const char *path, struct err *e);
int lines_next(struct lines *l, struct err *e); /* LINES_*, or an error */
void lines_close(struct lines *l);

#endif
