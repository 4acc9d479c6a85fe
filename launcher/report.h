/* RUN/report.html: one self-contained file, no network, that shows what each stage changed.
 *
 * Reads what the workers left (summary.json, <stage>/metrics.jsonl, job.resolved.yaml) and
 * only draws: every figure in it was computed by the worker. Missing parts are left out of
 * the page; a run without summary.json is ERR_CONFIG. */
#ifndef LAUNCHER_REPORT_H
#define LAUNCHER_REPORT_H

#include <stddef.h>

#include "base/err.h"
#include "base/str.h"

/* Writes RUN/report.html (atomically); path (n bytes) receives its name. */
int report_write(const char *run, char *path, size_t n, struct err *e);

/* The results table of RUN/summary.json ("comparison") as plain text for a terminal. Adds
 * nothing when the run has no comparison. */
int report_table(const char *run, struct str *out, struct err *e);

#endif
