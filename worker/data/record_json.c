/* A short way through JSONL: the objects that nearly all lines are, read without a tree.
 *
 * Invariant: a line is taken only if it is a flat object of strings, short integers, true,
 * false and null, with at most KEYS_MAX plain and different keys; then the fields are what
 * jansson gives (tests/unit/data/test_record.c, tests/fuzz/fuzz_data.c compare the two).
 * Everything else, and every mistake, is left to jansson, which has the last word. */
#include <stdio.h>
#include <string.h>

#include "worker/data/record_internal.h"
#include "worker/tok/unicode.h"

enum { KEYS_MAX = 16, DIGITS_MAX = 18 };

struct scan {
    const char *p, *end;
    size_t decoded[FIELDS]; /* field k: offset in r->work + 1, while it may move */
};

static void skip_blanks(struct scan *x)
{
    while (x->p < x->end && (*x->p == ' ' || *x->p == '\t' || *x->p == '\r'))
        x->p++;
}

static int take(struct scan *x, char c)
{
    skip_blanks(x);
    if (x->p == x->end || *x->p != c)
        return 0;
    x->p++;
    return 1;
}

/* The inside of a string, as it stands; `escapes`: it holds backslashes. */
static int take_string(struct scan *x, const char **s, size_t *n, int *escapes)
{
    int control = 0;

    if (!take(x, '"'))
        return 0;
    *s = x->p;
    for (;;) {
        const char *quote = memchr(x->p, '"', (size_t)(x->end - x->p)), *q = quote;

        if (!quote)
            return 0;
        while (q > *s && q[-1] == '\\')
            q--;
        x->p = quote + 1;
        if ((quote - q) % 2 == 0) {
            *n = (size_t)(quote - *s);
            break;
        }
    }
    for (size_t i = 0; i < *n; i++)
        control |= (unsigned char)(*s)[i] < 0x20;
    *escapes = memchr(*s, '\\', *n) != NULL;
    return !control;
}

static int hex4(const char *s, int32_t *c)
{
    *c = 0;
    for (int i = 0; i < 4; i++) {
        char h = s[i];
        int digit = h >= '0' && h <= '9'   ? h - '0'
                    : h >= 'a' && h <= 'f' ? h - 'a' + 10
                    : h >= 'A' && h <= 'F' ? h - 'A' + 10
                                           : -1;

        if (digit < 0)
            return 0;
        *c = *c * 16 + digit;
    }
    return 1;
}

/* Undo the escapes at the end of r->work; those of surrogates and NUL are jansson's. */
static int decode(struct reader *r, const char *s, size_t n)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *end = s + n;

    while (s < end) {
        const char *slash = memchr(s, '\\', (size_t)(end - s)), *known;
        char utf8[4];
        int32_t c;

        str_add_bytes(&r->work, s, (size_t)((slash ? slash : end) - s));
        if (!slash)
            break;
        s = slash + 2; /* the quote did not belong to the slash: there is a letter */
        known = s[-1] ? strchr(from, s[-1]) : NULL;
        if (known) {
            str_add_char(&r->work, to[known - from]);
            continue;
        }
        if (s[-1] != 'u' || end - s < 4 || !hex4(s, &c) || !c ||
            (c >= 0xd800 && c < 0xe000))
            return 0;
        str_add_bytes(&r->work, utf8, unicode_put(utf8, c));
        s += 4;
    }
    return 1;
}

static int take_number(struct reader *r, struct scan *x, struct field *f)
{
    int minus = *x->p == '-';
    const char *digit = x->p + minus;
    unsigned long long value = 0; /* of one digit more than are taken */
    size_t n = 0;

    while (digit + n < x->end && digit[n] >= '0' && digit[n] <= '9' && n <= DIGITS_MAX)
        value = value * 10 + (digit[n++] - '0');
    if (!n || n > DIGITS_MAX || (n > 1 && *digit == '0'))
        return 0;
    x->p = digit + n;
    snprintf(r->number, sizeof r->number, "%lld",
             minus ? -(long long)value : (long long)value);
    *f = (struct field){VALUE_NUMBER, r->number, strlen(r->number)};
    return 1;
}

static int take_word(struct scan *x, struct field *f)
{
    static const struct {
        const char *word;
        enum field_kind kind;
    } words[] = {{"null", VALUE_ABSENT}, {"true", VALUE_OTHER}, {"false", VALUE_OTHER}};

    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        size_t n = strlen(words[i].word);

        if ((size_t)(x->end - x->p) < n || memcmp(x->p, words[i].word, n))
            continue;
        x->p += n;
        *f = (struct field){words[i].kind, "", 0};
        return 1;
    }
    return 0;
}

/* The value of `key`, to every field that it is the column of. */
static int take_value(struct reader *r, struct scan *x, const char *key, size_t key_len)
{
    struct field f = {VALUE_ABSENT, "", 0};
    size_t at = r->work.len;
    int wanted[FIELDS], any = 0, escapes = 0, ok;

    for (int k = 0; k < FIELDS; k++) {
        wanted[k] = r->column[k] && strlen(r->column[k]) == key_len &&
                    !memcmp(r->column[k], key, key_len);
        any |= wanted[k];
    }
    skip_blanks(x);
    if (x->p == x->end)
        return 0;
    if (*x->p == '"') {
        f.kind = VALUE_TEXT;
        ok = take_string(x, &f.s, &f.n, &escapes);
        if (ok && escapes) { /* also where nobody wants it: it may be wrong */
            ok = decode(r, f.s, f.n);
            f.n = r->work.len - at;
        }
    } else if (*x->p == '-' || (*x->p >= '0' && *x->p <= '9')) {
        char kept[sizeof r->number];

        memcpy(kept, r->number, sizeof kept);
        ok = take_number(r, x, &f);
        if (!any)
            memcpy(r->number, kept, sizeof kept);
    } else {
        ok = take_word(x, &f);
    }
    for (int k = 0; ok && k < FIELDS; k++)
        if (wanted[k]) {
            r->field[k] = f;
            x->decoded[k] = escapes ? at + 1 : 0;
        }
    return ok;
}

int record_flat_json(struct reader *r, const char *s, size_t n)
{
    struct scan x = {.p = s, .end = s + n};
    const char *key[KEYS_MAX];
    size_t len[KEYS_MAX], keys = 0;
    int escapes;

    str_clear(&r->work);
    for (int k = 0; k < FIELDS; k++)
        r->field[k] = (struct field){VALUE_ABSENT, "", 0};
    if (!take(&x, '{'))
        return 0;
    do {
        if (keys == KEYS_MAX || !take_string(&x, &key[keys], &len[keys], &escapes) ||
            escapes || !take(&x, ':') || !take_value(r, &x, key[keys], len[keys]))
            return 0;
        for (size_t i = 0; i < keys; i++)
            if (len[i] == len[keys] && !memcmp(key[i], key[keys], len[i]))
                return 0;
        keys++;
    } while (take(&x, ','));
    if (!take(&x, '}'))
        return 0;
    skip_blanks(&x);
    for (int k = 0; k < FIELDS; k++)
        if (x.decoded[k])
            r->field[k].s = str_get(&r->work) + x.decoded[k] - 1;
    return x.p == x.end && !str_failed(&r->work);
}
