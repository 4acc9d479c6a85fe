/* hone data: the parts of the verb. A job is read, its splits are loaded, then one of three
 * answers is written to standard output. */
#ifndef WORKER_VERB_DATA_H
#define WORKER_VERB_DATA_H

#include "base/err.h"
#include "base/str.h"
#include "worker/spec/spec.h"

struct data_job {
    struct spec spec;
    struct problems problems;
    struct dataset split[SPLITS];
};

/* Lengths, labels, duplicates, overlaps of all splits; `json`: one document. */
int data_show(const struct data_job *j, int json, struct err *e);

/* Write what was collected in `out` and empty it. */
int data_flush(struct str *out, struct err *e);

#endif
