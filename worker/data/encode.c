/* Token sequences of rows; see encode.h. Fails with the tokenizer's errors, ERR_NOMEM, and
 * ERR_CONFIG when max_tokens leaves no room for text. */
#include "worker/data/encode.h"

#include <limits.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"

/* A growing list of sequences. */
struct builder {
    struct sequences *out;
    size_t ids_cap, n_cap;
};

static int open_builder(struct builder *b, struct sequences *out, size_t n, int types)
{
    memset(out, 0, sizeof *out);
    b->out = out;
    b->n_cap = n;
    b->ids_cap = n * 32 + 256;
    out->ids = mem_array(b->ids_cap, sizeof *out->ids);
    out->offset = mem_array(n + 1, sizeof *out->offset);
    if (types)
        out->types = mem_array(b->ids_cap, sizeof *out->types);
    return !out->ids || !out->offset || (types && !out->types) ? -1 : 0;
}

static int reserve(struct builder *b, size_t extra)
{
    struct sequences *s = b->out;
    size_t used = s->offset[s->n], cap = b->ids_cap;
    void *p;

    if (used + extra <= cap)
        return 0;
    while (cap < used + extra)
        cap *= 2;
    if (!(p = mem_resize(s->ids, cap, sizeof *s->ids)))
        return -1;
    s->ids = p;
    if (s->types) {
        if (!(p = mem_resize(s->types, cap, sizeof *s->types)))
            return -1;
        s->types = p;
    }
    b->ids_cap = cap;
    return 0;
}

/* Append to the sequence being built; offset[n] is its end so far. Room was reserved. */
static void put(struct builder *b, const int *id, size_t n, int type)
{
    struct sequences *s = b->out;
    size_t at = s->offset[s->n];

    if (n)
        memcpy(s->ids + at, id, n * sizeof *id);
    if (s->types)
        memset(s->types + at, type, n);
    s->offset[s->n] += n;
}

static void end_sequence(struct builder *b)
{
    struct sequences *s = b->out;
    size_t begin = s->n ? s->offset[s->n - 1] : 0, len = s->offset[s->n] - begin;

    if (len > s->longest)
        s->longest = len;
    /* offset[] holds ends while building; close_builder() shifts it to starts. */
    s->n++;
    if (s->n <= b->n_cap)
        s->offset[s->n] = s->offset[s->n - 1];
}

static void close_builder(struct builder *b)
{
    struct sequences *s = b->out;

    memmove(s->offset + 1, s->offset, s->n * sizeof *s->offset);
    s->offset[0] = 0;
}

void sequences_fini(struct sequences *s)
{
    mem_free(s->ids);
    mem_free(s->types);
    mem_free(s->offset);
    memset(s, 0, sizeof *s);
}

/* How much of two texts fits into `room` tokens: the longer one is cut first, of two as
 * long the first (so does the peer). */
static int fit(size_t *a, size_t *b, size_t room)
{
    size_t over = *a + *b > room ? *a + *b - room : 0;
    size_t gap = *a > *b ? *a - *b : *b - *a, first = over < gap ? over : gap;
    size_t *longer = *a > *b ? a : b;

    if (!over)
        return 0;
    *longer -= first;
    over -= first;
    *a -= over - over / 2;
    *b -= over / 2;
    return 1;
}

static int encode_prefixed(const struct tok *t, const char *prefix, const char *text,
                           size_t len, struct str *buf, struct tok_ids *out, struct err *e)
{
    out->n = 0;
    if (!prefix || !*prefix)
        return tok_encode(t, text, len, out, e);
    str_clear(buf);
    str_addf(buf, "%s: ", prefix);
    str_add_bytes(buf, text, len);
    if (str_failed(buf))
        return err_set(e, ERR_NOMEM, "encode text: out of memory");
    return tok_encode(t, buf->s, buf->len, out, e);
}

static int out_of_memory(struct err *e)
{
    return err_set(e, ERR_NOMEM, "encode texts: out of memory");
}

static int too_short(const struct encode_spec *s, size_t special, struct err *e)
{
    err_set(e, ERR_CONFIG,
            "data.max_tokens %ld leaves no room for text beside %zu special and candidate "
            "tokens",
            s->max_tokens, special);
    return err_mend(e, "raise data.max_tokens to %zu or more", special + 8);
}

int encode_policy(struct sequences *out, const struct row *row, size_t n,
                  const struct encode_spec *s, struct err *e)
{
    struct tok_ids text[2] = {{0}};
    struct tok_frame f;
    struct builder b;
    int pair = n && row[0].text[1], r = 0;
    size_t special;

    tok_frame(s->tok, pair, &f);
    special = (size_t)(f.n_prefix + f.n_suffix + (pair ? f.n_middle : 0));
    if (open_builder(&b, out, n, pair && f.pair_type))
        r = out_of_memory(e);
    else if (s->max_tokens <= (long)special)
        r = too_short(s, special, e);
    for (size_t i = 0; !r && i < n; i++) {
        size_t a, c = 0;

        text[0].n = text[1].n = 0;
        r = tok_encode(s->tok, row[i].text[0], row[i].len[0], &text[0], e);
        if (!r && pair)
            r = tok_encode(s->tok, row[i].text[1], row[i].len[1], &text[1], e);
        if (r)
            break;
        a = text[0].n;
        c = text[1].n;
        out->truncated += (size_t)fit(&a, &c, (size_t)s->max_tokens - special);
        if (reserve(&b, a + c + special)) {
            r = out_of_memory(e);
            break;
        }
        put(&b, f.prefix, (size_t)f.n_prefix, 0);
        put(&b, text[0].id, a, 0);
        if (pair) {
            put(&b, f.middle, (size_t)f.n_middle, 0);
            put(&b, text[1].id, c, f.pair_type);
        }
        put(&b, f.suffix, (size_t)f.n_suffix, pair ? f.pair_type : 0);
        end_sequence(&b);
    }
    if (!r) {
        close_builder(&b);
        out->per_example = 1;
    } else {
        sequences_fini(out);
    }
    tok_ids_fini(&text[0]);
    tok_ids_fini(&text[1]);
    return r;
}

