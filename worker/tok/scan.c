/* See scan.h. */
#include "worker/tok/scan.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "worker/tok/unicode.h"

enum { DEPTH_MAX = 64, NUMBER_MAX = 40 };

void scan_init(struct scan *s, const char *name, const char *text, size_t n)
{
    *s = (struct scan){.name = name, .s = text, .n = n};
}

void scan_fini(struct scan *s)
{
    str_fini(&s->text);
}

int scan_fail(const struct scan *s, struct err *e, const char *fmt, ...)
{
    char what[256];
    long line = 1;
    va_list ap;

    for (size_t i = 0; i < s->i && i < s->n; i++)
        line += s->s[i] == '\n';
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    return err_set(e, ERR_CORRUPT, "%s:%ld: %s", s->name, line, what);
}

char scan_peek(struct scan *s)
{
    while (s->i < s->n && (s->s[s->i] == ' ' || s->s[s->i] == '\n' || s->s[s->i] == '\t' ||
                           s->s[s->i] == '\r'))
        s->i++;
    return s->i < s->n ? s->s[s->i] : 0;
}

static int expect(struct scan *s, char c, struct err *e)
{
    if (scan_peek(s) != c)
        return scan_fail(s, e, s->i < s->n ? "expected '%c'" : "ends where '%c' should be",
                         c);
    s->i++;
    return 0;
}

int scan_open(struct scan *s, char bracket, struct err *e)
{
    return expect(s, bracket, e);
}

int scan_item(struct scan *s, char closing, int *first, struct err *e)
{
    int rc;

    if (scan_peek(s) == closing) {
        s->i++;
        return 0;
    }
    rc = *first ? 0 : expect(s, ',', e);
    *first = 0;
    return rc ? rc : 1;
}

static int hex4(struct scan *s, int32_t *out)
{
    int32_t c = 0;

    if (s->n - s->i < 4)
        return -1;
    for (int k = 0; k < 4; k++) {
        char h = s->s[s->i++];

        if (h >= '0' && h <= '9')
            c = c << 4 | (h - '0');
        else if ((h | 32) >= 'a' && (h | 32) <= 'f')
            c = c << 4 | ((h | 32) - 'a' + 10);
        else
            return -1;
    }
    *out = c;
    return 0;
}

/* What follows a backslash, appended to s->text. */
static int escape(struct scan *s, struct err *e)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    char c = s->i < s->n ? s->s[s->i++] : 0, buf[4];
    const char *at = c ? strchr(from, c) : NULL;
    int32_t u, low;

    if (at) {
        str_add_char(&s->text, to[at - from]);
        return 0;
    }
    if (c != 'u' || hex4(s, &u))
        return scan_fail(s, e, "not an escape of JSON");
    if (u >= 0xd800 && u < 0xdc00) {
        if (s->n - s->i < 2 || s->s[s->i] != '\\' || s->s[s->i + 1] != 'u')
            return scan_fail(s, e, "lone surrogate");
        s->i += 2;
        if (hex4(s, &low) || low < 0xdc00 || low > 0xdfff)
            return scan_fail(s, e, "lone surrogate");
        u = 0x10000 + ((u - 0xd800) << 10) + (low - 0xdc00);
    } else if (u >= 0xdc00 && u < 0xe000) {
        return scan_fail(s, e, "lone surrogate");
    }
    if (u == 0)
        return scan_fail(s, e, "NUL within a string");
    str_add_bytes(&s->text, buf, unicode_put(buf, u));
    return 0;
}

