/* BPE: text is cut into words, a word into symbols, and the adjacent pair of least rank is
 * merged (the leftmost of equals) until no pair is in the list of merges. Merges as "a b"
 * or as ["a", "b"]. Words of any length take n log n time. Two kinds of files:
 *
 * Byte-level (GPT-2 and its kin): words by a pattern (bytelevel.h), a symbol is a byte; one
 * without a token becomes the unknown token, or nothing where there is none, as in the
 * library. ignore_merges: a word that is a token is not merged together. The text may have
 * to be in normal form C first.
 *
 * Letters (SentencePiece's BPE: Llama 2, Mistral): a blank is "\u2581", one more stands
 * before the text, the text is one word and a symbol is a code point; one without a token
 * becomes the tokens of its bytes, "<0xE2>", or unknown. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "worker/tok/bytelevel.h"
#include "worker/tok/internal.h"
#include "worker/tok/unicode.h"

enum { SHORT_WORD = 48, WHOLE_WORD = 1024, NO_RANK = -1 };
static const char blank_text[] = "\xe2\x96\x81"; /* U+2581 */

struct merge {
    uint64_t pair; /* left << 32 | right */
    int32_t rank, id;
};

enum prepend { PREPEND_NEVER, PREPEND_FIRST, PREPEND_ALWAYS };

struct bpe {
    int prefix_space, unknown;
    int byte_id[256];
    enum bytelevel_cut cut;
    int compose, ignore_merges;
    int letters; /* of the second kind, */
    int blank;   /* ... its "\u2581", */
    int fuse_unknown, fallback;
    enum prepend prepend, doubles; /* doubles: also where the text begins with a blank */
    struct merge *slot;            /* rank NO_RANK: empty */
    size_t mask, n;
};

/* ---- merges -------------------------------------------------------------------------- */

static size_t place(const struct bpe *b, uint64_t pair)
{
    uint64_t h = pair * 0x9e3779b97f4a7c15ull;
    size_t at = (size_t)(h >> 32) & b->mask;

    while (b->slot[at].rank != NO_RANK && b->slot[at].pair != pair)
        at = (at + 1) & b->mask;
    return at;
}

static const struct merge *find_merge(const struct bpe *b, int left, int right)
{
    const struct merge *m =
        &b->slot[place(b, (uint64_t)(uint32_t)left << 32 | (uint32_t)right)];

    return m->rank == NO_RANK ? NULL : m;
}

static int reserve_merges(struct bpe *b, size_t n, struct err *e)
{
    size_t size = 1024;

    while (size < 2 * n)
        size *= 2;
    b->slot = mem_array(size, sizeof *b->slot);
    if (!b->slot)
        return err_set(e, ERR_NOMEM, "merges: out of memory");
    for (size_t i = 0; i < size; i++)
        b->slot[i].rank = NO_RANK;
    b->mask = size - 1;
    return 0;
}

static int add_merge(const struct tok *t, struct bpe *b, const struct str part[2],
                     struct str *whole, const struct scan *s, struct err *e)
{
    int id[3];
    struct merge *m;

    str_clear(whole);
    for (int k = 0; k < 2; k++) {
        id[k] = vocab_find(&t->vocab, &t->whole, str_get(&part[k]), part[k].len);
        str_add_bytes(whole, str_get(&part[k]), part[k].len);
    }
    if (str_failed(whole) || str_failed(&part[0]) || str_failed(&part[1]))
        return err_set(e, ERR_NOMEM, "merges: out of memory");
    id[2] = vocab_find(&t->vocab, &t->whole, str_get(whole), whole->len);
    if (id[0] < 0 || id[1] < 0 || id[2] < 0)
        return scan_fail(s, e, "merge %zu: \"%.60s\" is no token", b->n,
                         str_get(id[0] < 0   ? &part[0]
                                 : id[1] < 0 ? &part[1]
                                             : whole));
    m = &b->slot[place(b, (uint64_t)(uint32_t)id[0] << 32 | (uint32_t)id[1])];
    *m = (struct merge){(uint64_t)(uint32_t)id[0] << 32 | (uint32_t)id[1], (int32_t)b->n++,
                        id[2]};
    return 0;
}

