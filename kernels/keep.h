/* The dropout rule of op.h, word by word: what every host back end must agree on.
 *
 * Invariant: word < keep_threshold(p) exactly when word < p * 2^32 (p is an f32, so the
 * product is exact in double and rounding it up changes no comparison of integers). */
#ifndef KERNELS_KEEP_H
#define KERNELS_KEEP_H

#include <math.h>

#include "base/rng.h"
#include "kernels/op.h"

static inline uint64_t keep_threshold(float p)
{
    return (uint64_t)ceil((double)p * 4294967296.0);
}

static inline float keep_scale(float p)
{
    return 1.0f / (1.0f - p);
}

/* The four words of group `group` of row `row`. */
static inline void keep_words(const struct op_dropout *d, long row, uint32_t group,
                              uint32_t out[4])
{
    uint32_t counter[4] = {d->example[row], d->position[row], group, d->site};

    rng_philox(counter, d->key, out);
}

/* Column c of row `row`: 0 when dropped, else the scale. Not fast: for definitions. */
static inline float keep_factor(const struct op_dropout *d, long row, uint32_t group,
                                int word)
{
    uint32_t w[4];

    if (d->p <= 0)
        return 1.0f;
    keep_words(d, row, group, w);
    return w[word] < keep_threshold(d->p) ? 0.0f : keep_scale(d->p);
}

#endif
