/* The inner loops for AVX2 with FMA. */
#include "kernels/cpu/loops.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define SIMD_AVX2
#define SIMD_NAME  "avx2"
#define SIMD_TABLE cpu_loops_avx2
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#include "kernels/cpu/loops_all.h"
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