/* "a b" or ["a", "b"] into part[0] and part[1]. */
static int read_pair(struct scan *s, struct str part[2], struct err *e)
{
    struct span text;
    const char *gap;
    int first = 1, rc;

    str_clear(&part[0]);
    str_clear(&part[1]);
    if (scan_peek(s) == '[') {
        rc = scan_open(s, '[', e);
        for (int k = 0; k < 2 && !rc; k++) {
            rc = scan_item(s, ']', &first, e);
            rc = rc == 1 ? scan_string(s, &text, e)
                 : rc    ? rc
                         : scan_fail(s, e, "a merge has two parts");
            if (!rc)
                str_add_bytes(&part[k], text.s, text.n);
        }
        if (!rc && (rc = scan_item(s, ']', &first, e)) == 1)
            rc = scan_fail(s, e, "a merge has two parts");
        return rc;
    }
    rc = scan_string(s, &text, e);
    if (rc)
        return rc;
    gap = memchr(text.s, ' ', text.n);
    if (!gap)
        return scan_fail(s, e, "\"%.60s\" is no merge of two parts", text.s);
    str_add_bytes(&part[0], text.s, (size_t)(gap - text.s));
    str_add_bytes(&part[1], gap + 1, text.n - (size_t)(gap - text.s) - 1);
    return 0;
}

static int read_merges(const struct tok *t, struct bpe *b, const struct tok_file *f,
                       struct err *e)
{
    struct str part[2] = {{0}}, whole = {0};
    struct scan s;
    int first = 1, rc;

    scan_init(&s, f->path, f->text, (size_t)(f->merges.s - f->text) + f->merges.n);
    s.i = (size_t)(f->merges.s - f->text);
    rc = scan_open(&s, '[', e);
    /* A merge takes five bytes and more: the span bounds their number. */
    if (!rc)
        rc = reserve_merges(b, f->merges.n / 5 + 1, e);
    while (!rc && (rc = scan_item(&s, ']', &first, e)) == 1) {
        rc = read_pair(&s, part, e);
        if (!rc)
            rc = add_merge(t, b, part, &whole, &s, e);
    }
    scan_fini(&s);
    str_fini(&part[0]);
    str_fini(&part[1]);
    str_fini(&whole);
    return rc;
}

/* ---- a word -------------------------------------------------------------------------- */

/* Ids of the bytes of a word; returns their number. */
static size_t bytes_of(const struct bpe *b, const char *s, size_t n, int space, int *id)
{
    size_t k = 0;

    for (size_t i = 0; i < n + (size_t)space; i++) {
        unsigned char c = (unsigned char)(space ? (i ? s[i - 1] : ' ') : s[i]);
        int x = b->byte_id[c] >= 0 ? b->byte_id[c] : b->unknown;

        if (x >= 0)
            id[k++] = x;
    }
    return k;
}

/* Few symbols: look at all pairs again after each merge. */
static size_t merge_short(const struct bpe *b, int *id, size_t n)
{
    const struct merge *m[SHORT_WORD + 1];

    for (size_t i = 0; i + 1 < n; i++)
        m[i] = find_merge(b, id[i], id[i + 1]);
    while (n > 1) {
        size_t best = n;

        for (size_t i = 0; i + 1 < n; i++)
            if (m[i] && (best == n || m[i]->rank < m[best]->rank))
                best = i;
        if (best == n)
            break;
        id[best] = m[best]->id;
        memmove(id + best + 1, id + best + 2, (n - best - 2) * sizeof *id);
        if (best + 2 < n)
            memmove(m + best, m + best + 1, (n - best - 2) * sizeof *m);
        n--;
        if (best + 1 < n)
            m[best] = find_merge(b, id[best], id[best + 1]);
        if (best)
            m[best - 1] = find_merge(b, id[best - 1], id[best]);
    }
    return n;
}