/* The rest of a string that has escapes; s->i is at the first backslash. */
static int escaped(struct scan *s, size_t from, struct span *out, struct err *e)
{
    str_clear(&s->text);
    str_add_bytes(&s->text, s->s + from, s->i - from);
    while (s->i < s->n && s->s[s->i] != '"') {
        unsigned char c = (unsigned char)s->s[s->i++];

        if (c == '\\') {
            int rc = escape(s, e);

            if (rc)
                return rc;
        } else if (c < 32) {
            return scan_fail(s, e, "control character within a string");
        } else {
            str_add_char(&s->text, (char)c);
        }
    }
    if (s->i >= s->n)
        return scan_fail(s, e, "a string does not end");
    s->i++;
    if (str_failed(&s->text))
        return err_set(e, ERR_NOMEM, "%s: out of memory", s->name);
    *out = (struct span){str_get(&s->text), s->text.len};
    return 0;
}

int scan_string(struct scan *s, struct span *out, struct err *e)
{
    size_t from;
    int rc = expect(s, '"', e);

    if (rc)
        return rc;
    from = s->i;
    for (; s->i < s->n; s->i++) {
        unsigned char c = (unsigned char)s->s[s->i];

        if (c == '"') {
            *out = (struct span){s->s + from, s->i - from};
            s->i++;
            return 0;
        }
        if (c == '\\')
            return escaped(s, from, out, e);
        if (c < 32)
            return scan_fail(s, e, "control character within a string");
    }
    return scan_fail(s, e, "a string does not end");
}

int scan_key(struct scan *s, struct span *key, struct err *e)
{
    int rc = scan_string(s, key, e);

    return rc ? rc : expect(s, ':', e);
}

static int number(struct scan *s, char buf[NUMBER_MAX], struct err *e)
{
    size_t n = 0;

    scan_peek(s);
    while (s->i < s->n && n + 1 < NUMBER_MAX && strchr("+-.0123456789eE", s->s[s->i]) &&
           s->s[s->i])
        buf[n++] = s->s[s->i++];
    buf[n] = 0;
    return n ? 0 : scan_fail(s, e, "expected a number");
}

int scan_long(struct scan *s, long *out, struct err *e)
{
    char buf[NUMBER_MAX];
    int rc = number(s, buf, e);

    if (rc)
        return rc;
    return str_to_long(buf, out) ? scan_fail(s, e, "\"%s\" is not a whole number", buf) : 0;
}

int scan_double(struct scan *s, double *out, struct err *e)
{
    char buf[NUMBER_MAX];
    int rc = number(s, buf, e);

    if (rc)
        return rc;
    return str_to_double(buf, out) ? scan_fail(s, e, "\"%s\" is not a number", buf) : 0;
}

/* Brackets and strings alone are followed: jansson judges the rest, or nobody needs it. */
int scan_skip(struct scan *s, struct span *out, struct err *e)
{
    int depth = 0;
    size_t from;

    scan_peek(s);
    from = s->i;
    while (s->i < s->n) {
        char c = s->s[s->i];

        if (c == '"') {
            for (s->i++; s->i < s->n && s->s[s->i] != '"'; s->i++)
                if (s->s[s->i] == '\\')
                    s->i++;
            if (s->i >= s->n)
                break;
        } else if (c == '{' || c == '[') {
            if (++depth > DEPTH_MAX)
                return scan_fail(s, e, "nested deeper than %d", DEPTH_MAX);
        } else if (c == '}' || c == ']') {
            if (!depth)
                break;
            depth--;
        } else if (c == ',' && !depth) {
            break;
        }
        s->i++;
    }
    if (depth || s->i > s->n || s->i == from)
        return scan_fail(s, e, "a value does not end");
    *out = (struct span){s->s + from, s->i - from};
    return 0;
}

int scan_json(struct scan *s, json_t **out, struct err *e)
{
    struct span v;
    int rc = scan_skip(s, &v, e);

    *out = NULL;
    if (rc)
        return rc;
    rc = json_parse("value", v.s, v.n, out, e);
    if (rc == ERR_CORRUPT) {
        struct err inner = *e;

        return scan_fail(s, e, "%.200s", inner.msg);
    }
    return rc;
}

int scan_end(struct scan *s, struct err *e)
{
    return scan_peek(s) || s->i < s->n ? scan_fail(s, e, "text after the end") : 0;
}
