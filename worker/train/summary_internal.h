/* Inside the summaries: shared by summary.c, summary_run.c and summary_seeds.c alone. */
#ifndef WORKER_TRAIN_SUMMARY_INTERNAL_H
#define WORKER_TRAIN_SUMMARY_INTERNAL_H

#include "base/file.h"
#include "base/json.h"
#include "worker/train/metrics.h"
#include "worker/train/summary.h"

enum { SUMMARY_BYTES_MAX = 64 << 20 };

/* Members; a value that is not finite becomes null, a whole one an integer. */
void summary_set_number(json_t *o, const char *key, double x);
void summary_set_string(json_t *o, const char *key, const char *text);
json_t *summary_metrics(const struct class_metrics *m, int ordinal);

/* What is drawn of probabilities p (n, K): "confusion", "reliability". */
int summary_set_drawings(json_t *o, const double *p, const int *label, size_t n, int K,
                         struct err *e);

/* Writers of RUN/summary.json take turns: *fd (-1: it failed) is closed to give way. */
int summary_lock(const char *run, int *fd, struct err *e);
/* When the run began: as the summary that is there says, or `otherwise`. */
double summary_started(const char *run, double otherwise);

/* Write it, release it; a NULL part on the way shows as ERR_NOMEM. */
int summary_write(const char *dir, const char *name, json_t *o, struct err *e);

#endif