struct candidate { /* a pair that may be merged, in a binary heap */
    int32_t rank;
    uint32_t at;
    int left, right; /* what stood there: else it is out of date */
};

static int before(const struct candidate *x, const struct candidate *y)
{
    return x->rank != y->rank ? x->rank < y->rank : x->at < y->at;
}

static void push(struct candidate *heap, size_t *n, struct candidate c)
{
    size_t i = (*n)++;

    for (; i && before(&c, &heap[(i - 1) / 2]); i = (i - 1) / 2)
        heap[i] = heap[(i - 1) / 2];
    heap[i] = c;
}

static struct candidate pop(struct candidate *heap, size_t *n)
{
    struct candidate top = heap[0], c = heap[--*n];
    size_t i = 0, child;

    while ((child = 2 * i + 1) < *n) {
        if (child + 1 < *n && before(&heap[child + 1], &heap[child]))
            child++;
        if (!before(&heap[child], &c))
            break;
        heap[i] = heap[child];
        i = child;
    }
    if (*n)
        heap[i] = c;
    return top;
}

static void offer(const struct bpe *b, struct candidate *heap, size_t *n, const int *id,
                  size_t at, size_t right)
{
    const struct merge *m = find_merge(b, id[at], id[right]);

    if (m)
        push(heap, n, (struct candidate){m->rank, (uint32_t)at, id[at], id[right]});
}

/* Many symbols: a heap of pairs over a doubly linked list. Every merge removes a symbol
 * and offers two pairs, so 3 n candidates are enough. */
static size_t merge_long(const struct bpe *b, int *id, size_t n, uint32_t *next,
                         uint32_t *previous, struct candidate *heap)
{
    size_t size = 0, k = 0;

    for (size_t i = 0; i < n; i++) {
        next[i] = (uint32_t)i + 1;
        previous[i] = (uint32_t)i - 1; /* of the first: never followed */
    }
    for (size_t i = 0; i + 1 < n; i++)
        offer(b, heap, &size, id, i, i + 1);
    while (size) {
        struct candidate c = pop(heap, &size);
        uint32_t right = id[c.at] < 0 ? (uint32_t)n : next[c.at];

        if (right >= n || id[c.at] != c.left || id[right] != c.right)
            continue;
        id[c.at] = find_merge(b, c.left, c.right)->id;
        id[right] = -1; /* gone */
        next[c.at] = next[right];
        if (next[right] < n) {
            previous[next[right]] = c.at;
            offer(b, heap, &size, id, c.at, next[c.at]);
        }
        if (c.at)
            offer(b, heap, &size, id, previous[c.at], c.at);
    }
    for (size_t i = 0; i < n; i = next[i])
        id[k++] = id[i];
    return k;
}

/* Ids of the code points of a text; returns their number, n + 1 at most. */
static size_t letters_of(const struct tok *t, const char *s, size_t n, int prepend, int *id)
{
    const struct bpe *b = t->state;
    const unsigned char *p = (const unsigned char *)s, *end = p + n, *from;
    size_t k = 0;
    int unknown = 0; /* the last symbol is */

    if (prepend)
        id[k++] = b->blank;
    while ((from = p) < end) {
        int x, bytes = b->fallback;

        unicode_next(&p);
        x = *from == ' '
                ? b->blank
                : vocab_find(&t->vocab, &t->whole, (const char *)from, (size_t)(p - from));
        for (const unsigned char *c = from; x < 0 && c < p; c++)
            bytes &= b->byte_id[*c] >= 0;
        for (const unsigned char *c = from; x < 0 && bytes && c < p; c++)
            id[k++] = b->byte_id[*c];
        if (x < 0 && !bytes && b->unknown >= 0 && !(unknown && b->fuse_unknown))
            id[k++] = b->unknown;
        if (x >= 0)
            id[k++] = x;
        unknown = x < 0 && !bytes;
    }
    return k;
}