/* " || candidate" of every label. */
static int encode_candidates(const struct encode_spec *s, struct tok_ids *out,
                             struct err *e)
{
    struct str buf = {0};
    int r = 0;

    for (int j = 0; !r && j < s->n_candidates; j++) {
        str_clear(&buf);
        str_addf(&buf, " || %s", s->candidate[j]);
        if (str_failed(&buf))
            r = out_of_memory(e);
        else
            r = tok_encode(s->tok, buf.s, buf.len, &out[j], e);
    }
    str_fini(&buf);
    return r;
}

/* Special tokens of a reward input: prefix and suffix of a single sequence, and one
 * separator between the texts of a pair. */
static size_t reward_special(const struct encode_spec *s, int pair, struct tok_frame *f)
{
    tok_frame(s->tok, 0, f);
    return (size_t)(f->n_prefix + f->n_suffix) + (pair ? 1 : 0);
}

static size_t longest_candidate(const struct tok_ids *candidate, int K)
{
    size_t most = 0;

    for (int j = 0; j < K; j++)
        most = candidate[j].n > most ? candidate[j].n : most;
    return most;
}

static void free_candidates(struct tok_ids *candidate, int K)
{
    for (int j = 0; candidate && j < K; j++)
        tok_ids_fini(&candidate[j]);
    mem_free(candidate);
}

/* The K sequences of one row; its texts are encoded already. */
static int put_reward(struct builder *b, const struct tok_frame *f, int sep,
                      const struct tok_ids text[2], size_t a, size_t c, int pair,
                      const struct tok_ids *candidate, int K)
{
    for (int j = 0; j < K; j++) {
        if (reserve(b, a + c + candidate[j].n + 16))
            return -1;
        put(b, f->prefix, (size_t)f->n_prefix, 0);
        put(b, text[0].id, a, 0);
        if (pair) {
            put(b, &sep, 1, 0);
            put(b, text[1].id, c, 0);
        }
        put(b, candidate[j].id, candidate[j].n, 0);
        put(b, f->suffix, (size_t)f->n_suffix, 0);
        end_sequence(b);
    }
    return 0;
}

int encode_reward(struct sequences *out, const struct row *row, size_t n,
                  const struct encode_spec *s, struct err *e)
{
    int K = s->n_candidates, pair = n && row[0].text[1], r = 0;
    struct tok_ids *candidate = mem_array((size_t)K, sizeof *candidate);
    struct tok_ids text[2] = {{0}};
    struct str buf = {0};
    struct tok_frame f;
    struct builder b = {0};
    size_t special = reward_special(s, pair, &f);

    if (!candidate || open_builder(&b, out, n * (size_t)K, 0))
        r = out_of_memory(e);
    if (!r && !(r = encode_candidates(s, candidate, e))) {
        special += longest_candidate(candidate, K);
        if (s->max_tokens <= (long)special)
            r = too_short(s, special, e);
    }
    for (size_t i = 0; !r && i < n; i++) {
        size_t a, c;

        r = encode_prefixed(s->tok, s->prefix, row[i].text[0], row[i].len[0], &buf,
                            &text[0], e);
        if (!r && pair)
            r = encode_prefixed(s->tok, s->prefix, row[i].text[1], row[i].len[1], &buf,
                                &text[1], e);
        if (r)
            break;
        a = text[0].n;
        c = text[1].n;
        if (fit(&a, &c, (size_t)s->max_tokens - special))
            out->truncated += (size_t)K;
        if (put_reward(&b, &f, tok_sep(s->tok), text, a, c, pair, candidate, K))
            r = out_of_memory(e);
    }
    if (!r) {
        close_builder(&b);
        out->per_example = (size_t)K;
    } else {
        sequences_fini(out);
    }
    free_candidates(candidate, K);
    tok_ids_fini(&text[0]);
    tok_ids_fini(&text[1]);
    str_fini(&buf);
    return r;
}

long encode_reward_special(const struct encode_spec *s, int pairs, struct err *e)
{
    struct tok_ids *candidate = mem_array((size_t)s->n_candidates, sizeof *candidate);
    struct tok_frame f;
    long n;
    int r;

    if (!candidate)
        return out_of_memory(e);
    r = encode_candidates(s, candidate, e);
    n = (long)(reward_special(s, pairs, &f) +
               longest_candidate(candidate, s->n_candidates));
    free_candidates(candidate, s->n_candidates);
    return r ? r : n;
}

long encode_least_tokens(const struct encode_spec *s, int pairs, struct err *e)
{
    struct tok_ids prefix = {0};
    struct str buf = {0};
    struct tok_frame f;
    long least;

    if (!s->n_candidates) {
        tok_frame(s->tok, pairs, &f);
        return f.n_prefix + f.n_suffix + (pairs ? f.n_middle : 0) + 1;
    }
    least = encode_reward_special(s, pairs, e);
    if (least >= 0) {
        int r = encode_prefixed(s->tok, s->prefix, "", 0, &buf, &prefix, e);

        least = r ? r : least + (1 + (pairs != 0)) * ((long)prefix.n + 1);
    }
    tok_ids_fini(&prefix);
    str_fini(&buf);
    return least;
}
