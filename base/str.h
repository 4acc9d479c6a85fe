/* Strings: a growable byte buffer, and the text helpers that everything needs.
 *
 * Invariant: `s` is always a NUL-terminated string once anything was added; len never
 * counts the NUL. Appending after a failed append does nothing; str_failed() tells, so
 * that a sequence of appends needs one check at its end. str_fini() is total. */
#ifndef BASE_STR_H
#define BASE_STR_H

#include <stddef.h>
#include <stdint.h>

struct str {
    char *s;
    size_t len, cap;
    int failed; /* out of memory on the way */
};

void str_add(struct str *b, const char *s);
void str_add_bytes(struct str *b, const void *p, size_t n);
void str_add_char(struct str *b, char c);
void str_addf(struct str *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void str_add_json(struct str *b, const char *s, size_t n); /* with quotes, escaped */
void str_add_html(struct str *b, const char *s);           /* & < > " ' escaped */
void str_clear(struct str *b);                             /* keeps the memory */
const char *str_get(const struct str *b);                  /* "" when nothing was added */
int str_failed(const struct str *b);
void str_fini(struct str *b);

int str_starts(const char *s, const char *prefix);
int str_ends(const char *s, const char *suffix);

/* Length of the longest valid UTF-8 prefix of p[0..n): n when all of it is valid
 * (no overlong forms, no surrogates, nothing above U+10FFFF). NUL counts as valid. */
size_t str_utf8_valid(const char *p, size_t n);

/* The name in NULL-terminated `names` nearest to `word` for "did you mean", or NULL when
 * none is near (Damerau-Levenshtein distance above 1 + length/3). */
const char *str_nearest(const char *word, const char *const *names);
int str_distance(const char *a, const char *b);

/* Whole-string numbers: 0 and *out filled, or -1 when anything is left over, out of range
 * or (double) not finite. "4x", "" and " 4" are no numbers. */
int str_to_long(const char *s, long *out);
int str_to_double(const char *s, double *out);

/* "1.2 GB", "345 MB", "12 kB"; "1:02:03", "2:05", "0.4 s". buf >= 32 bytes; returns buf. */
char *str_bytes(char *buf, size_t n, double bytes);
char *str_duration(char *buf, size_t n, double seconds);

#endif
