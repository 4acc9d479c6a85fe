/* Token sequences of rows; see encode.h. Fails with the tokenizer's errors, ERR_NOMEM,
 * ERR_IO (no room for the ids), and ERR_CONFIG when max_tokens leaves no room for text.
 *
 * Texts are tokenized in blocks of rows by several threads; a thread waits for its block's
 * turn before it adds the ids to the store, so that every byte, and the error that counts,
 * is the same for every number of threads. */
#include "worker/data/encode.h"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"

enum { BLOCK_ROWS = 128, THREADS_MAX = 32 };

/* What stands around the texts, and their ids: one example after another, cut to what
 * fits; before those of a pair, how many belong to the first text. */
struct encoded {
    struct store text;
    int pair;
    int middle_type, second_type; /* token types; second: also of what follows */
    int head[4], n_head, middle[4], n_middle;
    struct tok_ids *tail; /* (S) */
    size_t S, fixed;      /* tokens of an example, over its S sequences, beside texts */
};

static void encoded_free(struct encoded *x)
{
    if (!x)
        return;
    for (size_t j = 0; j < x->S && x->tail; j++)
        tok_ids_fini(&x->tail[j]);
    mem_free(x->tail);
    store_fini(&x->text);
    mem_free(x);
}

void sequences_fini(struct sequences *s)
{
    mem_free(s->ids);
    mem_free(s->types);
    mem_free(s->offset);
    mem_free(s->answer);
    encoded_free(s->encoded);
    memset(s, 0, sizeof *s);
}

size_t sequences_bytes(const struct sequences *s)
{
    size_t plain = s->ids ? s->offset[s->n] * (sizeof *s->ids + (s->types != NULL)) : 0;

    return (s->n + 1) * sizeof *s->offset + (s->answer ? s->n * sizeof *s->answer : 0) +
           plain + (s->encoded ? s->encoded->text.cap : 0);
}

/* ---- reading ------------------------------------------------------------------------- */

/* Text tokens of example i, and where they begin in the store. */
static size_t text_of(const struct sequences *s, size_t i, size_t *at)
{
    const struct encoded *x = s->encoded;
    const size_t *offset = s->offset + i * x->S;

    *at = (offset[0] - i * x->fixed) / x->S + (x->pair ? i : 0);
    return (offset[x->S] - offset[0] - x->fixed) / x->S;
}

struct place {
    int *ids, *types;
};

static void put(struct place *to, const int *id, size_t n, int type)
{
    if (n)
        memcpy(to->ids, id, n * sizeof *id);
    to->ids += n;
    if (!to->types)
        return;
    for (size_t i = 0; i < n; i++)
        *to->types++ = type;
}

int sequences_read(const struct sequences *s, size_t i, struct store_buf *buf, int *ids,
                   int *types, struct err *e)
{
    const struct encoded *x = s->encoded;
    struct place to = {ids, types};
    const struct tok_ids *tail;
    const int *text;
    size_t at, n, first;

    if (!x) {
        n = s->offset[i + 1] - s->offset[i];
        put(&to, s->ids + s->offset[i], n, 0);
        for (size_t k = 0; k < n && types && s->types; k++)
            types[k] = s->types[s->offset[i] + k];
        return 0;
    }
    n = text_of(s, i / x->S, &at);
    text = store_get(&x->text, at * sizeof *text, (n + (size_t)x->pair) * sizeof *text, buf,
                     e);
    if (!text)
        return e->code;
    first = x->pair ? (size_t)*text++ : n;
    tail = &x->tail[i % x->S];
    put(&to, x->head, (size_t)x->n_head, 0);
    put(&to, text, first, 0);
    if (x->pair) {
        put(&to, x->middle, (size_t)x->n_middle, x->middle_type);
        put(&to, text + first, n - first, x->second_type);
    }
    put(&to, tail->id, tail->n, x->second_type);
    return 0;
}

/* ---- texts --------------------------------------------------------------------------- */

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

/* The same for a prompt and its response, which keeps all that fits beside one token of the
 * prompt: the prompt loses its beginning, so that it still ends where the response begins;
 * *cut tokens of it. */
