/* Random numbers: Philox4x32-10 (Salmon et al. 2011), counter based.
 *
 * Invariant: a draw is a pure function of (key, counter), so that results depend on seed,
 * step, example and position and never on batch layout, thread or rank. The dropout rule
 * of kernels/op.h uses rng_philox() itself; struct rng is a stream for shuffles and draws
 * whose state is one counter (saved in checkpoints). */
#ifndef BASE_RNG_H
#define BASE_RNG_H

#include <stddef.h>
#include <stdint.h>

static inline void rng_philox(const uint32_t counter[4], uint64_t key, uint32_t out[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);

    for (int i = 0; i < 10; i++) {
        uint64_t p0 = 0xD2511F53ull * c0, p1 = 0xCD9E8D57ull * c2;

        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* One 64-bit key from several numbers (splitmix64 chain): (seed, purpose, step, ...). */
uint64_t rng_key(uint64_t seed, uint64_t purpose, uint64_t a, uint64_t b);

struct rng {
    uint64_t key, counter; /* counter: 32-bit words drawn */
};

void rng_init(struct rng *r, uint64_t key);
uint32_t rng_u32(struct rng *r);
double rng_uniform(struct rng *r);             /* [0, 1), 53 bits: two words */
uint32_t rng_below(struct rng *r, uint32_t n); /* unbiased, n > 0 */
double rng_normal(struct rng *r);              /* Box-Muller, one of the pair */
void rng_permutation(struct rng *r, uint32_t *out, uint32_t n); /* Fisher-Yates */

#endif
