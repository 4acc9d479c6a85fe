/* A vocabulary: tokens and their ids, and indexes that find an id from bytes.
 *
 * Built once (vocab_add, then vocab_index), read by any number of threads. Of two entries
 * with one text the later wins, as in the library; the same for two texts with one id. */
#ifndef WORKER_TOK_VOCAB_H
#define WORKER_TOK_VOCAB_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum { VOCAB_ID_MAX = (1 << 24) - 1 };

struct vocab_entry {
    uint32_t at, len; /* place of the NUL-terminated text */
    int id;
};

struct vocab {
    char *bytes;
    size_t n_bytes, cap_bytes;
    struct vocab_entry *entry;
    size_t n, cap;
    uint32_t *of_id; /* (n_ids) entry + 1; 0: none */
    size_t n_ids;
};

struct vocab_slot {
    uint32_t hash, at, len;
    int id; /* -1: empty */
};

/* Over the entries that begin with a prefix, found without it ("##" of WordPiece). */
struct vocab_index {
    struct vocab_slot *slot;
    size_t mask;
    size_t longest; /* bytes */
};

int vocab_add(struct vocab *v, const char *text, size_t n, long id, struct err *e);
int vocab_seal(struct vocab *v, struct err *e); /* fills of_id; may be called again */
int vocab_index(const struct vocab *v, const char *prefix, struct vocab_index *out,
                struct err *e);
int vocab_find(const struct vocab *v, const struct vocab_index *x, const char *text,
               size_t n);
const char *vocab_text(const struct vocab *v, int id); /* NULL: none */
void vocab_fini(struct vocab *v);
void vocab_index_fini(struct vocab_index *x);

#endif
