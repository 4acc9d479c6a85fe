/* Records of a data file, one at a time: JSONL, TSV (no quoting) or CSV (RFC 4180).
 *
 * A reader walks a mapped file; a record's fields are valid until the next one. What is
 * wrong with one record (not UTF-8, NUL, over-long, columns missing) does not stop the
 * reader: record_next() says RECORD_BAD, with the reason in reader.what and reader.mend,
 * and goes on behind it. Rows are named by the line they begin on, from 1. */
#ifndef WORKER_DATA_RECORD_H
#define WORKER_DATA_RECORD_H

#include <stddef.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/json.h"
#include "base/str.h"
#include "worker/data/dataset.h"

enum { FIELD_TEXT, FIELD_SECOND, FIELD_LABEL, FIELDS };
enum field_kind { VALUE_ABSENT, VALUE_TEXT, VALUE_NUMBER, VALUE_OTHER };
enum { RECORD_END = 0, RECORD_OK = 1, RECORD_BAD = 2 };

enum { RECORD_LINE_MAX = 16 << 20, RECORD_COLUMNS_MAX = 4096 };

struct field {
    enum field_kind kind;
    const char *s; /* the text; of a number its digits */
    size_t n;
};

struct reader {
    const char *name; /* for messages: the path */
    const char *s;
    size_t n, i;
    long line; /* of the next byte, from 1 */
    int kind;  /* enum data_kind, not DATA_AUTO */
    int header;
    int want_label;
    int careful;                /* tests: every line by way of jansson */
    const char *column[FIELDS]; /* keys of JSONL; NULL: not there */
    long index[FIELDS];         /* columns of TSV and CSV, from 0; -1: not there */
    size_t columns;             /* in every record of TSV and CSV */
    /* of the last record */
    long row;
    struct field field[FIELDS];
    char what[400], mend[200];
    /* buffers */
    json_t *object;
    char number[40];
    struct str work; /* fields of CSV */
    struct field cell[RECORD_COLUMNS_MAX];
};

/* What kind of file a name (.gz and .zst aside) says it is; DATA_AUTO: it does not. */
int record_kind(const char *path);

/* Find the columns: from the spec's names and numbers, the header, or the first record.
 * Fails with ERR_CONFIG when they are not there. The reader borrows bytes and spec. */
int record_open(struct reader *r, const struct data_spec *spec, const char *name, int kind,
                const char *bytes, size_t n, int want_label, struct err *e);
int record_next(struct reader *r, struct err *e); /* RECORD_*, or an error */
void record_close(struct reader *r);

/* Length, UTF-8, NUL: RECORD_OK or RECORD_BAD. */
int record_check(struct reader *r, const char *s, size_t n);

#endif
