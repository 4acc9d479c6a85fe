/* WordPiece (BERT): normalize, split into words and punctuation, then longest match first.
 *
 * One pass over the bytes: a code point is cleaned, spaced (ideographs), decomposed,
 * stripped of accents and lower-cased, and lands in the buffer of the current word; white
 * space ends a word, punctuation is a word of its own. ASCII, nearly all there is, goes
 * through one table. A word above max_input_chars_per_word, or with a part that is not in
 * the vocabulary, is the unknown token.
 *
 * Invariant: ids equal those of Hugging Face tokenizers, of which BertNormalizer,
 * BertPreTokenizer and WordPiece are followed step by step. */
#include <string.h>

#include "base/mem.h"
#include "worker/tok/internal.h"
#include "worker/tok/unicode.h"

enum { WORD_CHARS_MAX = 1000, POINTS_MAX = UNICODE_DECOMPOSED_MAX * UNICODE_LOWER_MAX };
enum ascii { ASCII_WORD, ASCII_SPACE, ASCII_PUNCTUATION, ASCII_DROPPED };

struct wordpiece {
    int clean, ideographs, strip, lower; /* the normalizer's options */
    int normalizes;                      /* there is a normalizer */
    int unknown;
    long chars_max;
    unsigned char ascii[128]; /* enum ascii */
    char to[128];
    struct vocab_index inner; /* pieces that continue a word, without "##" */
};

struct word {
    const struct tok *t;
    const struct wordpiece *w;
    struct tok_ids *out;
    struct err *e;
    int rc;
    long chars; /* counted on beyond what is kept */
    size_t n;
    char s[(WORD_CHARS_MAX + 1) * 4];
};

static void flush_word(struct word *x)
{
    const struct vocab *v = &x->t->vocab;
    size_t before = x->out->n, at = 0;

    if (!x->chars || x->rc)
        return;
    if (x->chars > x->w->chars_max)
        at = x->n + 1;
    while (at < x->n) {
        const struct vocab_index *index = at ? &x->w->inner : &x->t->whole;
        size_t end = x->n - at > index->longest ? at + index->longest : x->n;
        int id = -1;

        for (; end > at; end--) {
            if (end < x->n && ((unsigned char)x->s[end] & 0xc0) == 0x80)
                continue;
            id = vocab_find(v, index, x->s + at, end - at);
            if (id >= 0)
                break;
        }
        if (id < 0)
            break;
        x->rc = x->rc ? x->rc : tok_push(x->out, id, x->e);
        at = end;
    }
    if (at != x->n && !x->rc) {
        x->out->n = before;
        x->rc = tok_push(x->out, x->w->unknown, x->e);
    }
    x->n = 0;
    x->chars = 0;
}

/* Marks that survive stripping keep canonical order: behind those of lower class. */
static void insert_ordered(struct word *x, const char *bytes, size_t k, int class)
{
    size_t at = x->n;

    while (at > 0) {
        size_t before = at - 1;
        const unsigned char *p;

        while (before && ((unsigned char)x->s[before] & 0xc0) == 0x80)
            before--;
        p = (const unsigned char *)x->s + before;
        if (unicode_combining_class(unicode_next(&p)) <= class)
            break;
        at = before;
    }
    memmove(x->s + at + k, x->s + at, x->n - at);
    memcpy(x->s + at, bytes, k);
}

static void add_point(struct word *x, int32_t c)
{
    char bytes[4];
    size_t k;
    int class;

    if (x->chars++ >= x->w->chars_max)
        return;
    k = unicode_put(bytes, c);
    class = x->w->strip ? unicode_combining_class(c) : 0;
    if (class)
        insert_ordered(x, bytes, k, class);
    else
        memcpy(x->s + x->n, bytes, k);
    x->n += k;
}

/* The normalizer on one code point: writes the code points that stand for it. A mark's
 * place among other marks is the caller's. */
static int normalize_point(const struct wordpiece *w, int32_t c, int32_t out[POINTS_MAX])
{
    int32_t parts[UNICODE_DECOMPOSED_MAX] = {c};
    int n = 1, k = 0;

    if (w->clean && unicode_bert_dropped(c))
        return 0;
    if (w->clean && unicode_is_space(c))
        parts[0] = ' ';
    else if (w->strip)
        n = unicode_decompose(c, parts);
    for (int i = 0; i < n; i++) {
        if (w->strip && unicode_bert_mark(parts[i]))
            continue;
        if (w->lower)
            k += unicode_lower(parts[i], out + k);
        else
            out[k++] = parts[i];
    }
    return k;
}

static void add_wide(struct word *x, int32_t c)
{
    int32_t points[POINTS_MAX];
    int alone = x->w->ideographs && unicode_bert_ideograph(c);
    int n = normalize_point(x->w, c, points);

    if (alone)
        flush_word(x);
    for (int i = 0; i < n; i++) {
        if (unicode_is_space(points[i])) {
            flush_word(x);
        } else if (unicode_bert_punctuation(points[i])) {
            flush_word(x);
            add_point(x, points[i]);
            flush_word(x);
        } else {
            add_point(x, points[i]);
        }
    }
    if (alone)
        flush_word(x);
}

