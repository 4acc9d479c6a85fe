/* Epoch order and packed micro-batches; see pack.h. */
#include "worker/data/pack.h"

#include <limits.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"

enum { RNG_ORDER = 0x6f72646572 }; /* purpose of the key: "order" */

int order_epoch(uint32_t *out, size_t n, uint64_t seed, const char *stage, long epoch)
{
    struct rng r;

    if (n > UINT32_MAX)
        return ERR_CONFIG;
    rng_init(&r,
             rng_key(seed, RNG_ORDER, hash_bytes(stage, strlen(stage)), (uint64_t)epoch));
    rng_permutation(&r, out, (uint32_t)n);
    return 0;
}

struct packer {
    const struct sequences *s;
    size_t max_tokens, t_cap, b_cap;
    int round;
    struct store_buf buf;
    struct packed p;
};

struct packer *packer_new(const struct sequences *s, long max_tokens, struct err *e)
{
    struct packer *p = mem_alloc(sizeof *p);

    if (!p) {
        err_set(e, ERR_NOMEM, "packer: out of memory");
        return NULL;
    }
    p->s = s;
    p->max_tokens = (size_t)max_tokens;
    return p;
}

void packer_round(struct packer *p)
{
    p->round = 1;
}

void packer_free(struct packer *p)
{
    if (!p)
        return;
    mem_free(p->p.ids);
    mem_free(p->p.types);
    mem_free(p->p.position);
    mem_free(p->p.example);
    mem_free(p->p.answer);
    mem_free(p->p.cu_seqlens);
    store_buf_fini(&p->buf);
    mem_free(p);
}

static int grow(struct packer *p, size_t T, size_t B)
{
    struct packed *k = &p->p;

    if (T > p->t_cap) {
        mem_free(k->ids);
        mem_free(k->types);
        mem_free(k->position);
        mem_free(k->example);
        k->ids = mem_array(T, sizeof *k->ids);
        k->types = mem_array(T, sizeof *k->types);
        k->position = mem_array(T, sizeof *k->position);
        k->example = mem_array(T, sizeof *k->example);
        p->t_cap = k->ids && k->types && k->position && k->example ? T : 0;
    }
    if (B > p->b_cap) {
        mem_free(k->answer);
        mem_free(k->cu_seqlens);
        k->answer = mem_array(B, sizeof *k->answer);
        k->cu_seqlens = mem_array(B + 1, sizeof *k->cu_seqlens);
        p->b_cap = k->answer && k->cu_seqlens ? B : 0;
    }
    return p->t_cap < T || p->b_cap < B ? -1 : 0;
}

static size_t length(const struct sequences *s, uint32_t i)
{
    return s->offset[i + 1] - s->offset[i];
}

static int pack_one(struct packer *p, uint32_t seq, size_t b, size_t at, struct err *e)
{
    size_t n = length(p->s, seq);
    struct packed *k = &p->p;

    for (size_t i = 0; i < n; i++) {
        k->position[at + i] = (uint32_t)i;
        k->example[at + i] = seq;
    }
    k->answer[b] = p->s->answer ? p->s->answer[seq] : 1;
    k->cu_seqlens[b] = (int)at;
    return sequences_read(p->s, seq, &p->buf, k->ids + at, k->types + at, e);
}

/* n / parts of an octave, at least `least`: the distance of sizes about n. */
static size_t distance(size_t n, size_t parts, size_t least)
{
    size_t octave = 1;

    while (octave <= n / 2)
        octave *= 2;
    return octave / parts > least ? octave / parts : least;
}

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

struct pack_size pack_round(struct pack_size have, size_t longest)
{
    size_t token_step = distance(have.tokens, 16, 8);
    size_t answer_step = distance(have.answers, 16, 8);
    size_t step = distance(have.sequences, 8, 1), more;
    struct pack_size n = {.sequences = round_up(have.sequences, step)};

    for (;; n.sequences += step) { /* at most `longest` tokens in each of those that fill */
        more = n.sequences - have.sequences;
        n.answers = have.answers ? round_up(have.answers + more, answer_step) : 0;
        n.tokens = have.tokens + (longest > 1 ? 2 : 1) * more;
        if (have.answers) /* each has a token before its answer */
            n.tokens = have.tokens + (n.answers - have.answers) + more;
        n.tokens = round_up(n.tokens, token_step);
        if (n.tokens - have.tokens <= more * longest)
            return n;
        if (more > 2 * have.sequences + 16) /* texts too short to fill anything with */
            return have;
    }
}

/* Sequences of the first token's kind behind those that are there. */
static void fill_up(struct packer *p, struct pack_size have, struct pack_size n)
{
    size_t more = n.sequences - have.sequences, at = have.tokens;
    struct packed *k = &p->p;

    for (size_t i = 0; i < more; i++) {
        size_t len = pack_filling(n.tokens - have.tokens, more, i);
        size_t answer = pack_filling(n.answers - have.answers, more, i);

        k->answer[have.sequences + i] = have.answers ? (int)(len - answer) : 1;
        k->cu_seqlens[have.sequences + i] = (int)at;
        k->max_len = (long)len > k->max_len ? (long)len : k->max_len;
        for (size_t c = 0; c < len; c++, at++) {
            k->ids[at] = k->ids[0];
            k->types[at] = k->types[0];
            k->position[at] = (uint32_t)c;
            k->example[at] = UINT32_MAX;
        }
    }
}

size_t pack_answers(const struct sequences *s, const uint32_t *seq, size_t n)
{
    size_t sum = 0;

    for (size_t i = 0; s->answer && i < n; i++)
        sum += length(s, seq[i]) - (size_t)s->answer[seq[i]];
    return sum;
}

int packer_fill(struct packer *p, const uint32_t *seq, size_t n, size_t *next,
                struct packed *out, struct err *e)
{
    size_t T = 0, B = 0, first = *next;
    struct pack_size have, all;

    while (first + B < n && (!B || T + length(p->s, seq[first + B]) <= p->max_tokens))
        T += length(p->s, seq[first + B++]);
    if (T > INT_MAX || B > INT_MAX)
        return err_set(e, ERR_CONFIG, "a micro-batch of %zu tokens is too large", T);
    have = (struct pack_size){T, B, pack_answers(p->s, seq + first, B)};
    all = p->round && B ? pack_round(have, p->s->longest) : have;
    if (grow(p, all.tokens, all.sequences))
        return err_set(e, ERR_NOMEM, "pack %zu tokens: out of memory", T);
    p->p.max_len = 0;
    for (size_t b = 0, at = 0; b < B; b++) {
        uint32_t i = seq[first + b];
        int r = pack_one(p, i, b, at, e);

        if (r)
            return r;
        at += length(p->s, i);
        if ((long)length(p->s, i) > p->p.max_len)
            p->p.max_len = (long)length(p->s, i);
    }
    fill_up(p, have, all);
    if (B)
        p->p.cu_seqlens[all.sequences] = (int)all.tokens;
    p->p.B = (long)all.sequences;
    p->p.T = (long)all.tokens;
    *next = first + B;
    *out = p->p;
    return 0;
}
