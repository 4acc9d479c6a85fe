/* hone-mpi.so: the table of worker/dist/mpi.h over MPI 3. Thin on purpose: groups and
 * requests are MPI's own, all policy (limits, messages, order) is the caller's.
 *
 * Errors are returned, never fatal. A rank that has died is not among them: MPI without
 * fault tolerance just waits, which is why the caller asks and never waits here. */
#include <dlfcn.h>
#include <mpi.h>
#include <stdlib.h>
#include <string.h>

#include "worker/dist/mpi.h"

enum { GROUPS_MAX = 8 };

static MPI_Comm group_of[GROUPS_MAX];
static int n_groups;

struct mpi_request {
    MPI_Request request;
};

static int add_group(MPI_Comm comm, int *out)
{
    if (n_groups == GROUPS_MAX)
        return MPI_ERR_OTHER;
    MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN);
    *out = n_groups;
    group_of[n_groups++] = comm;
    return 0;
}

/* Open MPI's own plug-ins look for its symbols in the whole process. */
static void show_symbols(void)
{
    Dl_info info;

    if (dladdr((void *)(size_t)MPI_Init_thread, &info) && info.dli_fname)
        dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_GLOBAL);
}

static int start(void)
{
    int provided, world, r;

    show_symbols();
    r = MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided);
    return r ? r : add_group(MPI_COMM_WORLD, &world);
}

static int end(void)
{
    return MPI_Finalize();
}

static const char *text(int error)
{
    static char words[MPI_MAX_ERROR_STRING];
    int n;

    if (MPI_Error_string(error, words, &n))
        return "unknown MPI error";
    return words;
}

static const char *library(void)
{
    static char words[MPI_MAX_LIBRARY_VERSION_STRING];
    int n;

    return MPI_Get_library_version(words, &n) ? "MPI" : words;
}

static int rank(int group)
{
    int r = -1;

    MPI_Comm_rank(group_of[group], &r);
    return r;
}

static int ranks(int group)
{
    int n = 0;

    MPI_Comm_size(group_of[group], &n);
    return n;
}

static int split(int group, int color, int key, int *out)
{
    MPI_Comm comm;
    int r = MPI_Comm_split(group_of[group], color, key, &comm);

    return r ? r : add_group(comm, out);
}

static int split_host(int group, int key, int *out)
{
    MPI_Comm comm;
    int r = MPI_Comm_split_type(group_of[group], MPI_COMM_TYPE_SHARED, key, MPI_INFO_NULL,
                                &comm);

    return r ? r : add_group(comm, out);
}

static struct mpi_request *new_request(struct mpi_request **out)
{
    *out = malloc(sizeof **out);
    return *out;
}

/* A request that could not be started is given back. */
static int started(int r, struct mpi_request **out)
{
    if (r) {
        free(*out);
        *out = NULL;
    }
    return r;
}

static int sum(int group, float *x, size_t n, struct mpi_request **out)
{
    if (!new_request(out))
        return MPI_ERR_NO_MEM;
    return started(MPI_Iallreduce(MPI_IN_PLACE, x, (int)n, MPI_FLOAT, MPI_SUM,
                                  group_of[group], &(*out)->request),
                   out);
}

static int gather_all(int group, const void *in, size_t bytes, void *to,
                      struct mpi_request **out)
{
    if (!new_request(out))
        return MPI_ERR_NO_MEM;
    return started(MPI_Iallgather(in, (int)bytes, MPI_BYTE, to, (int)bytes, MPI_BYTE,
                                  group_of[group], &(*out)->request),
                   out);
}

static int gather_parts(int group, float *x, const int *count, const int *at,
                        struct mpi_request **out)
{
    if (!new_request(out))
        return MPI_ERR_NO_MEM;
    return started(MPI_Iallgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, x, count, at,
                                   MPI_FLOAT, group_of[group], &(*out)->request),
                   out);
}

static int broadcast(int group, void *p, size_t bytes, int root, struct mpi_request **out)
{
    if (!new_request(out))
        return MPI_ERR_NO_MEM;
    return started(
        MPI_Ibcast(p, (int)bytes, MPI_BYTE, root, group_of[group], &(*out)->request), out);
}

static int done(struct mpi_request *r, int *is_done)
{
    int rc = MPI_Test(&r->request, is_done, MPI_STATUS_IGNORE);

    if (!rc && *is_done)
        free(r);
    return rc;
}

extern const struct mpi_ops hone_mpi;
const struct mpi_ops hone_mpi = {.module = {HONE_MPI_ABI, sizeof(struct mpi_ops)},
                                 .start = start,
                                 .end = end,
                                 .text = text,
                                 .library = library,
                                 .rank = rank,
                                 .ranks = ranks,
                                 .split = split,
                                 .split_host = split_host,
                                 .sum = sum,
                                 .gather_all = gather_all,
                                 .gather_parts = gather_parts,
                                 .broadcast = broadcast,
                                 .done = done};