static int fit_answer(size_t *prompt, size_t *response, size_t room, size_t *cut)
{
    size_t most = room - (*prompt > 0), before = *prompt + *response;

    *response = *response < most ? *response : most;
    *cut = *prompt + *response > room ? *prompt + *response - room : 0;
    *prompt -= *cut;
    return *prompt + *response < before;
}

static int encode_templated(const struct tok *t, const char *template, const char *text,
                            size_t len, struct str *buf, struct tok_ids *out, struct err *e)
{
    const char *hole = template ? strstr(template, "{prompt}") : NULL;

    out->n = 0;
    if (!hole)
        return tok_encode(t, text, len, out, e);
    str_clear(buf);
    str_add_bytes(buf, template, (size_t)(hole - template));
    str_add_bytes(buf, text, len);
    str_add(buf, hole + strlen("{prompt}"));
    if (str_failed(buf))
        return err_set(e, ERR_NOMEM, "encode text: out of memory");
    return tok_encode(t, buf->s, buf->len, out, e);
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

/* ---- blocks of rows ------------------------------------------------------------------ */

struct encoding {
    const struct encode_spec *spec;
    const char *prefix;        /* of every text, or NULL */
    const struct row *row;     /* rows themselves, */
    const struct dataset *set; /* or of a data set, */
    const uint32_t *pick;      /* these; NULL: all */
    size_t n, room;            /* examples; tokens for their texts */
    struct sequences *out;
    atomic_size_t next; /* block that nobody has taken */
    pthread_mutex_t lock;
    pthread_cond_t moved;
    size_t turn; /* block that may add its ids; under the lock, as is what follows */
    int rc;
    struct err err;
};

/* What one thread holds. */
struct work {
    struct tok_ids text[2];
    struct str prefixed;
    struct store_buf row;
    int *ids; /* of the block */
    size_t n, cap;
    size_t truncated, longest;
};

static void work_fini(struct work *w)
{
    tok_ids_fini(&w->text[0]);
    tok_ids_fini(&w->text[1]);
    str_fini(&w->prefixed);
    store_buf_fini(&w->row);
    mem_free(w->ids);
}

static int add_ids(struct work *w, const int *id, size_t n, struct err *e)
{
    if (w->n + n > w->cap) {
        size_t cap = 2 * w->cap > w->n + n ? 2 * w->cap : w->n + n + 4096;
        int *p = mem_resize(w->ids, cap, sizeof *p);

        if (!p)
            return out_of_memory(e);
        w->ids = p;
        w->cap = cap;
    }
    if (n)
        memcpy(w->ids + w->n, id, n * sizeof *id);
    w->n += n;
    return 0;
}

static int encode_text(const struct encoding *g, const struct row *row, int k,
                       struct work *w, struct err *e)
{
    const struct encode_spec *s = g->spec;
    int r;

    if (!s->answers)
        return encode_prefixed(s->tok, g->prefix, row->text[k], row->len[k], &w->prefixed,
                               &w->text[k], e);
    r = encode_templated(s->tok, k ? NULL : s->template, row->text[k], row->len[k],
                         &w->prefixed, &w->text[k], e);
    return r || !k ? r : tok_push(&w->text[k], s->eos, e);
}

/* Example i: its ids to the block, the lengths of its sequences to offset[]. */
static int encode_example(struct encoding *g, size_t i, struct work *w, struct err *e)
{
    const struct encoded *x = g->out->encoded;
    size_t n[2] = {0, 0}, number = g->pick ? g->pick[i] : i;
    size_t cut = 0;
    struct row row;
    int count, r = 0;

    if (g->row)
        row = g->row[number];
    else
        r = dataset_get(g->set, number, &w->row, &row, e);
    for (int k = 0; !r && k <= x->pair; k++) {
        r = encode_text(g, &row, k, w, e);
        n[k] = w->text[k].n;
    }
    if (r)
        return r;
    if (g->spec->answers ? fit_answer(&n[0], &n[1], g->room, &cut)
                         : fit(&n[0], &n[1], g->room))
        w->truncated += x->S;
    if (g->spec->answers)
        g->out->answer[i] = x->n_head + n[0] ? (int)((size_t)x->n_head + n[0]) : 1;
    count = (int)n[0];
    if (x->pair)
        r = add_ids(w, &count, 1, e);
    for (int k = 0; !r && k <= x->pair; k++)
        r = add_ids(w, w->text[k].id + (k ? 0 : cut), n[k], e);
    for (size_t j = 0; j < x->S; j++) {
        size_t len = (size_t)x->n_head + n[0] + n[1] + x->tail[j].n +
                     (x->pair ? (size_t)x->n_middle : 0);

        g->out->offset[i * x->S + j + 1] = len;
        w->longest = len > w->longest ? len : w->longest;
    }
    return r;
}

/* Blocks in turn until there are none, or one has failed. */
static void *encode_blocks(void *arg)
{
    struct encoding *g = arg;
    struct work w = {.n = 0};
    size_t b, blocks = (g->n + BLOCK_ROWS - 1) / BLOCK_ROWS;
    int going = 1;

    while (going && (b = atomic_fetch_add(&g->next, 1)) < blocks) {
        size_t end = (b + 1) * BLOCK_ROWS < g->n ? (b + 1) * BLOCK_ROWS : g->n;
        struct err e;
        int r = 0;

        w.n = 0;
        for (size_t i = b * BLOCK_ROWS; !r && i < end; i++)
            r = encode_example(g, i, &w, &e);
        pthread_mutex_lock(&g->lock);
        while (g->turn != b && !g->rc)
            pthread_cond_wait(&g->moved, &g->lock);
        if (!r && !g->rc)
            r = store_add(&g->out->encoded->text, w.ids, w.n * sizeof *w.ids, &e);
        if (r && !g->rc) {
            g->rc = r;
            g->err = e;
        }
        g->turn++;
        going = !g->rc;
        pthread_cond_broadcast(&g->moved);
        pthread_mutex_unlock(&g->lock);
    }
    pthread_mutex_lock(&g->lock);
    g->out->truncated += w.truncated;
    if (w.longest > g->out->longest)
        g->out->longest = w.longest;
    pthread_mutex_unlock(&g->lock);
    work_fini(&w);
    return NULL;
}

static int encode_all(struct encoding *g, struct err *e)
{
    size_t blocks = (g->n + BLOCK_ROWS - 1) / BLOCK_ROWS;
    size_t wanted = g->spec->threads > 1 ? (size_t)g->spec->threads : 1;
    pthread_t thread[THREADS_MAX];
    size_t *offset = g->out->offset, started = 0;

    wanted = wanted < blocks ? wanted : blocks;
    wanted = wanted < THREADS_MAX ? wanted : THREADS_MAX;
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->moved, NULL);
    /* A thread that cannot be had leaves its share to the others. */
    while (started + 1 < wanted &&
           !pthread_create(&thread[started], NULL, encode_blocks, g))
        started++;
    encode_blocks(g);
    for (size_t i = 0; i < started; i++)
        pthread_join(thread[i], NULL);
    pthread_cond_destroy(&g->moved);
    pthread_mutex_destroy(&g->lock);
    if (g->rc) {
        *e = g->err;
        return g->rc;
    }
    for (size_t i = 0; i < g->out->n; i++)
        offset[i + 1] += offset[i];
    return store_flush(&g->out->encoded->text, e);
}

