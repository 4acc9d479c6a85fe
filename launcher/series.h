/* Series of figures from a stage's metrics.jsonl, as lines for a chart.
 *
 * A key's training values become a faint line and its running mean (window: 1/40 of the
 * points), validation values dots joined by a line. Broken lines of the file are left out:
 * a report must not fail over a line that was cut by a crash. */
#ifndef LAUNCHER_SERIES_H
#define LAUNCHER_SERIES_H

#include "base/arena.h"
#include "base/err.h"
#include "launcher/svg.h"

struct series_point {
    double step;
    int validation;
    struct json_t *values; /* the whole line */
};

struct series_file {
    struct arena arena;
    struct series_point *point;
    size_t n, cap;
};

int series_read(struct series_file *f, const char *path, struct err *e);
void series_fini(struct series_file *f);

/* Lines for those of the n keys (NULL: end) that the file has; returns how many. */
size_t series_lines(struct series_file *f, const char *const *key, size_t n,
                    struct svg_series *out, size_t most);

#endif