/* A word of bytes, or (space < 0) a text of letters. */
static int encode_long(const struct tok *t, const char *s, size_t n, int space, int prepend,
                       struct tok_ids *out, struct err *e)
{
    const struct bpe *b = t->state;
    size_t max = n + 1;
    int *id = mem_resize(NULL, max, sizeof *id);
    uint32_t *link = mem_resize(NULL, 2 * max, sizeof *link);
    struct candidate *heap = mem_resize(NULL, 3 * max, sizeof *heap);
    int rc = 0;

    if (!id || !link || !heap || n > UINT32_MAX / 4) {
        rc = err_set(e, ERR_NOMEM, "tokens of a text: out of memory");
    } else {
        n = space < 0 ? letters_of(t, s, n, prepend, id) : bytes_of(b, s, n, space, id);
        n = merge_long(b, id, n, link, link + max, heap);
        for (size_t i = 0; i < n && !rc; i++)
            rc = tok_push(out, id[i], e);
    }
    mem_free(id);
    mem_free(link);
    mem_free(heap);
    return rc;
}

/* The token that a whole word is, or -1. */
static int whole_word(const struct tok *t, const char *s, size_t n)
{
    char text[2 * WHOLE_WORD];
    size_t k = 0;

    if (n > WHOLE_WORD)
        return -1;
    for (size_t i = 0; i < n; i++)
        k += unicode_put(text + k, bytelevel_char((unsigned char)s[i]));
    return vocab_find(&t->vocab, &t->whole, text, k);
}

static int encode_word(const struct tok *t, const char *s, size_t n, int space,
                       struct tok_ids *out, struct err *e)
{
    const struct bpe *b = t->state;
    int id[SHORT_WORD + 1], rc = 0, whole = b->ignore_merges ? whole_word(t, s, n) : -1;

    if (whole >= 0)
        return tok_push(out, whole, e);
    if (n + (size_t)space > SHORT_WORD)
        return encode_long(t, s, n, space, 0, out, e);
    n = merge_short(b, id, bytes_of(b, s, n, space, id));
    for (size_t i = 0; i < n && !rc; i++)
        rc = tok_push(out, id[i], e);
    return rc;
}

/* ---- the kind ------------------------------------------------------------------------ */

/* A blank put before the text joins its first word, as a blank in the text would; before
 * white space it is a word, or part of one, like any other. */
static int encode_first(const struct tok *t, const char *text, size_t n, size_t *at,
                        struct tok_ids *out, struct err *e)
{
    char *copy = mem_resize(NULL, n + 1, 1);
    size_t end;
    int rc;

    if (!copy)
        return err_set(e, ERR_NOMEM, "tokens of a text: out of memory");
    copy[0] = ' ';
    memcpy(copy + 1, text, n);
    end = bytelevel_word(CUT_GPT2, copy, n + 1, 0);
    mem_free(copy);
    *at = end - 1;
    rc = encode_word(t, text, end - 1, 1, out, e);
    return rc;
}

static int encode_words(const struct tok *t, const char *text, size_t n,
                        struct tok_ids *out, struct err *e)
{
    const struct bpe *b = t->state;
    size_t at = 0;
    int rc = 0;

    if (b->prefix_space && n && text[0] != ' ')
        rc = encode_first(t, text, n, &at, out, e);
    while (at < n && !rc) {
        size_t end = bytelevel_word(b->cut, text, n, at);

        rc = encode_word(t, text + at, end - at, 0, out, e);
        at = end;
    }
    return rc;
}

