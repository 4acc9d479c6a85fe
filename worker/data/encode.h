/* From rows to token sequences, and from sequences to packed micro-batches.
 *
 * Policy input (SFT, PPO, eval, predict): [CLS] x [SEP], pairs [CLS] x1 [SEP] x2 [SEP] with
 * token types 0/1; the longer text is cut first. Reward-model input of candidate j:
 * [CLS] prefix: x || candidate_j [SEP], pairs `prefix: x1 [SEP] prefix: x2 || candidate`
 * with one token type; texts are cut (the longer first), special tokens and the candidate
 * never. Text and " || candidate" are tokenized apart and concatenated (as the PyTorch
 * peer does), so a text is tokenized once for its K candidates. */
#ifndef WORKER_DATA_ENCODE_H
#define WORKER_DATA_ENCODE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/rng.h"
#include "worker/data/dataset.h"
#include "worker/tape/tape.h"
#include "worker/tok/tok.h"

/* N examples of S sequences each: sequence s of example i is number i * S + s. */
struct sequences {
    size_t n, per_example; /* n = examples * per_example */
    int *ids;
    unsigned char *types; /* NULL: all 0 */
    size_t *offset;       /* (n + 1) */
    size_t truncated;     /* sequences that lost text */
    size_t longest;
};

struct encode_spec {
    const struct tok *tok;
    long max_tokens;
    const char *prefix;           /* reward input; NULL or "": none */
    const char *const *candidate; /* candidate texts, one a label */
    int n_candidates;
};

int encode_policy(struct sequences *out, const struct row *row, size_t n,
                  const struct encode_spec *s, struct err *e);
int encode_reward(struct sequences *out, const struct row *row, size_t n,
                  const struct encode_spec *s, struct err *e);
void sequences_fini(struct sequences *s);

/* Tokens of a reward input that are not text: special ones and the longest candidate. */
long encode_reward_special(const struct encode_spec *s, int pairs, struct err *e);

/* Least max_tokens with which every candidate leaves room for its
 * prefix and one token of text. */
long encode_least_tokens(const struct encode_spec *s, int pairs, struct err *e);

/* Order of epoch `epoch`: a permutation of 0..n-1 keyed by (seed, stage name, epoch). */
int order_epoch(uint32_t *out, size_t n, uint64_t seed, const char *stage, long epoch);

/* Cut a list of sequence numbers into micro-batches of at most `max_tokens` tokens (a
 * longer sequence stands alone); fill() packs one. Buffers grow and are reused. */
struct packer;
struct packer *packer_new(const struct sequences *s, long max_tokens, struct err *e);
void packer_free(struct packer *p);
/* Pack sequences seq[*next...] as far as they fit; advances *next. example key: seq number
 */
int packer_fill(struct packer *p, const uint32_t *seq, size_t n, size_t *next,
                struct packed *out, struct err *e);

#endif
