/* See vocab.h. Open addressing, at most half full. */
#include "worker/tok/vocab.h"

#include <string.h>

#include "base/hash.h"
#include "base/mem.h"

static int no_memory(struct err *e)
{
    return err_set(e, ERR_NOMEM, "vocabulary: out of memory");
}

int vocab_add(struct vocab *v, const char *text, size_t n, long id, struct err *e)
{
    if (id < 0 || id > VOCAB_ID_MAX)
        return err_set(e, ERR_CORRUPT, "id %ld of token \"%.60s\" is not within 0 and %d",
                       id, text, VOCAB_ID_MAX);
    if (n > UINT32_MAX / 2 - v->n_bytes || memchr(text, 0, n))
        return err_set(e, ERR_CORRUPT, "token %ld is too long or holds a NUL", id);
    if (v->n == v->cap) {
        size_t cap = v->cap ? v->cap * 2 : 32768;
        struct vocab_entry *p = mem_resize(v->entry, cap, sizeof *p);

        if (!p)
            return no_memory(e);
        v->entry = p;
        v->cap = cap;
    }
    if (v->n_bytes + n + 1 > v->cap_bytes) {
        size_t cap = (v->n_bytes + n + 1) * 2 + (1 << 18);
        char *p = mem_resize(v->bytes, cap, 1);

        if (!p)
            return no_memory(e);
        v->bytes = p;
        v->cap_bytes = cap;
    }
    v->entry[v->n++] = (struct vocab_entry){(uint32_t)v->n_bytes, (uint32_t)n, (int)id};
    memcpy(v->bytes + v->n_bytes, text, n);
    v->bytes[v->n_bytes + n] = 0;
    v->n_bytes += n + 1;
    return 0;
}

int vocab_seal(struct vocab *v, struct err *e)
{
    size_t n_ids = 0;

    for (size_t i = 0; i < v->n; i++)
        if ((size_t)v->entry[i].id >= n_ids)
            n_ids = (size_t)v->entry[i].id + 1;
    mem_free(v->of_id);
    v->n_ids = 0;
    v->of_id = mem_array(n_ids ? n_ids : 1, sizeof *v->of_id);
    if (!v->of_id)
        return no_memory(e);
    v->n_ids = n_ids;
    for (size_t i = 0; i < v->n; i++)
        v->of_id[v->entry[i].id] = (uint32_t)i + 1;
    return 0;
}

int vocab_index(const struct vocab *v, const char *prefix, struct vocab_index *out,
                struct err *e)
{
    size_t skip = strlen(prefix), size = 16;

    while (size < 2 * v->n + 2)
        size *= 2;
    *out = (struct vocab_index){.mask = size - 1};
    out->slot = mem_resize(NULL, size, sizeof *out->slot);
    if (!out->slot)
        return no_memory(e);
    for (size_t i = 0; i < size; i++)
        out->slot[i].id = -1;
    for (size_t i = 0; i < v->n; i++) {
        const struct vocab_entry *x = &v->entry[i];
        const char *text = v->bytes + x->at + skip;
        size_t len, at;
        uint32_t hash;

        if (x->len < skip || memcmp(v->bytes + x->at, prefix, skip) != 0)
            continue;
        len = x->len - skip;
        hash = (uint32_t)hash_bytes(text, len);
        for (at = hash & out->mask; out->slot[at].id >= 0; at = (at + 1) & out->mask)
            if (out->slot[at].hash == hash && out->slot[at].len == len &&
                !memcmp(v->bytes + out->slot[at].at, text, len))
                break;
        out->slot[at] =
            (struct vocab_slot){hash, x->at + (uint32_t)skip, (uint32_t)len, x->id};
        if (len > out->longest)
            out->longest = len;
    }
    return 0;
}

int vocab_find(const struct vocab *v, const struct vocab_index *x, const char *text,
               size_t n)
{
    uint32_t hash;

    if (n > x->longest)
        return -1;
    hash = (uint32_t)hash_bytes(text, n);
    for (size_t at = hash & x->mask; x->slot[at].id >= 0; at = (at + 1) & x->mask)
        if (x->slot[at].hash == hash && x->slot[at].len == n &&
            !memcmp(v->bytes + x->slot[at].at, text, n))
            return x->slot[at].id;
    return -1;
}

const char *vocab_text(const struct vocab *v, int id)
{
    if (id < 0 || (size_t)id >= v->n_ids || !v->of_id[id])
        return NULL;
    return v->bytes + v->entry[v->of_id[id] - 1].at;
}

void vocab_fini(struct vocab *v)
{
    mem_free(v->bytes);
    mem_free(v->entry);
    mem_free(v->of_id);
    memset(v, 0, sizeof *v);
}

void vocab_index_fini(struct vocab_index *x)
{
    mem_free(x->slot);
    memset(x, 0, sizeof *x);
}
