/* The parts of hone doctor: what a machine offers, how fast it is, and what to do about it.
 *
 * Everything that is read comes from files below `root` ("" for this machine), so that
 * tests can show other machines. What cannot be found out is 0 or "". */
#ifndef WORKER_VERB_DOCTOR_H
#define WORKER_VERB_DOCTOR_H

#include "base/err.h"
#include "kernels/backend.h"
#include "worker/dist/comm.h"

enum { MACHINE_FLAGS_MAX = 8, MACHINE_GPUS_MAX = 16 };

struct machine {
    char host[80], cpu[128];
    int logical, cores, affinity; /* CPUs that are online, cores, CPUs we may run on */
    double quota;                 /* CPUs' time that the cgroup allows; 0: no limit */
    const char *flag[MACHINE_FLAGS_MAX + 1]; /* "AVX2", ...; NULL-terminated */
    int fast;                                /* AVX2 and FMA, or more */
    double load;                             /* runnable processes, mean of a minute */

    double memory, available, memory_limit, memory_used; /* limit, used: the cgroup's */
    double disk_free, shm, shm_free;

    char gpu[MACHINE_GPUS_MAX][80];
    int gpus;
    /* Of each GPU's PCIe link, 0: unknown. A GPU that rests lowers its speed, so that is
     * what it can reach. */
    int lanes[MACHINE_GPUS_MAX], lanes_most[MACHINE_GPUS_MAX];
    double transfers[MACHINE_GPUS_MAX]; /* a second and lane */
    int iommu;                          /* addresses of devices are translated */
    int root;                           /* we are the superuser */
    char mpirun[256], mpi[128];
    int open_mpi, mpi_root_allowed; /* its environment lets root start ranks */
    int nccl, slurm;
};

/* What the files and this process say; never fails. mpirun is asked for its version. */
void machine_read(struct machine *m, const char *root);

/* CPUs that threads can be busy on: affinity, cut by the quota; at least 1. */
int machine_usable(const struct machine *m);

struct speed {
    int threads;
    double f32_one, f32_all;   /* FLOP/s of matrix products, one thread and all */
    double bf16_one, bf16_all; /* the same in bf16 */
    const char *bf16;          /* the instructions behind these; NULL: none */
    double triad;              /* bytes/s of a = b + s c, all threads */
    double all_reduce;         /* bytes/s of a sum over two processes; 0: why_no_sum */
    char why_no_sum[128];
};

/* Of the GPUs: between them and the host, and sums over all of them by NCCL. */
enum { GPU_SIZES = 3 };
extern const int gpu_megabytes[GPU_SIZES]; /* 8, 16, 25: a bucket */
struct gpu_speed {
    struct backend_links links; /* n 0: none; then `why` */
    double sum[GPU_SIZES];      /* bytes/s of one rank's operand; 0: why_no_sum */
    double latency;             /* seconds of a sum of one number */
    char why[160], why_no_sum[160];
};

/* A second, or several where there are many. cuda: a back end with devices. */
void gpu_measure(struct gpu_speed *s, const struct backend *cuda, const char *mpirun);
void gpu_print(const struct gpu_speed *s);
int gpu_answer(const struct comm *c, struct err *e); /* of a rank: times of sums */
/* A box that runs below its kind, after `n` of its warnings; returns how many there are. */
struct advice;
int gpu_advise(const struct machine *m, const struct gpu_speed *s, struct advice *out,
               int n);

/* Products and memory: about a second. */
int speed_measure(struct speed *s, const struct backend *be, struct err *e);

/* The sum over processes, by two of this program under mpirun ("": there is none), which
 * are started as `hone-worker doctor RANKS_FLAG` and answer with ranks_answer(). About a
 * second. */
#define RANKS_FLAG     "--as-rank"
#define RANKS_GPU_FLAG "--as-gpu-rank"
void ranks_measure(struct speed *s, const char *mpirun);
int ranks_answer(int gpus);
/* What n ranks of this program, started with `flag`, say; -1: nothing within so many
 * seconds, and why. */
int ranks_ask(const char *mpirun, int n, const char *flag, double seconds, char *text,
              size_t bytes, char *why, size_t why_bytes);

enum { ADVICE_MAX = 16 };
struct advice {
    char what[240], mend[240];
};
/* What is wrong with the machine for our work, worst first; returns how many. `cuda`: why
 * there is no usable CUDA back end, "" when there is one. s may be NULL. */
int advise(const struct machine *m, const struct speed *s, const char *cuda,
           struct advice out[ADVICE_MAX]);

#endif
