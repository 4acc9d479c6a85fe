/* Charts as inline SVG: curves, reliability diagrams, confusion matrices, bars.
 *
 * Everything is appended to a buffer as one <svg> element that scales with its container;
 * colours come from CSS classes of the page (s0, s1, ... for series). Points that are not
 * finite are left out. */
#ifndef LAUNCHER_SVG_H
#define LAUNCHER_SVG_H

#include <stddef.h>

#include "base/str.h"

struct svg_series {
    const char *name;
    const double *x, *y;
    size_t n;
    int dots;  /* dots joined by a line (evaluations) instead of a plain line */
    int faint; /* the raw values behind a smoothed line: no legend entry */
    int color; /* class s<color> */
};

/* Line chart of the series over a common x axis. */
void svg_curves(struct str *out, const char *title, const char *x_label,
                const struct svg_series *series, size_t n);

/* Reliability diagram: bars of accuracy per confidence bin against the diagonal, the number
 * of rows per bin below. All arrays have n entries for the bins (i/n, (i+1)/n]. */
void svg_reliability(struct str *out, const char *title, const double *accuracy,
                     const double *confidence, const double *count, size_t n);

/* K x K matrix of counts, rows gold and columns predicted, shaded by share of the row. */
void svg_confusion(struct str *out, const char *title, const double *count,
                   const char *const *label, size_t K);

/* Grouped bars: value[s * n + i] for series s and category i. */
void svg_bars(struct str *out, const char *title, const char *const *category, size_t n,
              const char *const *series, const double *value, size_t n_series);

/* One bar from 0 to the sum of the n values, a piece for each, with their shares. */
void svg_stack(struct str *out, const char *title, const char *const *name,
               const double *value, size_t n);

#endif
