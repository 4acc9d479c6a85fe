/* metrics.jsonl: one JSON object a line, only ever appended to, and cut back to the
 * checkpoint on resume, so that nothing stands twice.
 *
 * Fails with ERR_IO and the path; a line that was half written by a full disk is cut by the
 * next resume. */
#ifndef WORKER_TRAIN_CURVE_H
#define WORKER_TRAIN_CURVE_H

#include "base/err.h"
#include "base/file.h"
#include "base/str.h"
#include "worker/stage/stage.h"

struct curve {
    char path[FILE_PATH_MAX];
    long long size; /* bytes that belong to the run so far */
};

/* Open dir/metrics.jsonl and cut it to `keep` bytes. A file shorter than that has lost
 * lines: ERR_CORRUPT. */
int curve_open(struct curve *r, const char *dir, long long keep, struct err *e);
int curve_line(struct curve *r, const char *json, struct err *e); /* adds the newline */
int curve_sync(struct curve *r, struct err *e); /* on disk before a checkpoint is */

/* The line of a step: {"step", "epoch", "time", "split", metrics...}; `time`: seconds of
 * this stage so far. */
void curve_format(struct str *out, long step, double epoch, double time, const char *split,
                  const struct metric_list *m);

#endif
