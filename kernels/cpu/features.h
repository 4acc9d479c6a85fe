/* What this processor and its operating system offer, each level holding those before it.
 * The environment's HONE_ISA (plain, avx2, avx512, avx512_bf16, amx) asks for less. */
#ifndef KERNELS_CPU_FEATURES_H
#define KERNELS_CPU_FEATURES_H

enum cpu_level {
    CPU_PLAIN,
    CPU_AVX2,        /* and FMA */
    CPU_AVX512,      /* F, BW, DQ, VL */
    CPU_AVX512_BF16, /* vdpbf16ps */
    CPU_AMX,         /* tdpbf16ps, its tiles allowed to this process */
};

/* The same on every call. */
enum cpu_level cpu_level(void);

/* The same without the environment's word. */
enum cpu_level cpu_level_offered(void);

#endif
