/* What to do about a machine: each warning says what was found and the mend. Worst first:
 * what stops work, what slows it most, what is worth knowing. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/str.h"
#include "worker/verb/doctor.h"

static const double low_memory = 2e9, low_disk = 2e9, low_shm = 256e6;

struct list {
    struct advice *out;
    int n;
};

static void warn(struct list *l, const char *mend, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void warn(struct list *l, const char *mend, const char *fmt, ...)
{
    va_list ap;

    if (l->n == ADVICE_MAX)
        return;
    va_start(ap, fmt);
    vsnprintf(l->out[l->n].what, sizeof l->out[0].what, fmt, ap);
    va_end(ap);
    snprintf(l->out[l->n].mend, sizeof l->out[0].mend, "%s", mend);
    l->n++;
}

static void advise_memory(struct list *l, const struct machine *m)
{
    double room = m->available, group = m->memory_limit - m->memory_used;
    char a[32], b[32];

    if (m->memory_limit > 0 && (room == 0 || group < room))
        room = group > 0 ? group : 1;
    if (room > 0 && room < low_memory)
        warn(l,
             m->memory_limit > 0 ? "raise the control group's memory.max (docker run -m, "
                                   "Slurm --mem), or see hone check for what a job needs"
                                 : "close other programs; hone check JOB says what a job "
                                   "needs; a lower micro_tokens, or "
                                   "resources.recompute=on, lowers it",
             "memory is low: %s can be had%s%s", str_bytes(a, sizeof a, room),
             m->memory_limit > 0 ? " of a limit of " : "",
             m->memory_limit > 0 ? str_bytes(b, sizeof b, m->memory_limit) : "");
    if (m->disk_free >= 0 && m->disk_free < low_disk)
        warn(l, "free some, or write runs elsewhere with --out",
             "disk is low: %s free here", str_bytes(a, sizeof a, m->disk_free));
}

static void advise_cores(struct list *l, const struct machine *m)
{
    int usable = machine_usable(m);

    if (!m->fast)
        warn(l, "use a machine with AVX2 and FMA (any x86-64 server since 2013)",
             "the processor has no AVX2 with FMA: matrix products are many times slower");
    if (m->quota > 0 && m->quota < m->affinity)
        warn(l, "raise the control group's cpu.max (docker run --cpus, Kubernetes limits)",
             "the control group allows %g CPUs' time of %d: more threads would be "
             "throttled",
             m->quota, m->affinity);
    if (m->affinity < m->logical)
        warn(l, "start Hone without taskset, or ask Slurm for more --cpus-per-task",
             "this process may run on %d of %d CPUs", m->affinity, m->logical);
    if (usable < 4)
        warn(l, "nothing to do for small models; large ones want more cores, or a GPU",
             "few cores: %d", usable);
    if (m->load > usable + 1)
        warn(l, "wait for them, or expect less speed than is measured here",
             "others use the machine: load %.1f on %d core%s", m->load, usable,
             usable == 1 ? "" : "s");
}

static void advise_ranks(struct list *l, const struct machine *m)
{
    char a[32];

    if (m->shm > 0 && m->shm_free < low_shm)
        warn(l, "docker run --shm-size=1g, or mount -o remount,size=1g /dev/shm",
             "/dev/shm has %s free: ranks on this machine exchange gradients through it",
             str_bytes(a, sizeof a, m->shm_free));
    if (m->shm <= 0)
        warn(l, "mount a tmpfs on /dev/shm",
             "there is no /dev/shm: ranks exchange "
             "gradients through MPI, more slowly");
    if (!m->mpirun[0])
        warn(l, "apt-get install openmpi-bin", "mpirun is not in PATH: one worker alone");
    else if (m->open_mpi && m->root && !m->mpi_root_allowed)
        warn(l,
             "for your own mpirun commands: export OMPI_ALLOW_RUN_AS_ROOT=1 "
             "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
             "you are root, and Open MPI refuses to start ranks for root");
}

int advise(const struct machine *m, const struct speed *s, const char *cuda,
           struct advice out[ADVICE_MAX])
{
    struct list l = {.out = out};

    advise_memory(&l, m);
    if (m->gpus && cuda[0])
        warn(&l, "see the reason; without it the CPUs do the work",
             "%d GPU%s here, but not usable: %.150s", m->gpus, m->gpus == 1 ? "" : "s",
             cuda);
    advise_cores(&l, m);
    if (s && s->threads > 1 && s->f32_all < 1.3 * s->f32_one)
        warn(&l, "look for busy neighbours (top); try resources.threads",
             "%d threads are hardly faster than one (%.0f and %.0f GFLOP/s)", s->threads,
             s->f32_all / 1e9, s->f32_one / 1e9);
    advise_ranks(&l, m);
    return l.n;
}
