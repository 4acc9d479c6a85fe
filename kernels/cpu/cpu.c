/* The CPU back end's table, and the choice of the instruction set. */
#include "kernels/cpu/cpu.h"

#include "kernels/cpu/bf16.h"
#include "kernels/cpu/features.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct backend table;
static const struct backend *host_table;
static const struct cpu_loops *loops;
static enum cpu_level level;

/* What HONE_ISA asks for; a word that is none asks for everything. */
static enum cpu_level asked_level(void)
{
    static const char *const names[] = {"plain", "avx2", "avx512", "avx512_bf16"};
    const char *ask = getenv("HONE_ISA");

    for (int i = 0; ask && i < CPU_AMX; i++)
        if (!strcmp(ask, names[i]))
            return (enum cpu_level)i;
    return CPU_AMX;
}

static void find_level(void)
{
    enum cpu_level ask = asked_level();

    level = cpu_level_offered();
    if (level > ask)
        level = ask;
}

enum cpu_level cpu_level(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, find_level);
    return level;
}

static const struct cpu_loops *choose_loops(void)
{
#if defined(__x86_64__)
    if (cpu_level() >= CPU_AVX512)
        return &cpu_loops_avx512;
    if (cpu_level() >= CPU_AVX2)
        return &cpu_loops_avx2;
#endif
    return &cpu_loops_plain;
}

const struct cpu_loops *cpu_loops(void)
{
    return loops;
}

static void cpu_describe(char *buf, size_t n)
{
    snprintf(buf, n, "cpu: %s loops, bf16 by %s, %d thread%s", loops->name,
             cpu_bf16()->name, cpu_threads(), cpu_threads() == 1 ? "" : "s");
}

static const char *cpu_bf16_name(void)
{
    return cpu_bf16()->native ? cpu_bf16()->name : NULL;
}

static void fill(void)
{
    loops = choose_loops();
    table = *host_table;
    table.name = "cpu";
    table.describe = cpu_describe;
    table.bf16 = cpu_bf16_name;
    table.set_threads = cpu_set_threads;
    table.threads = cpu_threads;
    table.pack_free = cpu_pack_free;
#define X(op) table.op = cpu_##op;
    HONE_OPS(X)
#undef X
}

const struct backend *cpu_backend(const struct backend *host)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    host_table = host;
    pthread_once(&once, fill);
    return &table;
}
