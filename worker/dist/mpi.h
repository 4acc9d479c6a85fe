/* MPI as a table: what the module hone-mpi.so exports, so that a worker that runs alone
 * neither links nor starts MPI (MPI_Init takes 0.3 s), and tests can put their own in its
 * place.
 *
 * Every call that talks is started and then asked whether it is done: the limit of waiting
 * is ours, since MPI has none. Functions return 0, or an MPI error class that text() says
 * in words. Groups are small numbers: MPI_WORLD, then those that split() made. */
#ifndef WORKER_DIST_MPI_H
#define WORKER_DIST_MPI_H

#include <stddef.h>

#include "base/module.h"

#define HONE_MPI_ABI 1u

enum { MPI_GROUP_WORLD = 0 };

struct mpi_request;

struct mpi_ops {
    struct module module;
    int (*start)(void);             /* MPI_Init */
    int (*end)(void);               /* MPI_Finalize: waits for the others */
    const char *(*text)(int error); /* static */
    const char *(*library)(void);   /* "Open MPI v4.1.4, ..." */
    int (*rank)(int group), (*ranks)(int group);
    int (*split)(int group, int color, int key, int *out);
    int (*split_host)(int group, int key, int *out); /* ranks that can share memory */
    /* One request each; n, bytes and counts below 2^31 (the caller cuts). */
    int (*sum)(int group, float *x, size_t n, struct mpi_request **out);
    int (*gather_all)(int group, const void *in, size_t bytes, void *out,
                      struct mpi_request **request);
    /* x holds the parts of all ranks, rank i's at [at[i], at[i] + count[i]). */
    int (*gather_parts)(int group, float *x, const int *count, const int *at,
                        struct mpi_request **out);
    int (*broadcast)(int group, void *p, size_t bytes, int root, struct mpi_request **out);
    int (*done)(struct mpi_request *r, int *done); /* done: the request is gone */
};

/* Was this process started as one of several MPI ranks (by mpirun, srun --mpi, ...)? */
int mpi_launched(void);

/* ERR_UNSUPPORTED: the module is not there, or of another build. */
int mpi_load(const struct mpi_ops **out, struct err *e);

#endif
