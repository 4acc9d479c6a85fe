/* From rows to token sequences, and from sequences to packed micro-batches.
 *
 * Policy input (SFT, PPO, eval, predict): [CLS] x [SEP], pairs [CLS] x1 [SEP] x2 [SEP] with
 * token types 0/1; the longer text is cut first. Reward-model input of candidate j:
 * [CLS] prefix: x || candidate_j [SEP], pairs `prefix: x1 [SEP] prefix: x2 || candidate`
 * with one token type; texts are cut (the longer first), special tokens and the candidate
 * never. A prompt and its response: prefix, prompt, response, end-of-text token; the prompt
 * loses its beginning first, the response its end. Text and " || candidate" (prompt and
 * response) are tokenized apart and concatenated (as the PyTorch
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

/* N examples of S sequences each: sequence s of example i is number i * S + s.
 *
 * What encode_*() makes keeps the ids of every text once, for all S sequences, in a store
 * (bounded memory, store.h), and puts a sequence together when it is read: 8 bytes a
 * sequence stay in memory. Tests and `verify` fill in ids and types themselves. */
struct sequences {
    size_t n, per_example; /* n = examples * per_example */
    size_t *offset;        /* (n + 1) tokens before each sequence */
    size_t truncated;      /* sequences that lost text */
    size_t longest;
    int *answer;          /* (n) tokens before the answer, 1 at least; NULL: no answers */
    int *ids;             /* plain sequences alone: all ids; else NULL */
    unsigned char *types; /* of plain sequences; NULL: all 0 */
    struct encoded *encoded;
};

struct encode_spec {
    const struct tok *tok;
    long max_tokens;
    const char *prefix;           /* reward input; NULL or "": none */
    const char *const *candidate; /* candidate texts, one a label */
    int n_candidates;
    int answers;          /* rows are a prompt and its response */
    const char *template; /* of the prompt, with {prompt}; or NULL */
    int eos;              /* behind a response */
    int threads; /* that may tokenize; 0: the caller's alone. The result is the same */
};

int encode_policy(struct sequences *out, const struct row *row, size_t n,
                  const struct encode_spec *s, struct err *e);
int encode_reward(struct sequences *out, const struct row *row, size_t n,
                  const struct encode_spec *s, struct err *e);
/* Rows of a data set, all or those with only[i]; as reward-model input or the policy's. */
int encode_dataset(struct sequences *out, const struct dataset *d,
                   const unsigned char *only, int reward, const struct encode_spec *s,
                   struct err *e);
void sequences_fini(struct sequences *s);

/* Sequence i: offset[i + 1] - offset[i] ids and token types (NULL: not wanted). Several
 * threads may read, each with a buffer of its own. */
int sequences_read(const struct sequences *s, size_t i, struct store_buf *buf, int *ids,
                   int *types, struct err *e);
size_t sequences_bytes(const struct sequences *s); /* of memory it holds */

/* Tokens of a reward input that are not text: special ones and the longest candidate. */
long encode_reward_special(const struct encode_spec *s, int pairs, struct err *e);

/* Least max_tokens with which every candidate leaves room for its
 * prefix and one token of text. */
long encode_least_tokens(const struct encode_spec *s, int pairs, struct err *e);

/* Order of epoch `epoch`: a permutation of 0..n-1 keyed by (seed, stage name, epoch). */
int order_epoch(uint32_t *out, size_t n, uint64_t seed, const char *stage, long epoch);

#endif
