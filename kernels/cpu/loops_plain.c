/* The inner loops for processors without AVX2, x86-64 or not. */
#define SIMD_PLAIN
#define SIMD_NAME  "plain"
#define SIMD_TABLE cpu_loops_plain
#include "kernels/cpu/loops_all.h"
