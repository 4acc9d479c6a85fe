/* Between record.c (lines, JSONL) and record_cells.c (TSV, CSV). */
#ifndef WORKER_DATA_RECORD_INTERNAL_H
#define WORKER_DATA_RECORD_INTERNAL_H

#include "worker/data/record.h"

/* Names of the text columns where the job gives none, in order of preference. */
enum { RECORD_NAMES = 4 };
extern const char *const record_names[RECORD_NAMES][2];

/* Say why the record is bad; returns RECORD_BAD. */
int record_bad(struct reader *r, const char *mend, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Fill the fields from a line (checked by record_check()) that is a simple object: 1, or 0
 * when it is not and wants jansson. */
int record_flat_json(struct reader *r, const char *s, size_t n);
/* The next line without its end: 1, or 0 at the end of the file. */
int record_line(struct reader *r, const char **s, size_t *n);

int record_open_cells(struct reader *r, const struct data_spec *spec, struct err *e);
int record_next_cells(struct reader *r, struct err *e);

#endif
