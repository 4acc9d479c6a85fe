/* Journals: the events of a job, append-only, one file per job.
 *
 *     record: length (u32, little-endian) | XXH3 of the body, low 32 bits | body
 *
 * The body is a packed Event; record n holds Event.seq = n, from 1 upwards by one.
 * Invariant: what journal_flush() has written survives the end of the process at any
 * moment; a record that was cut by it (or by a power failure: nothing is synced, workers
 * keep their own metrics.jsonl) is cut off when the file is opened next. A flush that fails
 * leaves the file as it was before, and the records appended since are forgotten.
 *
 * A journal with a limit that grows beyond it loses its oldest records until half of the
 * limit is left; the file then begins with
 *
 *     "HONEJRN1" | how many records it has lost (u64, little-endian)
 *
 * and the numbers of the others stay. It is written anew beside the old one, synced and
 * renamed; where that fails it simply stays longer.
 *
 * A journal that rests (journal_rest()) holds no descriptor; it wakes by itself. */
#ifndef DAEMON_JOURNAL_H
#define DAEMON_JOURNAL_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum { JOURNAL_RECORD_MAX = 1 << 20 };

struct journal;

/* A file that is not there yet is made by the first flush. */
int journal_open(struct journal **out, const char *path, struct err *e);
void journal_close(struct journal *j); /* flushes nothing. Total */
void journal_rest(struct journal *j);

/* Bytes; 0: it may grow for ever (default). */
void journal_set_limit(struct journal *j, uint64_t bytes);
uint64_t journal_size(const struct journal *j);  /* bytes */
uint64_t journal_first(const struct journal *j); /* oldest seq that is kept: 1 at first */
uint64_t journal_last(const struct journal *j);  /* newest seq flushed, 0: none */
uint64_t journal_next_seq(const struct journal *j); /* of the next append */

int journal_append(struct journal *j, const void *body, size_t n, struct err *e);
/* Write what was appended; ERR_IO: nothing was. */
int journal_flush(struct journal *j, struct err *e);

/* A reader's place. Zeroed but for `after`: the seq it has seen. */
struct journal_place {
    uint64_t after;
    uint64_t at; /* offset of the next record, valid when `known` */
    int known;
    unsigned generation; /* of the file that `at` is in */
};

/* The next record that is kept: 1, *body (borrowed until the next call on this journal) and
 * *n; 0: there is none yet; or an error. */
int journal_read(struct journal *j, struct journal_place *place, const uint8_t **body,
                 size_t *n, struct err *e);

#endif
