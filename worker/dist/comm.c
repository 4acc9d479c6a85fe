/* What every transport has in common: agreeing on a failure, on a word, on an input. */
#include "worker/dist/comm.h"

#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"

enum { HOST_MAX = 64 };

const char *const comm_phase_names[COMM_PHASES] = {
    "loading",          "forward",    "backward", "reducing gradients",
    "updating weights", "evaluating", "saving"};

/* One failure as it travels. */
struct verdict {
    int code;
    char host[HOST_MAX], msg[ERR_MSG_MAX], mend[ERR_MEND_MAX];
};

static int find_worst(const struct comm *c, int code, int *rank, int *worst, struct err *e)
{
    int *all = mem_array((size_t)c->world, sizeof *all), r;

    if (!all) /* the others wait: they must hear of it through our death */
        return err_set(e, ERR_NOMEM, "agreement of %d ranks: out of memory", c->world);
    r = c->all_gather(c, &code, sizeof code, all, e);
    *worst = *rank = 0;
    /* Codes are negative, the most severe is nearest to zero; "stopped" gives way to all.
     */
    for (int i = 0; !r && i < c->world; i++)
        if (all[i] && (!*worst || all[i] > *worst)) {
            *worst = all[i];
            *rank = i;
        }
    mem_free(all);
    return r;
}

/* Devices and memory differ from rank to rank: also rank 0 says who it is, but of what was
 * agreed on before. */
static int wants_rank(const struct verdict *v)
{
    const char *at = v->msg;

    if (v->code != ERR_DEVICE && v->code != ERR_NOMEM)
        return 0;
    while ((at = strstr(at, "rank ")) != NULL) {
        at += 5;
        if (*at >= '0' && *at <= '9')
            return 0;
    }
    return 1;
}

int comm_agree(const struct comm *c, int r, struct err *e)
{
    struct verdict v = {0};
    int rank = 0, worst = 0, rc;
    struct err own = {0};

    if (c->world == 1)
        return r;
    if (r)
        own = *e;
    rc = find_worst(c, r, &rank, &worst, e);
    if (rc || !worst)
        return rc;
    if (rank == c->rank) {
        v.code = worst;
        snprintf(v.host, sizeof v.host, "%s", c->host);
        memcpy(v.msg, own.msg, sizeof v.msg);
        memcpy(v.mend, own.mend, sizeof v.mend);
    }
    rc = c->broadcast(c, &v, sizeof v, rank, e);
    if (rc)
        return rc;
    if (c->verdict)
        *c->verdict = v.code;
    if (c->give_up)
        c->give_up(c);
    if (rank == 0 && !wants_rank(&v))
        err_set(e, v.code, "%s", v.msg);
    else
        err_set(e, v.code, "rank %d on %s: %s", rank, v.host, v.msg);
    if (*v.mend)
        err_mend(e, "%s", v.mend);
    return v.code;
}

int comm_any(const struct comm *c, unsigned *flags, struct err *e)
{
    unsigned *all;
    int r;

    if (c->world == 1)
        return 0;
    all = mem_array((size_t)c->world, sizeof *all);
    if (!all)
        return err_set(e, ERR_NOMEM, "agreement of %d ranks: out of memory", c->world);
    r = c->all_gather(c, flags, sizeof *flags, all, e);
    for (int i = 0; !r && i < c->world; i++)
        *flags |= all[i];
    mem_free(all);
    return r;
}

struct claim {
    char hash[33], host[HOST_MAX];
};

int comm_same(const struct comm *c, const char *what, const void *p, size_t n,
              struct err *e)
{
    struct claim own = {0}, *all;
    struct hash_stream *h;
    int r;

    if (c->world == 1)
        return 0;
    h = hash_new();
    all = mem_array((size_t)c->world, sizeof *all);
    if (!h || !all) {
        hash_free(h);
        mem_free(all);
        return err_set(e, ERR_NOMEM, "comparison of %s: out of memory", what);
    }
    hash_add(h, p, n);
    hash_hex(h, own.hash);
    hash_free(h);
    snprintf(own.host, sizeof own.host, "%s", c->host);
    r = c->all_gather(c, &own, sizeof own, all, e);
    for (int i = 1; !r && i < c->world; i++)
        if (strcmp(all[i].hash, all[0].hash)) {
            r = err_set(e, ERR_CONFIG,
                        "rank %d on %s has %s that differs from rank 0's on %s", i,
                        all[i].host, what, all[0].host);
            err_mend(e, "give every host the same files and programs");
        }
    mem_free(all);
    return r;
}
