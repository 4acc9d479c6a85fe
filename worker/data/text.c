/* See text.h. */
#include "worker/data/text.h"

#include <stdint.h>
#include <string.h>

#include "base/hash.h"
#include "worker/tok/unicode.h"

enum { NAME_MAX_CHARS = 32 };

/* What the numbers 0x80..0x9f mean: Windows-1252, where it has something. */
static const uint16_t windows[32] = {
    0x20ac, 0x81,   0x201a, 0x192,  0x201e, 0x2026, 0x2020, 0x2021, 0x2c6,  0x2030, 0x160,
    0x2039, 0x152,  0x8d,   0x17d,  0x8f,   0x90,   0x2018, 0x2019, 0x201c, 0x201d, 0x2022,
    0x2013, 0x2014, 0x2dc,  0x2122, 0x161,  0x203a, 0x153,  0x9d,   0x17e,  0x178,
};

static void add_point(struct str *out, int32_t c)
{
    char buf[4];

    str_add_bytes(out, buf, unicode_put(buf, c));
}

/* A number that stands for nothing gives nothing; one beyond Unicode U+FFFD. */
static void add_number(struct str *out, int32_t c)
{
    if (c == 0 || (c >= 0xd800 && c < 0xe000) || c > 0x10ffff)
        add_point(out, 0xfffd);
    else if (c >= 0x80 && c < 0xa0)
        add_point(out, windows[c - 0x80]);
    else if ((c < 32 && c != '\t' && c != '\n' && c != '\f' && c != '\r') || c == 127 ||
             (c >= 0xfdd0 && c <= 0xfdef) || (c & 0xfffe) == 0xfffe)
        return;
    else
        add_point(out, c);
}

static int digit(char c, int base)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (base == 16 && (c | 32) >= 'a' && (c | 32) <= 'f')
        return (c | 32) - 'a' + 10;
    return -1;
}

/* "#123;" or "#x1f;" at s: bytes eaten, 0: no reference. */
static size_t numeric(const char *s, size_t n, struct str *out)
{
    int base = n > 1 && (s[1] | 32) == 'x' ? 16 : 10;
    size_t i = base == 16 ? 2 : 1, from = i;
    int32_t c = 0;

    for (; i < n && digit(s[i], base) >= 0; i++)
        if (c <= 0x10ffff)
            c = c * base + digit(s[i], base);
    if (i == from)
        return 0;
    add_number(out, c);
    return i < n && s[i] == ';' ? i + 1 : i;
}

/* A name at s, up to 32 characters: bytes eaten. Without an exact hit the longest name
 * that may go without a semicolon counts, and the rest stays. */
static size_t named(const char *s, size_t n, struct str *out)
{
    size_t len = 0, value_len;
    int chars = 0;
    const char *value;

    for (; len < n && chars < NAME_MAX_CHARS && !strchr("\t\n\f <&#;", s[len]); chars++)
        do
            len++;
        while (len < n && ((unsigned char)s[len] & 0xc0) == 0x80);
    if (!len)
        return 0;
    if (len < n && s[len] == ';')
        len++;
    value = text_entity(s, len, &value_len);
    if (value) {
        str_add_bytes(out, value, value_len);
        return len;
    }
    for (size_t k = len - 1; k > 1; k--) {
        value = text_entity(s, k, &value_len);
        if (value) {
            str_add_bytes(out, value, value_len);
            return k;
        }
    }
    return 0;
}

void text_unescape(const char *s, size_t n, struct str *out)
{
    size_t i = 0;

    while (i < n) {
        const char *amp = memchr(s + i, '&', n - i);
        size_t plain = amp ? (size_t)(amp - s) - i : n - i, eaten;

        str_add_bytes(out, s + i, plain);
        i += plain;
        if (!amp)
            break;
        i++;
        eaten =
            i < n && s[i] == '#' ? numeric(s + i, n - i, out) : named(s + i, n - i, out);
        if (!eaten)
            str_add_char(out, '&');
        i += eaten;
    }
}

/* Python's str.isspace: White_Space and the four separators of ASCII. */
static int is_space(int32_t c)
{
    return unicode_is_space(c) || (c >= 0x1c && c <= 0x1f);
}

void text_squeeze(const char *s, size_t n, struct str *out)
{
    const unsigned char *p = (const unsigned char *)s, *end = p + n;
    size_t begin = out->len;

    while (p < end) {
        const unsigned char *word = p, *after = p;

        while (p < end && !is_space(unicode_next(&p)))
            after = p;
        if (after > word) {
            if (out->len > begin)
                str_add_char(out, ' ');
            str_add_bytes(out, word, (size_t)(after - word));
        }
    }
}

int text_key(const char *const text[2], const size_t len[2], struct str *work,
             unsigned char key[TEXT_KEY])
{
    str_clear(work);
    unicode_lower_text(text[0], len[0], work);
    if (text[1]) {
        str_add_char(work, '\0');
        unicode_lower_text(text[1], len[1], work);
    }
    if (str_failed(work))
        return -1;
    hash_sha256(str_get(work), work->len, key);
    return 0;
}

double text_share(const unsigned char *key)
{
    uint64_t u = 0;

    for (int i = 0; i < 8; i++)
        u = u << 8 | key[i];
    return (double)u / 18446744073709551616.0;
}
