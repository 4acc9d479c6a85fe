/* Threads. One loop construct over OpenMP: tasks are handed out one by one, so a thread
 * that lost its core for a while does less. */
#include <omp.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>

#include "kernels/cpu/cpu.h"

/* Waking a passive thread and waiting for it costs tens of microseconds. */
#define WORK_PER_THREAD 20e3

static _Atomic int threads;

/* Cores this process may use: its affinity, cut by the cgroup's quota (v2 cpu.max). */
static int usable_threads(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "r");
    long quota, period;

    if (f) {
        if (fscanf(f, "%ld %ld", &quota, &period) == 2 && quota > 0 && period > 0 &&
            quota / period < n)
            n = quota / period > 0 ? (int)(quota / period) : 1;
        fclose(f);
    }
    return n;
}

void cpu_set_threads(int n)
{
    threads = n > 0 ? n : usable_threads();
}

int cpu_threads(void)
{
    if (!threads)
        cpu_set_threads(0);
    return threads;
}

int cpu_threads_for(double work)
{
    double most = work / WORK_PER_THREAD;
    int n = cpu_threads();

    return most < 2 ? 1 : most < n ? (int)most : n;
}

void cpu_for(long n, double work, void (*task)(void *arg, long i, int worker), void *arg)
{
    int team = (int)cpu_min(n, cpu_threads_for(work));

    if (team <= 1) {
        for (long i = 0; i < n; i++)
            task(arg, i, 0);
        return;
    }
#pragma omp parallel for schedule(dynamic, 1) num_threads(team)
    for (long i = 0; i < n; i++)
        task(arg, i, omp_get_thread_num());
}
