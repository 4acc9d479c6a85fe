/* Epoch order, and packed micro-batches: the sequences one after another, nothing between.
 *
 * A packer packs when it is asked. An `ahead` is told the parts of the batches to come and
 * packs a few of them on a thread of its own while the caller computes; it hands them out
 * in order. Whoever packs, the bytes are the same: a packed batch's dropout keys are the
 * sequences' numbers, so nothing depends on the packing. Fails as sequences_read() does,
 * with ERR_NOMEM, and ERR_CONFIG for a micro-batch beyond INT_MAX tokens. */
#ifndef WORKER_DATA_PACK_H
#define WORKER_DATA_PACK_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "worker/data/encode.h"
#include "worker/tape/tape.h"

/* Order of epoch `epoch`: a permutation of 0..n-1 keyed by (seed, stage name, epoch). */
int order_epoch(uint32_t *out, size_t n, uint64_t seed, const char *stage, long epoch);

/* Cut a list of sequence numbers into micro-batches of at most `max_tokens` tokens (a
 * longer sequence stands alone); fill() packs one. Buffers grow and are reused. */
struct packer;
struct packer *packer_new(const struct sequences *s, long max_tokens, struct err *e);
void packer_free(struct packer *p);
void packer_round(struct packer *p); /* from now on: see ahead_new() */
/* Pack sequences seq[*next...] as far as they fit; advances *next. example key: seq number
 */
int packer_fill(struct packer *p, const uint32_t *seq, size_t n, size_t *next,
                struct packed *out, struct err *e);

/* The shape of a micro-batch; answers: tokens that belong to answers, 0 where none do. */
struct pack_size {
    size_t tokens, sequences, answers;
};
/* Shapes that come again, for devices that keep graphs of them: filled up to the next of
 * sixteen (of sequences eight) sizes an octave, with sequences of at most `longest` tokens.
 */
struct pack_size pack_round(struct pack_size have, size_t longest);
size_t pack_answers(const struct sequences *s, const uint32_t *seq, size_t n);
/* Of T tokens in n filling sequences, those of number i. */
static inline size_t pack_filling(size_t T, size_t n, size_t i)
{
    return T / n + (i < T % n);
}

/* A micro-batch: sequences [first, first + n) of a batch. */
struct pack_part {
    size_t first, n;
};

struct ahead;
/* round: parts are filled up as pack_round() says, with tokens that are there already, as
 * sequences behind the others. */
struct ahead *ahead_new(const struct sequences *s, int round, struct err *e);
void ahead_free(struct ahead *a); /* total; ends the thread */
/* The parts of a batch, to be handed out after those that were added before. Both lists
 * are copied. */
int ahead_add(struct ahead *a, const uint32_t *seq, const struct pack_part *part, size_t n,
              struct err *e);
size_t ahead_waiting(struct ahead *a); /* parts that were added and not handed out */
/* The next part, packed here and now where the thread has not come to it; valid until the
 * next call. There must be one. */
int ahead_next(struct ahead *a, struct packed *out, struct err *e);
/* Forget the parts that were not handed out. */
void ahead_clear(struct ahead *a);

#endif
