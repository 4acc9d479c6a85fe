/* Threads: one loop construct over a pool of our own. A worker that waits spins for some
 * microseconds, since the next loop of a step comes soon, and then sleeps in the kernel, so
 * that a busy neighbour keeps its core (libgomp's barriers cost three quarters of the speed
 * there). The caller takes tasks too and waits for tasks, never for workers: one that gets
 * no core for a while delays nobody.
 *
 * Invariant: `ticket` is (generation, next task). A task is claimed by advancing it, which
 * fails once the generation has moved on; the ticket moves before a job's fields do, and a
 * job ends when `done` has counted all its tasks, so the fields that go with a claim are
 * its job's. Two callers at once: the second runs its loop alone. Where threads cannot be
 * made, and in a forked child, loops run on fewer. */
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernels/cpu/cpu.h"

enum { WORKERS_MAX = 255, SPINS = 1000 };

/* Below this much work a thread costs more to wake than it brings. */
#define WORK_PER_THREAD 10e3

typedef void (*task_fn)(void *arg, long i, int worker);

static struct {
    pthread_mutex_t busy; /* held by the caller of the running loop */
    _Atomic(task_fn) task;
    _Atomic(void *) arg;
    _Atomic uint32_t n, team;
    _Atomic uint64_t ticket;
    _Atomic uint32_t generation; /* futex of the workers */
    _Atomic uint32_t done;       /* futex of the caller */
    _Atomic int sleepers, caller_sleeps;
    int workers; /* started, under busy */
} pool = {.busy = PTHREAD_MUTEX_INITIALIZER};

static _Atomic int threads, usable;

static void futex_wait(_Atomic uint32_t *word, uint32_t value)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, int n)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

static void pause_briefly(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/* More threads than cores: spinning would only keep others from working. */
static int spins(void)
{
    return threads > usable ? 0 : SPINS;
}

/* Tasks of job `generation` until none is left. */
static void take_tasks(uint32_t generation, int worker)
{
    uint64_t t = pool.ticket;

    for (;;) {
        task_fn task = pool.task;
        void *arg = pool.arg;
        uint32_t n = pool.n;

        if (t >> 32 != generation || (uint32_t)t >= n || (uint32_t)worker >= pool.team)
            return;
        if (!atomic_compare_exchange_strong(&pool.ticket, &t, t + 1))
            continue;
        task(arg, (long)(uint32_t)t, worker);
        if (atomic_fetch_add(&pool.done, 1) + 1 == n && pool.caller_sleeps)
            futex_wake(&pool.done, 1);
        t = pool.ticket;
    }
}

static void *work(void *number)
{
    uint32_t seen = 0;

    for (;;) {
        for (int i = spins(); i && pool.generation == seen; i--)
            pause_briefly();
        if (pool.generation == seen) {
            pool.sleepers++;
            while (pool.generation == seen)
                futex_wait(&pool.generation, seen);
            pool.sleepers--;
        }
        seen = pool.generation;
        take_tasks(seen, (int)(intptr_t)number);
    }
    return NULL;
}

static void start_workers(int team)
{
    pthread_attr_t attr;
    pthread_t id;

    if (pool.workers >= team - 1 || pthread_attr_init(&attr))
        return;
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    while (pool.workers < team - 1 && pool.workers < WORKERS_MAX) {
        if (pthread_create(&id, &attr, work, (void *)(intptr_t)(pool.workers + 1)))
            break;
        pool.workers++;
    }
    pthread_attr_destroy(&attr);
}

static void run_job(uint32_t n, int team, task_fn task, void *arg)
{
    uint32_t generation = pool.generation + 1, done;

    start_workers(team);
    pool.ticket = (uint64_t)generation << 32 | UINT32_MAX; /* shut while the job changes */
    pool.task = task;
    pool.arg = arg;
    pool.n = n;
    pool.team = (uint32_t)team;
    pool.done = 0;
    pool.ticket = (uint64_t)generation << 32;
    pool.generation = generation;
    if (pool.sleepers)
        futex_wake(&pool.generation, pool.workers);
    take_tasks(generation, 0);
    for (int i = spins(); i && pool.done < n; i--)
        pause_briefly();
    if (pool.done < n) {
        pool.caller_sleeps = 1;
        while ((done = pool.done) < n)
            futex_wait(&pool.done, done);
        pool.caller_sleeps = 0;
    }
}

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
    if (!usable)
        usable = usable_threads();
    threads = n <= 0 ? usable : n > WORKERS_MAX ? WORKERS_MAX : n;
}

int cpu_threads(void)
{
    if (!threads)
        cpu_set_threads(0);
    return threads;
}

int cpu_threads_for(double work_size)
{
    double most = work_size / WORK_PER_THREAD;
    int n = cpu_threads();

    return most < 2 ? 1 : most < n ? (int)most : n;
}

void cpu_for(long n, double work_size, task_fn task, void *arg)
{
    int team = (int)cpu_min(n, cpu_threads_for(work_size));

    if (team > 1 && n <= UINT32_MAX && pthread_mutex_trylock(&pool.busy) == 0) {
        run_job((uint32_t)n, team, task, arg);
        pthread_mutex_unlock(&pool.busy);
        return;
    }
    for (long i = 0; i < n; i++)
        task(arg, i, 0);
}
