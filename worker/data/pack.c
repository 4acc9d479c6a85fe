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

int packer_fill(struct packer *p, const uint32_t *seq, size_t n, size_t *next,
                struct packed *out, struct err *e)
{
    size_t T = 0, B = 0, first = *next;

    while (first + B < n && (!B || T + length(p->s, seq[first + B]) <= p->max_tokens))
        T += length(p->s, seq[first + B++]);
    if (T > INT_MAX || B > INT_MAX)
        return err_set(e, ERR_CONFIG, "a micro-batch of %zu tokens is too large", T);
    if (grow(p, T, B))
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
    if (B)
        p->p.cu_seqlens[B] = (int)T;
    p->p.B = (long)B;
    p->p.T = (long)T;
    *next = first + B;
    *out = p->p;
    return 0;
}