/* ---- what stands around the texts ---------------------------------------------------- */

static int push_all(struct tok_ids *to, const int *id, size_t n, struct err *e)
{
    int r = 0;

    for (size_t i = 0; !r && i < n; i++)
        r = tok_push(to, id[i], e);
    return r;
}

static int open_encoded(struct sequences *out, size_t n, size_t S, int pair, struct err *e)
{
    struct encoded *x = mem_alloc(sizeof *x);

    memset(out, 0, sizeof *out);
    out->encoded = x;
    out->per_example = S;
    out->n = n * S;
    if (!x || n > SIZE_MAX / S / 2)
        return out_of_memory(e);
    x->S = S;
    x->pair = pair;
    x->tail = mem_array(S, sizeof *x->tail);
    out->offset = mem_array(out->n + 1, sizeof *out->offset);
    return x->tail && out->offset ? 0 : out_of_memory(e);
}

static int frame_policy(struct encoding *g, struct err *e)
{
    struct encoded *x = g->out->encoded;
    struct tok_frame f;
    size_t special;

    tok_frame(g->spec->tok, x->pair, &f);
    special = (size_t)(f.n_prefix + f.n_suffix + (x->pair ? f.n_middle : 0));
    if (g->spec->max_tokens <= (long)special)
        return too_short(g->spec, special, e);
    memcpy(x->head, f.prefix, sizeof x->head);
    memcpy(x->middle, f.middle, sizeof x->middle);
    x->n_head = f.n_prefix;
    x->n_middle = f.n_middle;
    x->middle_type = f.middle_type;
    x->second_type = x->pair ? f.pair_type : 0;
    x->fixed = special;
    g->room = (size_t)g->spec->max_tokens - special;
    return push_all(&x->tail[0], f.suffix, (size_t)f.n_suffix, e);
}

