/* Ranks without MPI: processes forked by the test, and a struct mpi_ops over memory they
 * share. Hosts are pretended: ranks r with the same r / per_host. */
#ifndef TESTS_UNIT_DIST_RANKS_H
#define TESTS_UNIT_DIST_RANKS_H

#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "worker/dist/cluster.h"

enum { RANKS_MAX = 8, BOARD_BYTES = 1 << 22 };

/* One group's meeting place; groups are told apart by what split them. */
struct board {
    _Atomic unsigned arrived, generation;
    char slot[RANKS_MAX][BOARD_BYTES];
};

struct shared {
    struct board world, host[RANKS_MAX], rail[RANKS_MAX];
};

struct group {
    struct board *board;
    int rank, ranks;
};

static struct shared *shared;
static int my_rank, my_world, my_per_host;
static struct group group[8];
static int n_groups;

static void meet(const struct group *g)
{
    unsigned generation = atomic_load(&g->board->generation);

    if (atomic_fetch_add(&g->board->arrived, 1) + 1 == (unsigned)g->ranks) {
        atomic_store(&g->board->arrived, 0);
        atomic_store(&g->board->generation, generation + 1);
        return;
    }
    while (atomic_load(&g->board->generation) == generation)
        sched_yield();
}

static int fake_start(void)
{
    group[n_groups++] = (struct group){&shared->world, my_rank, my_world};
    return 0;
}

static int fake_end(void)
{
    meet(&group[0]);
    return 0;
}

static const char *fake_text(int error)
{
    (void)error;
    return "pretended error";
}

static int fake_rank(int g)
{
    return group[g].rank;
}

static int fake_ranks(int g)
{
    return group[g].ranks;
}

static int fake_split_host(int g, int key, int *out)
{
    int host = my_rank / my_per_host, left = my_world - host * my_per_host;

    (void)g, (void)key;
    *out = n_groups;
    group[n_groups++] = (struct group){&shared->host[host], my_rank % my_per_host,
                                       left < my_per_host ? left : my_per_host};
    return 0;
}

static int fake_split(int g, int color, int key, int *out)
{
    (void)g, (void)key;
    *out = n_groups;
    if (my_world % my_per_host) { /* unequal hosts: one rail of all */
        group[n_groups++] = (struct group){&shared->rail[color], my_rank, my_world};
        return 0;
    }
    group[n_groups++] =
        (struct group){&shared->rail[color], my_rank / my_per_host, my_world / my_per_host};
    return 0;
}

static struct mpi_request *const some_request = (struct mpi_request *)&n_groups;

static int fake_gather_all(int g, const void *in, size_t bytes, void *out,
                           struct mpi_request **r)
{
    struct group *x = &group[g];

    memcpy(x->board->slot[x->rank], in, bytes);
    meet(x);
    for (int i = 0; i < x->ranks; i++)
        memcpy((char *)out + (size_t)i * bytes, x->board->slot[i], bytes);
    meet(x);
    *r = some_request;
    return 0;
}

static int fake_sum(int g, float *v, size_t n, struct mpi_request **r)
{
    struct group *x = &group[g];

    memcpy(x->board->slot[x->rank], v, n * sizeof *v);
    meet(x);
    memset(v, 0, n * sizeof *v);
    for (int i = 0; i < x->ranks; i++)
        for (size_t k = 0; k < n; k++)
            v[k] += ((float *)x->board->slot[i])[k];
    meet(x);
    *r = some_request;
    return 0;
}

static int fake_gather_parts(int g, float *v, const int *count, const int *at,
                             struct mpi_request **r)
{
    struct group *x = &group[g];

    memcpy(x->board->slot[x->rank], v + at[x->rank], (size_t)count[x->rank] * sizeof *v);
    meet(x);
    for (int i = 0; i < x->ranks; i++)
        memcpy(v + at[i], x->board->slot[i], (size_t)count[i] * sizeof *v);
    meet(x);
    *r = some_request;
    return 0;
}

static int fake_broadcast(int g, void *p, size_t bytes, int root, struct mpi_request **r)
{
    struct group *x = &group[g];

    if (x->rank == root)
        memcpy(x->board->slot[root], p, bytes);
    meet(x);
    memcpy(p, x->board->slot[root], bytes);
    meet(x);
    *r = some_request;
    return 0;
}

static int fake_done(struct mpi_request *r, int *done)
{
    (void)r;
    *done = 1;
    return 0;
}

static const struct mpi_ops fake_mpi = {.start = fake_start,
                                        .end = fake_end,
                                        .text = fake_text,
                                        .rank = fake_rank,
                                        .ranks = fake_ranks,
                                        .split = fake_split,
                                        .split_host = fake_split_host,
                                        .sum = fake_sum,
                                        .gather_all = fake_gather_all,
                                        .gather_parts = fake_gather_parts,
                                        .broadcast = fake_broadcast,
                                        .done = fake_done};

/* In a rank's body: the rank ends badly. */
#define CHECK(x)                                                                           \
    do {                                                                                   \
        if (!(x)) {                                                                        \
            fprintf(stderr, "rank %d: %s:%d: %s\n", my_rank, __FILE__, __LINE__, #x);      \
            return 1;                                                                      \
        }                                                                                  \
    } while (0)

static inline float grad_of(int rank, int step, size_t i)
{
    return (float)((i * 31 + (size_t)(rank * 7 + step)) % 101) - 50;
}

/* Small integers: every order of summing gives the same bits. */
static inline float sum_of(int world, int step, size_t i)
{
    float s = 0;

    for (int r = 0; r < world; r++)
        s += grad_of(r, step, i);
    return s;
}

typedef int ranks_body(struct comm *c, void *arg);

/* Run body on `world` ranks, per_host of them to a host; how many ended badly. A body that
 * is ended by a signal counts, too. lost: as for cluster_open(), may be NULL. */
static int ranks_run(int world, int per_host, ranks_body *body, watch_lost *lost, void *arg)
{
    pid_t pid[RANKS_MAX];
    int bad = 0;

    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (shared == MAP_FAILED)
        return -1;
    fflush(NULL);
    for (int r = 0; r < world; r++) {
        pid[r] = fork();
        if (pid[r] == 0) {
            struct cluster_setup s = {.mpi = &fake_mpi, .lost = lost, .arg = arg};
            struct comm *c = NULL;
            struct err e = {0};
            int rc;

            my_rank = r;
            my_world = world;
            my_per_host = per_host;
            rc = cluster_open(&c, &s, &e);
            if (!rc)
                rc = body(c, arg);
            else
                fprintf(stderr, "rank %d: %s\n", r, e.msg);
            cluster_close(c, !rc);
            _exit(rc ? 1 : 0);
        }
    }
    for (int r = 0; r < world; r++) {
        int status;

        if (pid[r] < 0 || waitpid(pid[r], &status, 0) < 0 || status)
            bad++;
    }
    munmap(shared, sizeof *shared);
    return bad;
}

#endif
