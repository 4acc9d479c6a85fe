/* The CPU back end's table, and the choice of the instruction set. */
#include "kernels/cpu/cpu.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct backend table;
static const struct backend *host_table;
static const struct cpu_loops *loops;

static const struct cpu_loops *choose_loops(void)
{
    const char *ask = getenv("HONE_ISA");

    if (ask && !strcmp(ask, "plain"))
        return &cpu_loops_plain;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!(ask && !strcmp(ask, "avx2")) && __builtin_cpu_supports("avx512f") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        return &cpu_loops_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
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
    snprintf(buf, n, "cpu: %s loops, f32, %d thread%s", loops->name, cpu_threads(),
             cpu_threads() == 1 ? "" : "s");
}

static void fill(void)
{
    loops = choose_loops();
    table = *host_table;
    table.name = "cpu";
    table.describe = cpu_describe;
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
