/* GPT-2's byte-level alphabet and its way of cutting text into words.
 *
 * Every byte stands as one printable character in the vocabulary (Radford et al. 2019,
 * encoder.py: bytes that print stand for themselves, the others for U+0100 and up). */
#ifndef WORKER_TOK_BYTELEVEL_H
#define WORKER_TOK_BYTELEVEL_H

#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

int32_t bytelevel_char(unsigned char byte);
int bytelevel_byte(int32_t c); /* -1: not of the alphabet */

/* End of the word that begins at `at` < n, by the pattern
 * 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
size_t bytelevel_word(const char *text, size_t n, size_t at);

/* Append bytes as UTF-8, U+FFFD for each longest piece that cannot be completed. */
void bytelevel_add_lossy(const char *s, size_t n, struct str *out);

#endif
