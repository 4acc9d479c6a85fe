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

/* How text is cut into words: GPT-2's pattern
 *   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 * the same between digits that stand alone (SmolLM), or that of tiktoken's cl100k
 *   (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|
 *    ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
 * with up to three digits (Llama 3) or one (Qwen 2 and 3). */
enum bytelevel_cut { CUT_GPT2, CUT_DIGITS, CUT_LLAMA3, CUT_QWEN2 };

/* End of the word that begins at `at` < n. */
size_t bytelevel_word(enum bytelevel_cut cut, const char *text, size_t n, size_t at);

/* Append bytes as UTF-8, U+FFFD for each longest piece that cannot be completed. */
void bytelevel_add_lossy(const char *s, size_t n, struct str *out);

#endif
