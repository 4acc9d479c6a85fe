/* How fast processes of this machine sum what they hold, as ranks do with gradients: the
 * doctor starts two of itself under mpirun, and these answer with bytes a second.
 *
 *     rate = bytes of one rank's operand / time of all_reduce(), best of a few
 *
 * Nothing here fails the doctor: without mpirun, or when the ranks do not answer within
 * RANKS_SECONDS, the report says so. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "worker/dist/cluster.h"
#include "worker/verb/doctor.h"
#include "worker/verb/verb.h"

enum { FLOATS = 4 << 20, TRIES = 4, RANKS_SECONDS = 8 };

/* ---- a rank -------------------------------------------------------------------------- */

static void on_lost(void *arg, const char *message, int report, int far)
{
    (void)arg;
    (void)far;
    if (report)
        fprintf(stderr, "hone: %s\n", message);
    _exit(1);
}

static int time_sums(const struct comm *c, double *best, struct err *e)
{
    float *x = mem_array(FLOATS, sizeof *x);
    int r = comm_agree(c, x ? 0 : err_set(e, ERR_NOMEM, "out of memory"), e);

    for (int i = 0; !r && i <= TRIES; i++) {
        double start, seconds;

        r = c->barrier(c, e);
        start = clock_now();
        if (!r)
            r = c->all_reduce(c, x, FLOATS, e);
        seconds = clock_now() - start;
        if (!r && (i == 1 || (i > 1 && seconds < *best))) /* the first brings in pages */
            *best = seconds;
    }
    mem_free(x);
    return r;
}

static int answer_sum(const struct comm *c, struct err *e)
{
    double best = 0;
    int r = time_sums(c, &best, e);

    if (!r && c->rank == 0)
        printf("%.9g\n", FLOATS * sizeof(float) / best);
    return r;
}

int ranks_answer(int gpus)
{
    struct cluster_setup s = {.lost = on_lost};
    struct comm *c = NULL;
    struct err e;
    int r;

    if (!mpi_launched())
        return verb_result(err_set(&e, ERR_USAGE, "doctor: not started by mpirun"), &e);
    r = mpi_load(&s.mpi, &e);
    if (!r)
        r = cluster_open(&c, &s, &e);
    if (!r)
        r = gpus ? gpu_answer(c, &e) : answer_sum(c, &e);
    fflush(stdout);
    cluster_close(c, !r);
    return verb_result(r, &e);
}

/* ---- who asks ------------------------------------------------------------------------ */

static _Noreturn void become_mpirun(const char *mpirun, int n, const char *self,
                                    const char *flag, int out)
{
    char number[16];

    snprintf(number, sizeof number, "%d", n);
    setpgid(0, 0);
    setenv("OMPI_MCA_rmaps_base_oversubscribe", "1", 1);
    setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1); /* in a container there is nobody else */
    setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
    dup2(out, STDOUT_FILENO);
    dup2(out, STDERR_FILENO);
    execl(mpirun, mpirun, "-n", number, "--bind-to", "none", "--quiet", self, "doctor",
          flag, (char *)NULL);
    _exit(127);
}

/* All that comes through fd until its end, at most n - 1 bytes; 0: in time. */
static int read_all(int fd, double seconds, char *out, size_t n)
{
    double end = clock_now() + seconds;
    size_t len = 0;

    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int wait = (int)(1000 * (end - clock_now()));
        ssize_t got;

        out[len] = '\0';
        if (wait <= 0 || poll(&p, 1, wait) <= 0)
            return -1;
        got = read(fd, out + len, n - 1 - len);
        if (got <= 0 || len + (size_t)got == n - 1)
            return 0;
        len += (size_t)got;
    }
}

int ranks_ask(const char *mpirun, int n, const char *flag, double seconds, char *text,
              size_t bytes, char *why, size_t why_bytes)
{
    char self[512];
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    int fd[2], status, late;
    pid_t pid;

    *text = 0;
    if (!*mpirun || len <= 0 || pipe(fd)) {
        snprintf(why, why_bytes, "%s",
                 *mpirun ? "no pipe to mpirun" : "mpirun is not in PATH");
        return -1;
    }
    self[len] = '\0';
    pid = fork();
    if (pid == 0)
        become_mpirun(mpirun, n, self, flag, fd[1]);
    close(fd[1]);
    late = pid < 0 || read_all(fd[0], seconds, text, bytes);
    close(fd[0]);
    if (pid > 0) {
        setpgid(pid, pid);
        kill(-pid, SIGKILL);
        waitpid(pid, &status, 0);
    }
    if (late)
        snprintf(why, why_bytes, "%d ranks did not answer in %.0f s", n, seconds);
    return late ? -1 : 0;
}

void ranks_measure(struct speed *s, const char *mpirun)
{
    char text[1024], *end;
    double rate;

    if (ranks_ask(mpirun, 2, RANKS_FLAG, RANKS_SECONDS, text, sizeof text, s->why_no_sum,
                  sizeof s->why_no_sum))
        return;
    rate = strtod(text, &end);
    text[strcspn(text, "\n")] = '\0';
    if (end == text || !(rate > 0))
        snprintf(s->why_no_sum, sizeof s->why_no_sum, "%.100s",
                 *text ? text : "mpirun says nothing");
    else
        s->all_reduce = rate;
}
