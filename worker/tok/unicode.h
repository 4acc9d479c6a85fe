/* Unicode for tokenizers and data: one file of ours in front of utf8proc.
 *
 * Text is valid UTF-8 (str_utf8_valid), so decoding cannot fail. The classes of BERT's
 * tokenizer are tables of our own: Hugging Face's library uses an older Unicode than
 * utf8proc for them, and ids must agree on every code point. */
#ifndef WORKER_TOK_UNICODE_H
#define WORKER_TOK_UNICODE_H

#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

enum { UNICODE_DECOMPOSED_MAX = 8, UNICODE_LOWER_MAX = 2 };

/* Decode the code point at *p (valid UTF-8) and advance. */
static inline int32_t unicode_next(const unsigned char **p)
{
    const unsigned char *s = *p;

    if (s[0] < 0x80) {
        *p = s + 1;
        return s[0];
    }
    if (s[0] < 0xe0) {
        *p = s + 2;
        return (s[0] & 0x1f) << 6 | (s[1] & 0x3f);
    }
    if (s[0] < 0xf0) {
        *p = s + 3;
        return (s[0] & 0x0f) << 12 | (s[1] & 0x3f) << 6 | (s[2] & 0x3f);
    }
    *p = s + 4;
    return (s[0] & 0x07) << 18 | (s[1] & 0x3f) << 12 | (s[2] & 0x3f) << 6 | (s[3] & 0x3f);
}

size_t unicode_put(char *out, int32_t c); /* 1..4 bytes */

/* Canonical decomposition; returns the count. */
int unicode_decompose(int32_t c, int32_t out[UNICODE_DECOMPOSED_MAX]);
int unicode_combining_class(int32_t c);
int unicode_is_space(int32_t c); /* property White_Space */
int unicode_is_letter(int32_t c);
int unicode_is_number(int32_t c);
int unicode_is_word(int32_t c); /* what \w means in Rust's regex */

/* Full lower-case mapping without context; returns the count (only U+0130 has 2). */
int unicode_lower(int32_t c, int32_t out[UNICODE_LOWER_MAX]);

/* Append text in normal form C; ASCII stays as it is. */
void unicode_compose_text(const char *text, size_t n, struct str *out);

/* Append text in lower case as Python's str.lower() has it, final sigma included. */
void unicode_lower_text(const char *text, size_t n, struct str *out);

/* BERT's classes, code point for code point as in Hugging Face tokenizers. */
int unicode_bert_punctuation(int32_t c);
int unicode_bert_mark(int32_t c);    /* non-spacing, gone with the accents */
int unicode_bert_dropped(int32_t c); /* control, format, private use, U+0000, U+FFFD */
int unicode_bert_ideograph(int32_t c);

#endif