static int encode(const struct tok *t, const char *text, size_t n, int first,
                  struct tok_ids *out, struct err *e)
{
    const struct bpe *b = t->state;
    int begins = text[0] == ' ' || (n >= 3 && !memcmp(text, blank_text, 3));
    struct str composed = {0};
    int rc;

    if (b->letters)
        return encode_long(t, text, n, -1,
                           (b->prepend == PREPEND_ALWAYS || (b->prepend && first)) &&
                               (b->doubles || !begins),
                           out, e);
    if (!b->compose)
        return encode_words(t, text, n, out, e);
    unicode_compose_text(text, n, &composed);
    rc = str_failed(&composed) ? err_set(e, ERR_NOMEM, "tokens of a text: out of memory")
                               : encode_words(t, str_get(&composed), composed.len, out, e);
    str_fini(&composed);
    return rc;
}

static int unsupported(const struct tok_file *f, const char *what, struct err *e)
{
    return err_set(e, ERR_UNSUPPORTED, "%s: BPE with %.80s is not supported", f->path,
                   what);
}

/* Normalizer or pre-tokenizer o of this type, with this text as a member. */
static int is_part(const json_t *o, const char *type, const char *key, const char *text)
{
    const json_t *v = key ? json_object_get(o, key) : NULL;

    if (json_is_object(v))
        v = json_object_get(v, "String") ? json_object_get(v, "String")
                                         : json_object_get(v, "Regex");
    return !strcmp(tok_part_type(o), type) &&
           (!key || (json_is_string(v) && !strcmp(json_string_value(v), text)));
}

/* Blanks as "\u2581", one more before the text: as normalizers, or as a pre-tokenizer. */
static int reads_letters(const struct tok_file *f, struct bpe *b)
{
    const json_t *two = json_object_get(f->normalizer, "normalizers");
    const json_t *scheme = json_object_get(f->pre_tokenizer, "prepend_scheme");
    const char *when = json_is_string(scheme) ? json_string_value(scheme) : "always";

    b->doubles = PREPEND_ALWAYS;
    if (!f->pre_tokenizer && json_array_size(two) == 2 &&
        is_part(json_array_get(two, 0), "Prepend", "prepend", blank_text) &&
        is_part(json_array_get(two, 1), "Replace", "pattern", " ") &&
        is_part(json_array_get(two, 1), "Replace", "content", blank_text)) {
        b->prepend = PREPEND_ALWAYS;
        return 1;
    }
    b->doubles = PREPEND_NEVER;
    if (f->normalizer || tok_part_flag(f->pre_tokenizer, "split", 1) ||
        !is_part(f->pre_tokenizer, "Metaspace", "replacement", blank_text))
        return 0;
    b->prepend = !strcmp(when, "first")   ? PREPEND_FIRST
                 : !strcmp(when, "never") ? PREPEND_NEVER
                                          : PREPEND_ALWAYS;
    return 1;
}

/* Which pattern cuts the text; 0: none that is known. */
static int reads_bytes(const struct tok_file *f, struct bpe *b)
{
    static const char cl100k[] =
        "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
        "%s| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|"
        "\\s+(?!\\S)|\\s+";
    const json_t *two = json_object_get(f->pre_tokenizer, "pretokenizers");
    const json_t *one = json_array_get(two, 0), *level = json_array_get(two, 1);
    char llama3[200], qwen2[200];
    int regex;

    if (is_part(f->pre_tokenizer, "ByteLevel", NULL, NULL)) {
        b->prefix_space = tok_part_flag(f->pre_tokenizer, "add_prefix_space", 1);
        return tok_part_flag(f->pre_tokenizer, "use_regex", 1);
    }
    if (json_array_size(two) != 2 || !is_part(level, "ByteLevel", NULL, NULL) ||
        tok_part_flag(level, "add_prefix_space", 1))
        return 0;
    regex = tok_part_flag(level, "use_regex", 1);
    b->cut = CUT_DIGITS;
    if (is_part(one, "Digits", NULL, NULL))
        return regex && tok_part_flag(one, "individual_digits", 0);
    snprintf(llama3, sizeof llama3, cl100k, "\\p{N}{1,3}");
    snprintf(qwen2, sizeof qwen2, cl100k, "\\p{N}");
    b->cut = is_part(one, "Split", "pattern", llama3) ? CUT_LLAMA3 : CUT_QWEN2;
    return !regex && !tok_part_flag(one, "invert", 0) &&
           is_part(one, "Split", "behavior", "Isolated") &&
           (b->cut == CUT_LLAMA3 || is_part(one, "Split", "pattern", qwen2));
}

