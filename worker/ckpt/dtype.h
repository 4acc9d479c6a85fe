/* Element types of tensor files, and their conversion to and from f32.
 *
 * F16, BF16 and F32 survive a trip through f32 bit for bit, NaN payloads included; what is
 * rounded is rounded to nearest, ties to even (IEEE 754). Files are little-endian, as are
 * the machines this runs on. */
#ifndef WORKER_CKPT_DTYPE_H
#define WORKER_CKPT_DTYPE_H

#include <stddef.h>

#define DTYPES(X)                                                                          \
    X(BOOL, 1)                                                                             \
    X(U8, 1)                                                                               \
    X(I8, 1)                                                                               \
    X(F8_E5M2, 1)                                                                          \
    X(F8_E4M3, 1)                                                                          \
    X(I16, 2)                                                                              \
    X(U16, 2)                                                                              \
    X(F16, 2)                                                                              \
    X(BF16, 2)                                                                             \
    X(I32, 4)                                                                              \
    X(U32, 4)                                                                              \
    X(F32, 4)                                                                              \
    X(C64, 8)                                                                              \
    X(F64, 8)                                                                              \
    X(I64, 8)                                                                              \
    X(U64, 8)

enum dtype {
#define X(name, size) DTYPE_##name,
    DTYPES(X)
#undef X
        DTYPE_COUNT
};

const char *dtype_name(enum dtype d); /* "F32" */
size_t dtype_size(enum dtype d);      /* bytes of an element */
int dtype_find(const char *name);     /* -1: none of that name */
int dtype_is_float(enum dtype d);     /* F16, BF16, F32 or F64: can be read into f32 */

/* n elements of type d (dtype_is_float). src and dst do not overlap. */
void dtype_to_f32(enum dtype d, const void *src, float *dst, size_t n);

/* The way back. -1 when a finite value is too large for d (*bad holds the first). */
int dtype_from_f32(enum dtype d, const float *src, void *dst, size_t n, float *bad);

#endif
