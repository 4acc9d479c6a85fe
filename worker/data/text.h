/* Cleaning of texts, and the key by which rows are split, ordered and told apart.
 *
 * clean: html undoes character references as HTML5 says (and Python's html.unescape does);
 * space turns runs of white space (Unicode's, as Python's str.split() sees it) into one
 * blank and strips both ends. The key is SHA-256 of the cleaned text in lower case; for a
 * pair, of both texts with a NUL between. Input is valid UTF-8 without NUL; so is what
 * comes out. Appending never fails by itself: str_failed() tells. */
#ifndef WORKER_DATA_TEXT_H
#define WORKER_DATA_TEXT_H

#include <stddef.h>

#include "base/str.h"

enum { TEXT_KEY = 32 };

void text_unescape(const char *s, size_t n, struct str *out);
void text_squeeze(const char *s, size_t n, struct str *out);

/* text[1] may be NULL. `work` is scratch. 0, or -1: out of memory. */
int text_key(const char *const text[2], const size_t len[2], struct str *work,
             unsigned char key[TEXT_KEY]);
/* The key's first 8 bytes, big-endian, divided by 2^64: within [0, 1). */
double text_share(const unsigned char *key);

/* The value of a named reference ("amp;"), *len bytes of UTF-8; NULL: none. */
const char *text_entity(const char *name, size_t n, size_t *len);

#endif
