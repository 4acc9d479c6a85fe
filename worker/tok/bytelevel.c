/* See bytelevel.h. */
#include "worker/tok/bytelevel.h"

#include <string.h>

#include "worker/tok/unicode.h"

static int prints(int b)
{
    return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
}

int32_t bytelevel_char(unsigned char byte)
{
    int32_t c = 256;

    if (prints(byte))
        return byte;
    for (int b = 0; b < byte; b++)
        c += !prints(b);
    return c;
}

int bytelevel_byte(int32_t c)
{
    if (c < 256)
        return c >= 0 && prints(c) ? c : -1;
    for (int b = 0; b < 256 && c < 256 + 68; b++)
        if (!prints(b) && c-- == 256)
            return b;
    return -1;
}

enum class { LETTER, NUMBER, SPACE, OTHER };

/* Class of the code point at *p, which is advanced. */
static enum class next_class(const unsigned char **p) {
    int32_t c = unicode_next(p);

    if (c < 0x80){if ((c | 32) >= 'a' && (c | 32) <= 'z') return LETTER;
                  if (c >= '0' && c <= '9') return NUMBER;
                  return c == ' ' || (c >= 9 && c <= 13) ? SPACE : OTHER;}
if (unicode_is_letter(c)) return LETTER;
if (unicode_is_number(c))
    return NUMBER;
return unicode_is_space(c) ? SPACE : OTHER;
}

/* 's 't 'm 'd 're 've 'll: bytes, or 0. */
static size_t contraction(const char *s, size_t n)
{
    if (n < 2 || s[0] != '\'')
        return 0;
    if (strchr("stmd", s[1]) && s[1])
        return 2;
    if (n < 3)
        return 0;
    return !memcmp(s + 1, "re", 2) || !memcmp(s + 1, "ve", 2) || !memcmp(s + 1, "ll", 2)
               ? 3
               : 0;
}

size_t bytelevel_word(const char *text, size_t n, size_t at)
{
    const unsigned char *start = (const unsigned char *)text + at, *p = start;
    const unsigned char *end = (const unsigned char *)text + n, *last;
    size_t short_form = contraction(text + at, n - at);
    enum class k;

    if (short_form)
        return at + short_form;
    if (*p == ' ' && p + 1 < end)
        p++;
    k = next_class(&p);
    if (k != SPACE) {
        for (last = p; p < end && next_class(&p) == k;)
            last = p;
        return at + (size_t)(last - start);
    }
    /* White space: all of it at the end of the text, else all but the last, else one. */
    for (p = last = start; p < end;) {
        const unsigned char *space = p;

        if (next_class(&p) != SPACE)
            return at + (size_t)((last > start ? last : space) - start);
        last = space;
    }
    return n;
}

/* Bytes of the piece at s that begins a code point but does not finish it; at least 1. */
static size_t broken(const unsigned char *s, size_t n)
{
    unsigned char c = s[0], lo = 0x80, hi = 0xbf;
    size_t need = c >= 0xf0 && c <= 0xf4   ? 3
                  : c >= 0xe0 && c <= 0xef ? 2
                  : c >= 0xc2 && c <= 0xdf ? 1
                                           : 0;
    size_t i = 1;

    lo = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : lo;
    hi = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : hi;
    for (; i <= need && i < n && s[i] >= lo && s[i] <= hi; i++) {
        lo = 0x80;
        hi = 0xbf;
    }
    return i;
}

void bytelevel_add_lossy(const char *s, size_t n, struct str *out)
{
    while (n) {
        size_t good = str_utf8_valid(s, n), bad;

        str_add_bytes(out, s, good);
        s += good;
        n -= good;
        if (!n)
            break;
        str_add(out, "\xef\xbf\xbd");
        bad = broken((const unsigned char *)s, n);
        s += bad;
        n -= bad;
    }
}