static int read_parts(const struct tok_file *f, struct bpe *b, struct err *e)
{
    const char *pre = tok_part_type(f->pre_tokenizer);
    char what[80];

    b->letters = reads_letters(f, b);
    if (b->letters)
        return 0;
    b->compose = is_part(f->normalizer, "NFC", NULL, NULL);
    if (f->normalizer && !b->compose) {
        snprintf(what, sizeof what, "normalizer %.60s", tok_part_type(f->normalizer));
        return unsupported(f, what, e);
    }
    if (!reads_bytes(f, b)) {
        snprintf(what, sizeof what, "pre_tokenizer %.60s", *pre ? pre : "null");
        return unsupported(f, what, e);
    }
    return 0;
}

static int read_flags(const struct tok_file *f, struct bpe *b, struct err *e)
{
    static const char *const texts[] = {"continuing_subword_prefix", "end_of_word_suffix"};

    for (int i = 0; i < 2; i++) {
        const char *s = json_string_value(json_object_get(f->model, texts[i]));

        if (s && *s)
            return unsupported(f, texts[i], e);
    }
    b->fallback = tok_part_flag(f->model, "byte_fallback", 0);
    b->ignore_merges = tok_part_flag(f->model, "ignore_merges", 0);
    b->fuse_unknown = tok_part_flag(f->model, "fuse_unk", 0);
    if (b->fallback && !b->letters)
        return unsupported(f, "byte_fallback", e);
    if (b->ignore_merges && b->letters)
        return unsupported(f, "ignore_merges", e);
    if (json_number_value(json_object_get(f->model, "dropout")) > 0)
        return unsupported(f, "dropout", e);
    return f->merges.n ? 0 : err_set(e, ERR_CORRUPT, "%s: \"merges\" are missing", f->path);
}

static int open_bpe(struct tok *t, const struct tok_file *f, struct err *e)
{
    struct bpe *b = arena_alloc(&t->arena, sizeof *b);
    const char *unknown = json_string_value(json_object_get(f->model, "unk_token"));
    int rc;

    if (!b)
        return err_set(e, ERR_NOMEM, "BPE: out of memory");
    t->state = b;
    rc = read_parts(f, b, e);
    if (!rc)
        rc = read_flags(f, b, e);
    if (rc)
        return rc;
    b->unknown = unknown && *unknown ? tok_id(t, unknown) : -1;
    b->blank = tok_id(t, blank_text);
    if (b->letters && b->blank < 0)
        return err_set(e, ERR_CORRUPT, "%s: \"%s\" is no token", f->path, blank_text);
    for (int c = 0; c < 256; c++) {
        char text[8];
        size_t n = b->letters ? (size_t)snprintf(text, sizeof text, "<0x%02X>", c)
                              : unicode_put(text, bytelevel_char((unsigned char)c));

        b->byte_id[c] = vocab_find(&t->vocab, &t->whole, text, n);
    }
    return read_merges(t, b, f, e);
}

static void close_bpe(struct tok *t)
{
    struct bpe *b = t->state;

    if (b)
        mem_free(b->slot);
}

const struct tok_kind tok_kind_bpe = {
    .name = "BPE",
    .open = open_bpe,
    .close = close_bpe,
    .encode = encode,
};
