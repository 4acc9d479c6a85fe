/* metrics.jsonl: one JSON object a line, only ever appended to, and cut back to the
 * checkpoint on resume, so that nothing stands twice.
 *
 * Fails with ERR_IO and the path; a line that was half written by a full disk is cut by the
 * next resume. */
#ifndef WORKER_TRAIN_RECORD_H
#define WORKER_TRAIN_RECORD_H

#include "base/err.h"
#include "base/file.h"
#include "base/str.h"
#include "worker/stage/stage.h"

struct record {
    char path[FILE_PATH_MAX];
    long long size; /* bytes that belong to the run so far */
};

/* Open dir/metrics.jsonl and cut it to `keep` bytes. A file shorter than that has lost
 * lines: ERR_CORRUPT. */
int record_open(struct record *r, const char *dir, long long keep, struct err *e);
int record_line(struct record *r, const char *json, struct err *e); /* adds the newline */
int record_sync(struct record *r, struct err *e); /* on disk before a checkpoint is */

/* The line of a step: {"step", "epoch", "time", "split", metrics...}; `time`: seconds of
 * this stage so far. */
void record_format(struct str *out, long step, double epoch, double time, const char *split,
                   const struct metric_list *m);

#endif
