/* The inner loops for AVX-512 (F, BW, DQ, VL). SIMD_EMULATED: compiled by tests/op/isa_emu
 * for processors without it. */
#include "kernels/cpu/loops.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define SIMD_AVX512
#define SIMD_NAME  "avx512"
#define SIMD_TABLE cpu_loops_avx512
#if defined(SIMD_EMULATED)
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#elif defined(__clang__)
#pragma clang attribute push(                                                              \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))),                \
    apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#endif
#include "kernels/cpu/loops_all.h"
#if defined(__clang__) && !defined(SIMD_EMULATED)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
