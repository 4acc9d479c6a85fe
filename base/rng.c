/* Random streams over Philox4x32-10. Word i of a stream is word i % 4 of the block with
 * counter i / 4, so that the state is one number and any word can be drawn on its own. */
#include "base/rng.h"

#include <math.h>

/* Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators". */
static uint64_t splitmix(uint64_t x)
{
    x += 0x9E3779B97F4A7C15ull;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
    return x ^ (x >> 31);
}

uint64_t rng_key(uint64_t seed, uint64_t purpose, uint64_t a, uint64_t b)
{
    return splitmix(splitmix(splitmix(splitmix(seed) ^ purpose) ^ a) ^ b);
}

void rng_init(struct rng *r, uint64_t key)
{
    r->key = key;
    r->counter = 0;
}

uint32_t rng_u32(struct rng *r)
{
    uint64_t block = r->counter / 4;
    uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), 0, 0}, out[4];

    rng_philox(counter, r->key, out);
    return out[r->counter++ % 4];
}

double rng_uniform(struct rng *r)
{
    uint32_t high = rng_u32(r), low = rng_u32(r);

    return (double)((uint64_t)(high >> 5) << 26 | low >> 6) * 0x1p-53;
}

/* Lemire 2019, "Fast random integer generation in an interval". */
uint32_t rng_below(struct rng *r, uint32_t n)
{
    uint64_t m = (uint64_t)rng_u32(r) * n;

    if ((uint32_t)m < n) {
        uint32_t least = -n % n;

        while ((uint32_t)m < least)
            m = (uint64_t)rng_u32(r) * n;
    }
    return (uint32_t)(m >> 32);
}

double rng_normal(struct rng *r)
{
    double u = 1.0 - rng_uniform(r), v = rng_uniform(r); /* u in (0, 1] */

    return sqrt(-2.0 * log(u)) * cos(2.0 * 3.14159265358979323846 * v);
}

void rng_permutation(struct rng *r, uint32_t *out, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        out[i] = i;
    for (uint32_t i = n; i > 1; i--) {
        uint32_t j = rng_below(r, i), t = out[i - 1];

        out[i - 1] = out[j];
        out[j] = t;
    }
}
