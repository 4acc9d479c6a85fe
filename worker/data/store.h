/* A store: bytes appended once, then read in pieces, in bounded memory.
 *
 * Up to STORE_MEMORY bytes lie in memory; a larger store lies in a nameless temporary file
 * ($TMPDIR, else /var/tmp or /tmp: file_temporary()) behind a small buffer, and is read
 * with pread, so that its pages never count as this process's own.
 *
 * Invariant: what was added at `at` reads back as it was, from any number of threads, once
 * store_flush() was called after the last store_add(). Fails with ERR_NOMEM, and ERR_IO
 * that names the folder (its disk is full). */
#ifndef WORKER_DATA_STORE_H
#define WORKER_DATA_STORE_H

#include <stddef.h>

#include "base/err.h"

enum { STORE_MEMORY = 32 << 20 };

struct store {
    char *bytes;     /* all of it, or what is not yet in the file */
    size_t cap;      /* of bytes */
    size_t size;     /* all bytes added */
    size_t in_file;  /* of these, those in the file */
    int is_file, fd; /* is_file: there is one */
};

/* Where a piece from a file is put; reused by the next one. Zeroed: ready. */
struct store_buf {
    char *p;
    size_t cap;
};

int store_add(struct store *s, const void *p, size_t n, struct err *e);
int store_flush(struct store *s, struct err *e);

/* n bytes from `at`, in the store itself or in *buf; valid until the store is added to or
 * buf is used again. NULL: *e is filled. */
const void *store_get(const struct store *s, size_t at, size_t n, struct store_buf *buf,
                      struct err *e);
void store_buf_fini(struct store_buf *b);
void store_fini(struct store *s); /* total */

/* Test control: bytes in memory before a store becomes a file; 0: STORE_MEMORY. */
void store_set_memory(size_t bytes);

#endif
