#include "base/str.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

static int reserve(struct str *b, size_t extra)
{
    size_t cap = b->cap ? b->cap : 64;
    char *p;

    if (b->failed)
        return -1;
    while (cap - b->len <= extra) {
        if (cap > SIZE_MAX / 2) {
            b->failed = 1;
            return -1;
        }
        cap *= 2;
    }
    if (cap == b->cap)
        return 0;
    p = mem_resize(b->s, cap, 1);
    if (!p) {
        b->failed = 1;
        return -1;
    }
    b->s = p;
    b->cap = cap;
    return 0;
}

void str_add_bytes(struct str *b, const void *p, size_t n)
{
    if (reserve(b, n))
        return;
    if (n)
        memcpy(b->s + b->len, p, n);
    b->len += n;
    b->s[b->len] = '\0';
}

void str_add(struct str *b, const char *s)
{
    str_add_bytes(b, s, strlen(s));
}

void str_add_char(struct str *b, char c)
{
    str_add_bytes(b, &c, 1);
}

void str_addf(struct str *b, const char *fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0 || reserve(b, (size_t)n))
        return;
    va_start(ap, fmt);
    vsnprintf(b->s + b->len, (size_t)n + 1, fmt, ap);
    va_end(ap);
    b->len += (size_t)n;
}

void str_add_json(struct str *b, const char *s, size_t n)
{
    str_add_char(b, '"');
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];

        if (c == '"' || c == '\\')
            str_addf(b, "\\%c", c);
        else if (c == '\n')
            str_add(b, "\\n");
        else if (c == '\t')
            str_add(b, "\\t");
        else if (c < 0x20)
            str_addf(b, "\\u%04x", c);
        else
            str_add_char(b, (char)c);
    }
    str_add_char(b, '"');
}

void str_add_html(struct str *b, const char *s)
{
    for (; *s; s++) {
        switch (*s) {
        case '&':
            str_add(b, "&amp;");
            break;
        case '<':
            str_add(b, "&lt;");
            break;
        case '>':
            str_add(b, "&gt;");
            break;
        case '"':
            str_add(b, "&quot;");
            break;
        case '\'':
            str_add(b, "&#39;");
            break;
        default:
            str_add_char(b, *s);
        }
    }
}

void str_clear(struct str *b)
{
    b->len = 0;
    b->failed = 0;
    if (b->s)
        b->s[0] = '\0';
}

const char *str_get(const struct str *b)
{
    return b->s ? b->s : "";
}

int str_failed(const struct str *b)
{
    return b->failed;
}

void str_fini(struct str *b)
{
    mem_free(b->s);
    memset(b, 0, sizeof *b);
}

int str_starts(const char *s, const char *prefix)
{
    return !strncmp(s, prefix, strlen(prefix));
}

int str_ends(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);

    return n >= m && !memcmp(s + n - m, suffix, m);
}

/* Length of the valid sequence at p, or 0. */
static size_t utf8_one(const unsigned char *p, size_t n)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t len = p[0] < 0x80   ? 1
                 : p[0] < 0xc2 ? 0
                 : p[0] < 0xe0 ? 2
                 : p[0] < 0xf0 ? 3
                 : p[0] < 0xf5 ? 4
                               : 0;
    uint32_t c;

    if (len == 0 || len > n)
        return 0;
    if (len == 1)
        return 1;
    c = p[0] & (0x7fu >> len);
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (p[i] & 0x3f);
    }
    if (c < least[len] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
        return 0;
    return len;
}

size_t str_utf8_valid(const char *p, size_t n)
{
    size_t i = 0;

    while (i < n) {
        uint64_t eight;
        size_t len;

        if (n - i >= sizeof eight) { /* most text is ASCII */
            memcpy(&eight, p + i, sizeof eight);
            if (!(eight & 0x8080808080808080u)) {
                i += sizeof eight;
                continue;
            }
        }
        len = utf8_one((const unsigned char *)p + i, n - i);

        if (!len)
            break;
        i += len;
    }
    return i;
}

int str_distance(const char *a, const char *b)
{
    enum { MAX = 64 };
    int prev2[MAX + 1], prev[MAX + 1], row[MAX + 1];
    size_t n = strlen(a), m = strlen(b);

    if (n > MAX || m > MAX)
        return MAX;
    for (size_t j = 0; j <= m; j++)
        prev[j] = (int)j;
    for (size_t i = 1; i <= n; i++) {
        row[0] = (int)i;
        for (size_t j = 1; j <= m; j++) {
            int best = prev[j - 1] + (a[i - 1] != b[j - 1]);

            best = best < prev[j] + 1 ? best : prev[j] + 1;
            best = best < row[j - 1] + 1 ? best : row[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                best > prev2[j - 2] + 1)
                best = prev2[j - 2] + 1;
            row[j] = best;
        }
        memcpy(prev2, prev, sizeof prev);
        memcpy(prev, row, sizeof row);
    }
    return prev[m];
}

const char *str_nearest(const char *word, const char *const *names)
{
    const char *best = NULL;
    int least = 1 + (int)strlen(word) / 3;

    for (; *names; names++) {
        int d = str_distance(word, *names);

        if (d <= least && (!best || d < least)) {
            least = d;
            best = *names;
        }
    }
    return best;
}

int str_to_long(const char *s, long *out)
{
    char *end;
    long x;

    if (!(*s == '-' || *s == '+' || (*s >= '0' && *s <= '9')))
        return -1;
    errno = 0;
    x = strtol(s, &end, 10);
    if (end == s || *end || errno)
        return -1;
    *out = x;
    return 0;
}

int str_to_double(const char *s, double *out)
{
    char *end;
    double x;

    if (!*s || strspn(s, "+-0123456789.eE") != strlen(s))
        return -1;
    x = strtod(s, &end);
    if (end == s || *end || !isfinite(x))
        return -1;
    *out = x;
    return 0;
}

char *str_bytes(char *buf, size_t n, double bytes)
{
    static const char *const unit[] = {"B", "kB", "MB", "GB", "TB"};
    int i = 0;

    while (bytes >= 1000 && i < 4) {
        bytes /= 1000;
        i++;
    }
    snprintf(buf, n, bytes < 10 && i ? "%.1f %s" : "%.0f %s", bytes, unit[i]);
    return buf;
}

char *str_duration(char *buf, size_t n, double seconds)
{
    long s = (long)(seconds + 0.5);

    if (seconds < 10)
        snprintf(buf, n, "%.1f s", seconds);
    else if (s < 3600)
        snprintf(buf, n, "%ld:%02ld", s / 60, s % 60);
    else
        snprintf(buf, n, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    return buf;
}
