/* The transport of a single rank: every collective is the identity. Cannot fail. */
#include "worker/dist/comm.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int self_all_reduce(const struct comm *c, float *x, size_t n, struct err *e)
{
    (void)c, (void)x, (void)n, (void)e;
    return 0;
}

static int self_all_gather(const struct comm *c, const void *in, size_t bytes, void *out,
                           struct err *e)
{
    (void)c, (void)e;
    if (out != in)
        memcpy(out, in, bytes);
    return 0;
}

static int self_broadcast(const struct comm *c, void *p, size_t bytes, int root,
                          struct err *e)
{
    (void)c, (void)p, (void)bytes, (void)root, (void)e;
    return 0;
}

static int self_barrier(const struct comm *c, struct err *e)
{
    (void)c, (void)e;
    return 0;
}

const struct comm *comm_self(void)
{
    static char host[64];
    static const struct comm self = {.name = "self",
                                     .rank = 0,
                                     .world = 1,
                                     .all_reduce = self_all_reduce,
                                     .all_gather = self_all_gather,
                                     .broadcast = self_broadcast,
                                     .barrier = self_barrier,
                                     .host = host};

    if (!*host && gethostname(host, sizeof host - 1))
        snprintf(host, sizeof host, "this host");
    return &self;
}