static int frame_answer(struct encoding *g, struct err *e)
{
    struct encoded *x = g->out->encoded;
    struct tok_frame f;

    tok_frame(g->spec->tok, 0, &f);
    if (g->spec->max_tokens < f.n_prefix + 2)
        return too_short(g->spec, (size_t)f.n_prefix, e);
    memcpy(x->head, f.prefix, sizeof x->head);
    x->n_head = f.n_prefix;
    x->fixed = (size_t)f.n_prefix;
    g->room = (size_t)(g->spec->max_tokens - f.n_prefix);
    g->out->answer = mem_array(g->n + 1, sizeof *g->out->answer);
    return g->out->answer ? 0 : out_of_memory(e);
}

static int frame_reward(struct encoding *g, struct err *e)
{
    const struct encode_spec *s = g->spec;
    struct encoded *x = g->out->encoded;
    struct tok_frame f;
    size_t special = reward_special(s, x->pair, &f), longest;
    int r = encode_candidates(s, x->tail, e);

    if (r)
        return r;
    longest = longest_candidate(x->tail, s->n_candidates);
    if (s->max_tokens <= (long)(special + longest))
        return too_short(s, special + longest, e);
    memcpy(x->head, f.prefix, sizeof x->head);
    x->n_head = f.n_prefix;
    x->middle[0] = tok_sep(s->tok);
    x->n_middle = 1;
    g->prefix = s->prefix;
    g->room = (size_t)s->max_tokens - special - longest;
    for (size_t j = 0; !r && j < x->S; j++) {
        x->fixed += special + x->tail[j].n;
        r = push_all(&x->tail[j], f.suffix, (size_t)f.n_suffix, e);
    }
    return r;
}

static int encode(struct encoding *g, struct sequences *out, int pair, int reward,
                  struct err *e)
{
    size_t S = reward ? (size_t)g->spec->n_candidates : 1;
    int r = open_encoded(out, g->n, S, pair, e);

    g->out = out;
    if (!r)
        r = g->spec->answers ? frame_answer(g, e)
            : reward         ? frame_reward(g, e)
                             : frame_policy(g, e);
    if (!r)
        r = encode_all(g, e);
    if (r)
        sequences_fini(out);
    return r;
}

int encode_policy(struct sequences *out, const struct row *row, size_t n,
                  const struct encode_spec *s, struct err *e)
{
    struct encoding g = {.spec = s, .row = row, .n = n};

    return encode(&g, out, n && row[0].text[1], 0, e);
}

int encode_reward(struct sequences *out, const struct row *row, size_t n,
                  const struct encode_spec *s, struct err *e)
{
    struct encoding g = {.spec = s, .row = row, .n = n};

    return encode(&g, out, n && row[0].text[1], 1, e);
}

int encode_dataset(struct sequences *out, const struct dataset *d,
                   const unsigned char *only, int reward, const struct encode_spec *s,
                   struct err *e)
{
    struct encoding g = {.spec = s, .set = d, .n = d->n};
    uint32_t *pick = NULL;
    int r;

    if (only) {
        pick = mem_array(d->n + 1, sizeof *pick);
        if (!pick)
            return out_of_memory(e);
        g.pick = pick;
        g.n = 0;
        for (size_t i = 0; i < d->n; i++)
            if (only[i])
                pick[g.n++] = (uint32_t)i;
    }
    r = encode(&g, out, d->pairs, reward, e);
    mem_free(pick);
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
