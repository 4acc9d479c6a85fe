/* Element types; see dtype.h. Conversions work on bits, so that a signalling NaN comes
 * back as it went. */
#include "worker/ckpt/dtype.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

static const struct {
    const char *name;
    size_t size;
} types[] = {
#define X(name, size) {#name, size},
    DTYPES(X)
#undef X
};

const char *dtype_name(enum dtype d)
{
    return types[d].name;
}

size_t dtype_size(enum dtype d)
{
    return types[d].size;
}

int dtype_find(const char *name)
{
    for (int i = 0; i < DTYPE_COUNT; i++)
        if (!strcmp(types[i].name, name))
            return i;
    return -1;
}

int dtype_is_float(enum dtype d)
{
    return d == DTYPE_F32 || d == DTYPE_F16 || d == DTYPE_BF16 || d == DTYPE_F64;
}

static float from_bits(uint32_t u)
{
    float f;

    memcpy(&f, &u, sizeof f);
    return f;
}

static uint32_t to_bits(float f)
{
    uint32_t u;

    memcpy(&u, &f, sizeof u);
    return u;
}

static uint32_t half_to_single(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, m = h & 0x3ff;

    if (exponent == 31)
        return sign | 0x7f800000 | m << 13;
    if (exponent)
        return sign | (exponent + 112) << 23 | m << 13;
    /* Zero or subnormal: m * 2^-24 is exact in f32. */
    return sign | to_bits((float)m * 0x1p-24f);
}

static uint16_t single_to_half(uint32_t u)
{
    uint16_t sign = (uint16_t)(u >> 16 & 0x8000);
    uint32_t a = u & 0x7fffffff, rounded;

    if (a > 0x7f800000) {
        uint16_t m = (uint16_t)(a >> 13 & 0x3ff);

        return (uint16_t)(sign | 0x7c00 | (m ? m : 0x200));
    }
    if (a >= 0x477ff000) /* 65520 and more round to infinity */
        return (uint16_t)(sign | 0x7c00);
    if (a < 0x38800000) /* below 2^-14: multiples of 2^-24 */
        return (uint16_t)(sign | (uint16_t)lrintf(from_bits(a) * 0x1p24f));
    rounded = a + 0xfff + (a >> 13 & 1);
    return (uint16_t)(sign | ((rounded - 0x38000000) >> 13));
}

static uint16_t single_to_bfloat(uint32_t u)
{
    uint32_t a = u & 0x7fffffff;

    if (a > 0x7f800000)
        return (uint16_t)(u >> 16 & 0x7f ? u >> 16 : u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

void dtype_to_f32(enum dtype d, const void *src, float *dst, size_t n)
{
    const unsigned char *s = src;

    if (d == DTYPE_F32) {
        memcpy(dst, src, n * sizeof *dst);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        uint16_t h;
        double x;

        if (d == DTYPE_F64) {
            memcpy(&x, s + 8 * i, sizeof x);
            dst[i] = (float)x;
            continue;
        }
        memcpy(&h, s + 2 * i, sizeof h);
        dst[i] = from_bits(d == DTYPE_F16 ? half_to_single(h) : (uint32_t)h << 16);
    }
}

int dtype_from_f32(enum dtype d, const float *src, void *dst, size_t n, float *bad)
{
    unsigned char *out = dst;
    uint16_t infinity = d == DTYPE_F16 ? 0x7c00 : 0x7f80;

    if (d == DTYPE_F32) {
        memcpy(dst, src, n * sizeof *src);
        return 0;
    }
    for (size_t i = 0; i < n; i++) {
        uint16_t h;
        double x = src[i];

        if (d == DTYPE_F64) {
            memcpy(out + 8 * i, &x, sizeof x);
            continue;
        }
        h = d == DTYPE_F16 ? single_to_half(to_bits(src[i]))
                           : single_to_bfloat(to_bits(src[i]));
        if ((h & 0x7fff) == infinity && isfinite(src[i])) {
            *bad = src[i];
            return -1;
        }
        memcpy(out + 2 * i, &h, sizeof h);
    }
    return 0;
}
