/* Where the time of a stage's steps went, for its section of the report. */
#ifndef LAUNCHER_REPORT_TIME_H
#define LAUNCHER_REPORT_TIME_H

#include "base/str.h"
#include "launcher/series.h"

/* A card with a bar and a table, from time_data, time_forward, ... of the training lines
 * (seconds a step, means over the steps of a line); nothing where they are absent. */
void report_time(const struct series_file *f, const char *stage, struct str *out);

#endif
