/* Sets of cores by number: what a machine has to give, what a stage occupies. GPUs are kept
 * in the same way. */
#ifndef DAEMON_CORES_H
#define DAEMON_CORES_H

#include <stdint.h>

#include "base/str.h"

enum { CORES_MAX = 1024 };

struct cores {
    uint64_t word[CORES_MAX / 64];
};

static inline int cores_has(const struct cores *c, int i)
{
    return (int)(c->word[i / 64] >> (i % 64) & 1);
}

static inline void cores_add(struct cores *c, int i)
{
    c->word[i / 64] |= (uint64_t)1 << (i % 64);
}

static inline int cores_count(const struct cores *c)
{
    int n = 0;

    for (int i = 0; i < CORES_MAX / 64; i++)
        n += __builtin_popcountll(c->word[i]);
    return n;
}

static inline void cores_join(struct cores *to, const struct cores *from)
{
    for (int i = 0; i < CORES_MAX / 64; i++)
        to->word[i] |= from->word[i];
}

/* "0,2,3" */
void cores_write(const struct cores *c, struct str *out);

static inline int cores_overlap(const struct cores *a, const struct cores *b)
{
    for (int i = 0; i < CORES_MAX / 64; i++)
        if (a->word[i] & b->word[i])
            return 1;
    return 0;
}

#endif
