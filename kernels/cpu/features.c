/* Reading cpuid and xgetbv: an instruction counts when the processor has it and the
 * operating system saves its registers; AMX's tiles when Linux has also allowed them to
 * this process (Documentation/arch/x86/xstate.rst: asked once, kept for all its threads).
 * Nothing here can fail: what is not certain is not offered. */
#include "kernels/cpu/features.h"

#if defined(__x86_64__)

#include <cpuid.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    ARCH_REQ_XCOMP_PERM = 0x1023,
    XFEATURE_TILE_DATA = 18,
    XCR0_AVX = 0x6,       /* XMM, YMM */
    XCR0_AVX512 = 0xe0,   /* masks, upper halves of ZMM0-15, ZMM16-31 */
    XCR0_AMX = 0x3 << 17, /* tile configuration and data */
};

struct leaf {
    uint32_t a, b, c, d;
};

static struct leaf cpuid(uint32_t number, uint32_t sub)
{
    struct leaf l = {0};

    if (!__get_cpuid_count(number, sub, &l.a, &l.b, &l.c, &l.d))
        l = (struct leaf){0};
    return l;
}

/* What the operating system saves when it switches threads. */
static uint64_t xcr0(void)
{
    uint32_t low, high;

    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low | (uint64_t)high << 32;
}

static int has(uint64_t word, uint64_t bits)
{
    return (word & bits) == bits;
}

enum cpu_level cpu_level_offered(void)
{
    struct leaf one = cpuid(1, 0), seven = cpuid(7, 0), more = cpuid(7, 1);
    uint64_t saved;

    if (!has(one.c, 1u << 27 | 1u << 28 | 1u << 12)) /* OSXSAVE, AVX, FMA */
        return CPU_PLAIN;
    saved = xcr0();
    if (!has(saved, XCR0_AVX) || !has(seven.b, 1u << 5))
        return CPU_PLAIN;
    /* F, DQ, BW, VL */
    if (!has(saved, XCR0_AVX512) ||
        !has(seven.b, 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31))
        return CPU_AVX2;
    if (!seven.a || !has(more.a, 1u << 5))
        return CPU_AVX512;
    /* AMX-BF16, AMX-TILE */
    if (!has(saved, XCR0_AMX) || !has(seven.d, 1u << 22 | 1u << 24) ||
        syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_TILE_DATA))
        return CPU_AVX512_BF16;
    return CPU_AMX;
}

#else

enum cpu_level cpu_level_offered(void)
{
    return CPU_PLAIN;
}

#endif
