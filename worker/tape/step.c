/* Step memory: where activations and gradients of one step live.
 *
 * Best fit with coalescing over an address range; the book-keeping is on the host, so the
 * same code serves device memory and plans (which have addresses but no memory). The range
 * is backed by chunks of back-end memory. A step that outgrows them adds a chunk; the next
 * reset replaces several chunks by one of their size, so steps of known shapes allocate
 * nothing. A plan made before reserves what it counted.
 *
 * Invariant: spans never cross chunks (chunk ranges are not adjacent); offsets depend only
 * on the order of takes and gives, so a plan and a step over one chunk agree exactly. */
#include <string.h>

#include "base/mem.h"
#include "worker/tape/rule.h"

enum { STEP_ALIGN = 64, STEP_CHUNK_LEAST = 1 << 20 };
static const size_t step_gap = 4096; /* between chunk ranges */

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

static int add_chunk(struct step_memory *m, size_t bytes)
{
    struct step_chunk *c = &m->chunk[m->n_chunks];

    if (m->n_chunks == STEP_CHUNKS_MAX)
        return ERR_NOMEM;
    c->base = 0;
    if (m->n_chunks)
        c->base = c[-1].base + c[-1].bytes + step_gap;
    c->bytes = bytes;
    c->top = 0;
    c->memory = NULL;
    if (!m->planning) {
        c->memory = m->be->alloc(bytes);
        if (!c->memory)
            return ERR_NOMEM;
    }
    m->n_chunks++;
    return 0;
}

static void drop_chunks(struct step_memory *m)
{
    for (int i = 0; i < m->n_chunks; i++)
        if (m->chunk[i].memory)
            m->be->release(m->chunk[i].memory);
    m->n_chunks = 0;
}

/* A plan works in an endless chunk of its own, kept apart from the real ones. */
int step_reset(struct step_memory *m, int planning)
{
    size_t have = 0, want;

    if (m->planning) {
        if (m->plan_top > m->planned)
            m->planned = m->plan_top;
    }
    for (int i = 0; i < m->n_chunks; i++) {
        m->chunk[i].top = 0;
        have += m->chunk[i].bytes;
    }
    m->n_free = 0;
    m->plan_top = 0;
    m->planning = planning;
    want = have > m->planned ? have : m->planned;
    if (planning || (m->n_chunks == 1 && have >= want) || !want)
        return 0;
    drop_chunks(m);
    return add_chunk(m, round_up(want, STEP_ALIGN));
}

static int insert_span(struct step_memory *m, size_t at, size_t offset, size_t bytes)
{
    if (m->n_free == m->cap_free) {
        size_t cap = m->cap_free ? 2 * m->cap_free : 64;
        struct step_span *bigger = mem_resize(m->free, cap, sizeof *bigger);

        if (!bigger)
            return ERR_NOMEM;
        m->free = bigger;
        m->cap_free = cap;
    }
    memmove(m->free + at + 1, m->free + at, (m->n_free - at) * sizeof *m->free);
    m->free[at] = (struct step_span){offset, bytes};
    m->n_free++;
    return 0;
}

static void remove_span(struct step_memory *m, size_t at)
{
    memmove(m->free + at, m->free + at + 1, (m->n_free - at - 1) * sizeof *m->free);
    m->n_free--;
}

/* The lowest of the smallest free spans that fit. */
static int take_free(struct step_memory *m, size_t bytes, size_t *offset)
{
    size_t best = m->n_free;

    for (size_t i = 0; i < m->n_free; i++)
        if (m->free[i].bytes >= bytes &&
            (best == m->n_free || m->free[i].bytes < m->free[best].bytes))
            best = i;
    if (best == m->n_free)
        return 0;
    *offset = m->free[best].offset;
    m->free[best].offset += bytes;
    m->free[best].bytes -= bytes;
    if (!m->free[best].bytes)
        remove_span(m, best);
    return 1;
}

/* Take at the top of a range that ends at `top`; a free span that touches the top joins. */
static size_t take_top(struct step_memory *m, size_t *top, size_t base, size_t bytes)
{
    size_t end = base + *top, offset = end;

    for (size_t i = m->n_free; i-- > 0;) {
        if (m->free[i].offset + m->free[i].bytes != end)
            continue;
        offset = m->free[i].offset;
        remove_span(m, i);
        break;
    }
    *top = offset - base + bytes;
    return offset;
}

static size_t room_at_top(const struct step_memory *m, const struct step_chunk *c)
{
    size_t end = c->base + c->top, room = c->bytes - c->top;

    for (size_t i = 0; i < m->n_free; i++)
        if (m->free[i].offset + m->free[i].bytes == end)
            room += m->free[i].bytes;
    return room;
}

static float *address(const struct step_memory *m, size_t offset)
{
    for (int i = 0; i < m->n_chunks; i++)
        if (offset >= m->chunk[i].base && offset < m->chunk[i].base + m->chunk[i].bytes)
            return (float *)(m->chunk[i].memory + (offset - m->chunk[i].base));
    invariant(0 && "an offset lies in a chunk");
    return NULL;
}

int step_take(struct step_memory *m, size_t bytes, size_t *offset, float **p)
{
    size_t have = 0;
    int i;

    bytes = round_up(bytes ? bytes : 1, STEP_ALIGN);
    *p = NULL;
    if (take_free(m, bytes, offset)) {
        if (!m->planning)
            *p = address(m, *offset);
        return 0;
    }
    if (m->planning) {
        *offset = take_top(m, &m->plan_top, 0, bytes);
        return 0;
    }
    for (i = 0; i < m->n_chunks && room_at_top(m, &m->chunk[i]) < bytes; i++)
        have += m->chunk[i].bytes;
    if (i == m->n_chunks) {
        size_t least = have / 2 > STEP_CHUNK_LEAST ? have / 2 : STEP_CHUNK_LEAST;
        int rc = add_chunk(m, round_up(bytes > least ? bytes : least, STEP_ALIGN));

        if (rc)
            return rc;
    }
    *offset = take_top(m, &m->chunk[i].top, m->chunk[i].base, bytes);
    *p = address(m, *offset);
    return 0;
}

int step_give(struct step_memory *m, size_t offset, size_t bytes)
{
    size_t at = 0;

    bytes = round_up(bytes ? bytes : 1, STEP_ALIGN);
    while (at < m->n_free && m->free[at].offset < offset)
        at++;
    if (at > 0 && m->free[at - 1].offset + m->free[at - 1].bytes == offset) {
        m->free[at - 1].bytes += bytes;
        if (at < m->n_free && offset + bytes == m->free[at].offset) {
            m->free[at - 1].bytes += m->free[at].bytes;
            remove_span(m, at);
        }
        return 0;
    }
    if (at < m->n_free && offset + bytes == m->free[at].offset) {
        m->free[at].offset = offset;
        m->free[at].bytes += bytes;
        return 0;
    }
    return insert_span(m, at, offset, bytes);
}

size_t step_peak(const struct step_memory *m)
{
    size_t peak = 0;

    if (m->planning)
        return m->plan_top;
    for (int i = 0; i < m->n_chunks; i++)
        peak += m->chunk[i].top;
    return peak;
}

void step_fini(struct step_memory *m)
{
    if (m->be)
        drop_chunks(m);
    mem_free(m->free);
    memset(m, 0, sizeof *m);
}
