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

enum kind { LETTER, NUMBER, SPACE, OTHER };

static enum kind kind_of(int32_t c)
{
    if (c < 0x80) {
        if ((c | 32) >= 'a' && (c | 32) <= 'z')
            return LETTER;
        if (c >= '0' && c <= '9')
            return NUMBER;
        return c == ' ' || (c >= 9 && c <= 13) ? SPACE : OTHER;
    }
    if (unicode_is_letter(c))
        return LETTER;
    if (unicode_is_number(c))
        return NUMBER;
    return unicode_is_space(c) ? SPACE : OTHER;
}

/* Kind of the code point at *p, which is advanced. */
static enum kind next_kind(const unsigned char **p)
{
    return kind_of(unicode_next(p));
}

/* Behind at most `most` code points of a kind from p on. */
static const unsigned char *run(const unsigned char *p, const unsigned char *end,
                                enum kind k, size_t most)
{
    for (const unsigned char *q = p; most-- && q < end; p = q)
        if (next_kind(&q) != k)
            break;
    return p;
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

/* White space from `start`: all of it at the end of the text, else all but the last, else
 * one: \s+(?!\S)|\s+ */
static const unsigned char *spaces(const unsigned char *start, const unsigned char *end)
{
    const unsigned char *p = start, *last = start;

    while (p < end) {
        const unsigned char *space = p;

        if (next_kind(&p) != SPACE)
            return last > start ? last : space;
        last = space;
    }
    return end;
}

static size_t gpt2_word(const char *text, size_t n, size_t at)
{
    const unsigned char *start = (const unsigned char *)text + at, *p = start;
    const unsigned char *end = (const unsigned char *)text + n;
    size_t short_form = contraction(text + at, n - at);
    enum kind k;

    if (short_form)
        return at + short_form;
    if (*p == ' ' && p + 1 < end)
        p++;
    k = next_kind(&p);
    p = k == SPACE ? spaces(start, end) : run(p, end, k, n);
    return at + (size_t)(p - start);
}

/* Every number is a piece; what lies between two of them is cut by itself. */
static size_t digits_word(const char *text, size_t n, size_t at)
{
    const unsigned char *p = (const unsigned char *)text + at, *q = p;
    const unsigned char *end = (const unsigned char *)text + n;

    if (next_kind(&q) == NUMBER)
        return (size_t)(q - (const unsigned char *)text);
    for (p = q; q < end; p = q)
        if (next_kind(&q) == NUMBER)
            break;
    return gpt2_word(text, (size_t)(p - (const unsigned char *)text), at);
}

/* The same in either case; U+017F folds to s. */
static size_t contraction_of_any_case(const char *s, size_t n)
{
    char low[3];

    if (n >= 3 && !memcmp(s, "'\xc5\xbf", 3))
        return 3;
    for (size_t i = 0; i < 3; i++)
        low[i] = (char)(i < n && s[i] >= 'A' && s[i] <= 'Z' ? s[i] + 32 : i < n ? s[i] : 0);
    return contraction(low, n < 3 ? n : 3);
}

static int is_line_end(const unsigned char *p)
{
    return *p == '\r' || *p == '\n';
}

/* White space: up to the last line end in it, where there is one. */
static const unsigned char *lines_or_spaces(const unsigned char *start,
                                            const unsigned char *end)
{
    const unsigned char *last = NULL;

    for (const unsigned char *p = start; p < end;) {
        int line_end = is_line_end(p);

        if (next_kind(&p) != SPACE)
            break;
        last = line_end ? p : last;
    }
    return last ? last : spaces(start, end);
}

static size_t cl100k_word(const char *text, size_t n, size_t at, size_t digits)
{
    const unsigned char *start = (const unsigned char *)text + at, *p = start, *q;
    const unsigned char *end = (const unsigned char *)text + n;
    size_t short_form = contraction_of_any_case(text + at, n - at);
    enum kind k = next_kind(&p);

    if (short_form)
        return at + short_form;
    q = p;
    if (k == LETTER) {
        p = run(p, end, LETTER, n);
    } else if (k == NUMBER) {
        p = run(p, end, NUMBER, digits - 1);
    } else if (!is_line_end(start) && q < end && next_kind(&q) == LETTER) {
        p = run(q, end, LETTER, n);
    } else {
        q = p;
        if (k == SPACE && *start == ' ' && q < end && next_kind(&q) == OTHER) {
            k = OTHER;
            p = q;
        }
        if (k == OTHER)
            for (p = run(p, end, OTHER, n); p < end && is_line_end(p);)
                p++;
        else
            p = lines_or_spaces(start, end);
    }
    return at + (size_t)(p - start);
}

size_t bytelevel_word(enum bytelevel_cut cut, const char *text, size_t n, size_t at)
{
    switch (cut) {
    case CUT_DIGITS:
        return digits_word(text, n, at);
    case CUT_LLAMA3:
        return cl100k_word(text, n, at, 3);
    case CUT_QWEN2:
        return cl100k_word(text, n, at, 1);
    case CUT_GPT2:
        break;
    }
    return gpt2_word(text, n, at);
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
