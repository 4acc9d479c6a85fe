/* Inside the report: shared by launcher/report*.c alone. */
#ifndef LAUNCHER_REPORT_INTERNAL_H
#define LAUNCHER_REPORT_INTERNAL_H

#include <math.h>
#include <stdio.h>

#include "base/json.h"
#include "base/str.h"

enum { LABELS_MAX = 256 };

struct run {
    const char *dir;
    json_t *summary;
    const char *label[LABELS_MAX];
    size_t K;
    int ordinal;
    long seeds;  /* above 1: figures are {"mean", "se", "values"} over RUN/seed-<k> ... */
    long n_done; /* ... of so many: */
    const json_t *done; /* their numbers; NULL: all */
};

/* Number (from 1) of the k-th seed that the figures are of. */
static inline long report_seed(const struct run *r, long k)
{
    return r->done ? (long)json_integer_value(json_array_get(r->done, (size_t)k)) : k + 1;
}

static inline double member(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);

    return json_is_number(v) ? json_number_value(v) : NAN;
}

static inline const char *string(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));

    return s ? s : "";
}

static inline void section(struct str *out, const char *title)
{
    str_add(out, "<h2>");
    str_add_html(out, title);
    str_add(out, "</h2>");
}

/* Time and throughput, then a section for each stage: results and curves. */
int report_stages(const struct run *r, struct str *out, struct err *e);

#endif
