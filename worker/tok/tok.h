/* Tokenizers: from a Hugging Face folder's tokenizer.json (or vocab.txt) to token ids.
 *
 * One door for all kinds; a kind (model type in tokenizer.json) is one file. The file's own
 * truncation and padding blocks are ignored. A kind that is not there yet is
 * ERR_UNSUPPORTED and says its name. Tokenizers are immutable after tok_open(): any number
 * of threads may encode. Text is UTF-8, checked by the caller. */
#ifndef WORKER_TOK_TOK_H
#define WORKER_TOK_TOK_H

#include <stddef.h>

#include "base/err.h"

struct tok;

struct tok_ids {
    int *id;
    size_t n, cap;
};

int tok_open(struct tok **out, const char *dir, struct err *e);
void tok_close(struct tok *t);

long tok_vocab_size(const struct tok *t);           /* largest id + 1 */
int tok_id(const struct tok *t, const char *token); /* -1: none */
const char *tok_token(const struct tok *t, int id); /* NULL: none */
/* -1 where the tokenizer has none: BERT [CLS] [SEP] [PAD], RoBERTa <s> </s> <pad>. */
int tok_cls(const struct tok *t);
int tok_sep(const struct tok *t);
int tok_pad(const struct tok *t);

/* Append the ids of text[0..n), without special tokens (added tokens such as "[SEP]" that
 * stand in the text are recognised as the file's added_tokens say). */
int tok_encode(const struct tok *t, const char *text, size_t n, struct tok_ids *out,
               struct err *e);

/* What the post-processor puts around one sequence or a pair (BERT: [CLS] a [SEP] and
 * [CLS] a [SEP] b [SEP] with types 0 / 1; RoBERTa: <s> a </s></s> b </s>): the specials
 * before the first text, between the two, and after the last. */
struct tok_frame {
    int prefix[4], n_prefix, middle[4], n_middle, suffix[4], n_suffix;
    int middle_type, pair_type; /* token types between the texts, of the second text */
};
void tok_frame(const struct tok *t, int pair, struct tok_frame *out);

/* Text of ids (special tokens skipped when asked), as the decoder of the file does. */
struct str;
int tok_decode(const struct tok *t, const int *id, size_t n, int skip_special,
               struct str *out, struct err *e);

int tok_push(struct tok_ids *out, int id, struct err *e); /* append one id */
void tok_ids_fini(struct tok_ids *ids);

#endif