static int encode(const struct tok *t, const char *text, size_t n, int first,
                  struct tok_ids *out, struct err *e)
{
    struct word x;
    const struct wordpiece *w = t->state;
    const unsigned char *p = (const unsigned char *)text, *end = p + n;

    (void)first;
    x.t = t;
    x.w = w;
    x.out = out;
    x.e = e;
    x.rc = 0;
    x.chars = 0;
    x.n = 0;
    while (p < end && !x.rc) {
        unsigned char c = *p;

        if (c >= 0x80) {
            add_wide(&x, unicode_next(&p));
            continue;
        }
        p++;
        switch (w->ascii[c]) {
        case ASCII_WORD:
            if (x.chars++ < w->chars_max)
                x.s[x.n++] = w->to[c];
            break;
        case ASCII_SPACE:
            flush_word(&x);
            break;
        case ASCII_PUNCTUATION:
            flush_word(&x);
            x.s[x.n++] = (char)c;
            x.chars = 1;
            flush_word(&x);
            break;
        default: /* dropped */
            break;
        }
    }
    flush_word(&x);
    return x.rc;
}

/* The normalizer alone, for added tokens that are looked for in its output. */
static int normalize(const struct tok *t, const char *text, size_t n, struct str *out)
{
    const struct wordpiece *w = t->state;
    const unsigned char *p = (const unsigned char *)text, *end = p + n;

    if (!w->normalizes)
        str_add_bytes(out, text, n);
    while (w->normalizes && p < end) {
        int32_t c = unicode_next(&p), points[POINTS_MAX];
        int alone = w->ideographs && unicode_bert_ideograph(c);
        int k = normalize_point(w, c, points);

        if (alone)
            str_add_char(out, ' ');
        for (int i = 0; i < k; i++) {
            char bytes[4];

            str_add_bytes(out, bytes, unicode_put(bytes, points[i]));
        }
        if (alone)
            str_add_char(out, ' ');
    }
    return 0;
}

static void fill_ascii(struct wordpiece *w)
{
    for (int c = 0; c < 128; c++) {
        int32_t lower[UNICODE_LOWER_MAX];

        unicode_lower(c, lower);
        w->to[c] = (char)(w->lower ? lower[0] : c);
        w->ascii[c] = w->clean && unicode_bert_dropped(c) ? ASCII_DROPPED
                      : unicode_is_space(c)               ? ASCII_SPACE
                      : unicode_bert_punctuation(c)       ? ASCII_PUNCTUATION
                                                          : ASCII_WORD;
    }
}

static int read_normalizer(struct wordpiece *w, const struct tok_file *f, struct err *e)
{
    const char *type = tok_part_type(f->normalizer);
    const json_t *strip;

    if (!f->normalizer)
        return 0;
    if (strcmp(type, "BertNormalizer") != 0)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: normalizer %.60s is not supported for WordPiece", f->path,
                       *type ? type : "without a type");
    strip = json_object_get(f->normalizer, "strip_accents");
    w->normalizes = 1;
    w->clean = tok_part_flag(f->normalizer, "clean_text", 1);
    w->ideographs = tok_part_flag(f->normalizer, "handle_chinese_chars", 1);
    w->lower = tok_part_flag(f->normalizer, "lowercase", 1);
    w->strip = json_is_boolean(strip) ? json_is_true(strip) : w->lower;
    return 0;
}

static int open_wordpiece(struct tok *t, const struct tok_file *f, struct err *e)
{
    struct wordpiece *w = arena_alloc(&t->arena, sizeof *w);
    const char *unknown = json_string_value(json_object_get(f->model, "unk_token"));
    const char *prefix =
        json_string_value(json_object_get(f->model, "continuing_subword_prefix"));
    const json_t *max = json_object_get(f->model, "max_input_chars_per_word");
    const char *pre = tok_part_type(f->pre_tokenizer);
    int rc;

    if (!w)
        return err_set(e, ERR_NOMEM, "WordPiece: out of memory");
    t->state = w;
    rc = read_normalizer(w, f, e);
    if (rc)
        return rc;
    if (strcmp(pre, "BertPreTokenizer") != 0)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: pre_tokenizer %.60s is not supported for WordPiece", f->path,
                       *pre ? pre : "null");
    w->unknown = tok_id(t, unknown ? unknown : "[UNK]");
    if (w->unknown < 0)
        return err_set(e, ERR_CORRUPT, "%s: the unknown token \"%.60s\" is no token",
                       f->path, unknown ? unknown : "[UNK]");
    w->chars_max = json_is_integer(max) ? (long)json_integer_value(max) : 100;
    if (w->chars_max < 1 || w->chars_max > WORD_CHARS_MAX)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: max_input_chars_per_word is %ld, must be within 1 and %d",
                       f->path, w->chars_max, WORD_CHARS_MAX);
    fill_ascii(w);
    return vocab_index(&t->vocab, prefix ? prefix : "##", &w->inner, e);
}

static void close_wordpiece(struct tok *t)
{
    struct wordpiece *w = t->state;

    if (w)
        vocab_index_fini(&w->inner);
}

const struct tok_kind tok_kind_wordpiece = {
    .name = "WordPiece",
    .open = open_wordpiece,
    .close = close_wordpiece,
    .encode = encode,
    .normalize = normalize,
};
