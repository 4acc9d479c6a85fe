/* Inside the tokenizer room: what a file said, and what a kind must provide.
 *
 * A kind is one file that defines `const struct tok_kind tok_kind_<name>` and stands in
 * the list of tok.c. It takes its model, normalizer and pre-tokenizer from struct tok_file
 * and refuses (ERR_UNSUPPORTED, by name) what it does not know. */
#ifndef WORKER_TOK_INTERNAL_H
#define WORKER_TOK_INTERNAL_H

#include "base/arena.h"
#include "base/json.h"
#include "worker/tok/scan.h"
#include "worker/tok/tok.h"
#include "worker/tok/vocab.h"

/* tokenizer.json without vocabulary and merges; absent parts are NULL. */
struct tok_file {
    const char *path;
    json_t *model; /* an object: the model's small members */
    json_t *normalizer, *pre_tokenizer, *post_processor, *decoder, *added_tokens;
    struct span merges; /* n 0: none */
    char *text;         /* what merges points into */
    int list_vocab;     /* the vocabulary is a list (unigram): not read */
};

struct tok_added {
    const char *text;
    size_t len;
    int id;
    int special, single_word, lstrip, rstrip, normalized;
};

/* Added tokens that are looked for at one stage, longest first. */
struct tok_added_set {
    struct tok_added *token;
    size_t n;
    unsigned char first[256]; /* bytes a token begins with */
};

enum tok_decoder { DECODER_SPACES, DECODER_WORDPIECE, DECODER_BYTES, DECODER_METASPACE };

struct tok_kind {
    const char *name; /* model.type in tokenizer.json */
    int (*open)(struct tok *t, const struct tok_file *f, struct err *e);
    void (*close)(struct tok *t);
    /* Ids of text that holds no added token. `first`: at the text's beginning. */
    int (*encode)(const struct tok *t, const char *text, size_t n, int first,
                  struct tok_ids *out, struct err *e);
    /* The normalizer's text, or NULL: normalized text is the text. */
    int (*normalize)(const struct tok *t, const char *text, size_t n, struct str *out);
};
extern const struct tok_kind tok_kind_bpe, tok_kind_wordpiece;

struct tok {
    const struct tok_kind *kind;
    void *state; /* the kind's own */
    struct arena arena;
    struct vocab vocab;
    struct vocab_index whole;
    struct tok_added_set added[2]; /* found in the text; in the normalized text */
    unsigned char *special;        /* (vocab.n_ids) */
    struct tok_frame frame[2];     /* one text, a pair */
    enum tok_decoder decoder;
    const char *decoder_prefix; /* "##" */
    int decoder_cleanup;
    int decoder_strip; /* blanks at the text's beginning that are not its own */
};

/* "type" of a part, or "" for null; and a flag of it. */
const char *tok_part_type(const json_t *part);
int tok_part_flag(const json_t *part, const char *key, int otherwise);

/* file.c: tokenizer.json, or the vocab.txt of older checkpoints. */
int tok_file_read(struct tok_file *f, struct vocab *v, const char *dir, struct err *e);
int tok_file_parse(struct tok_file *f, struct vocab *v, const char *name, char *text,
                   size_t n, struct err *e); /* takes `text` */
void tok_file_fini(struct tok_file *f);
int tok_make(struct tok **out, struct tok_file *f, struct vocab *v, struct err *e);

/* added.c */
int tok_added_read(struct tok *t, const struct tok_file *f, struct err *e);
struct tok_match {
    const struct tok_added *token;
    size_t begin, end;
};
/* The leftmost, then longest token at or after `from`: 1 and *m, or 0. */
int tok_added_find(const struct tok_added_set *set, const char *text, size_t n, size_t from,
                   struct tok_match *m);

/* post.c, decode.c */
int tok_post_read(struct tok *t, const struct tok_file *f, struct err *e);
int tok_decoder_read(struct tok *t, const struct tok_file *f, struct err *e);

#endif
