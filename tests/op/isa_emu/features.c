/* In place of kernels/cpu/features.c: everything is there, since it is emulated with AVX2;
 * HONE_ISA picks. */
#include "kernels/cpu/features.h"

enum cpu_level cpu_level_offered(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? CPU_AMX
                                                                           : CPU_PLAIN;
}
