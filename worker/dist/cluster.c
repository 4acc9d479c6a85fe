/* Opening and closing a cluster, and its small collectives; gradients are grad.c's. */
#include "worker/dist/cluster.h"

#include <errno.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "worker/dist/cluster_internal.h"

enum { SPINS = 4000, PIECE = 1 << 28 };
static const double first_patience = 60;

static struct cluster *of(const struct comm *c)
{
    return c->state;
}

int cluster_fail(struct cluster *k, struct err *e)
{
    *e = k->broken;
    return k->broken.code;
}

int cluster_mpi_error(struct cluster *k, int error, const char *what, struct err *e)
{
    err_set(&k->broken, ERR_FAILED, "%s: MPI on %s: %s", what, k->host,
            k->mpi->text(error));
    return cluster_fail(k, e);
}

/* MPI makes progress only while it is asked; a rank with a core of its own asks without a
 * pause at first. */
static void rest(const struct cluster *k, long turn)
{
    if (turn < 1000 && k->window.spins)
        return;
    if (turn < 20000)
        sched_yield();
    else
        usleep(turn < 30000 ? 50 : 500);
}

static struct beacon_rank describe(const struct cluster *k, int i)
{
    const struct window_rank *r = k->window.head ? window_rank(&k->window, i) : &k->lone;

    return (struct beacon_rank){
        .rank = k->window.head ? atomic_load(&r->rank) : k->comm.rank,
        .pid = k->window.head ? atomic_load(&r->pid) : (int)getpid(),
        .phase = atomic_load(&r->phase),
        .device = atomic_load(&r->device),
        .step = atomic_load(&r->step),
        .joined = atomic_load(&r->joined)};
}

/* A rank of this host that works while others wait, or else of another. */
static int find_late(struct cluster *k, struct beacon_rank *out, char *host, size_t n)
{
    for (int i = 0; k->window.head && i < k->locals; i++) {
        const struct window_rank *r = window_rank(&k->window, i);

        if (atomic_load(&r->waits) || atomic_load(&r->left))
            continue;
        *out = describe(k, i);
        snprintf(host, n, "%s", k->host);
        return 1;
    }
    return k->beacon && beacon_find(k->beacon, 0, out, host, n);
}

static void say_silence(struct cluster *k, const char *what)
{
    char host[64], late[192] = "";
    struct beacon_rank r;

    if (find_late(k, &r, host, sizeof host))
        snprintf(late, sizeof late, ": rank %d on %s (pid %d) is at step %ld, %s", r.rank,
                 host, r.pid, (long)r.step + 1, comm_phase_name(r.phase));
    err_set(&k->broken, ERR_FAILED,
            "rank %d on %s: the other hosts have not answered for %.0f s at step %ld, %s "
            "(%s)%s",
            k->comm.rank, k->host, k->patience, k->step + 1, comm_phase_names[k->phase],
            what, late);
}

static int wait_for(struct cluster *k, struct mpi_request *r, const char *what,
                    struct err *e)
{
    double until = clock_now() + k->patience;
    int done = 0, error = 0;

    for (long turn = 0; !done; turn++) {
        error = k->mpi->done(r, &done);
        if (error)
            return cluster_mpi_error(k, error, what, e);
        if (done)
            break;
        if (turn % 64 == 0 && clock_now() > until) {
            say_silence(k, what);
            err_mend(&k->broken, "look at the network between the hosts");
            return cluster_fail(k, e);
        }
        rest(k, turn);
    }
    return 0;
}

int cluster_wait(struct cluster *k, struct mpi_request *r, const char *what, struct err *e)
{
    struct window_rank *self = cluster_self(k);
    int rc;

    atomic_store_explicit(&self->waits, 1, memory_order_relaxed);
    rc = wait_for(k, r, what, e);
    atomic_store_explicit(&self->waits, 0, memory_order_relaxed);
    return rc;
}

int cluster_finish(struct cluster *k, int error, struct mpi_request *const *r,
                   const char *what, struct err *e)
{
    return error ? cluster_mpi_error(k, error, what, e) : cluster_wait(k, *r, what, e);
}

/* ---- small collectives ---- */

static int one_host(const struct cluster *k)
{
    return k->hosts == 1;
}

static int all_gather(const struct comm *c, const void *in, size_t bytes, void *out,
                      struct err *e)
{
    struct cluster *k = of(c);
    struct mpi_request *request;

    if (k->broken.code)
        return cluster_fail(k, e);
    invariant(bytes < PIECE);
    if (one_host(k)) {
        window_all_gather(&k->window, in, bytes, out);
        return 0;
    }
    return cluster_finish(k, k->mpi->gather_all(MPI_GROUP_WORLD, in, bytes, out, &request),
                          &request, "gather", e);
}

static int broadcast(const struct comm *c, void *p, size_t bytes, int root, struct err *e)
{
    struct cluster *k = of(c);
    struct mpi_request *request;
    int r = 0;

    if (k->broken.code)
        return cluster_fail(k, e);
    if (one_host(k)) {
        window_broadcast(&k->window, p, bytes, root);
        return 0;
    }
    for (size_t at = 0; !r && at < bytes; at += PIECE)
        r = cluster_finish(k,
                           k->mpi->broadcast(MPI_GROUP_WORLD, (char *)p + at,
                                             bytes - at < PIECE ? bytes - at : PIECE, root,
                                             &request),
                           &request, "broadcast", e);
    return r;
}

static int barrier(const struct comm *c, struct err *e)
{
    struct cluster *k = of(c);
    struct mpi_request *request;
    char one = 0, all[WINDOW_RANKS_MAX * 4];

    if (k->broken.code)
        return cluster_fail(k, e);
    if (!one_host(k))
        return cluster_finish(
            k, k->mpi->gather_all(MPI_GROUP_WORLD, &one, sizeof one, all, &request),
            &request, "barrier", e);
    window_barrier(&k->window);
    return 0;
}

static int all_reduce(const struct comm *c, float *x, size_t n, struct err *e)
{
    struct cluster *k = of(c);
    struct mpi_request *request;
    int r = 0;

    if (k->broken.code)
        return cluster_fail(k, e);
    if (one_host(k)) {
        window_sum(&k->window, x, n);
        return 0;
    }
    for (size_t at = 0; !r && at < n; at += PIECE)
        r = cluster_finish(
            k,
            k->mpi->sum(MPI_GROUP_WORLD, x + at, n - at < PIECE ? n - at : PIECE, &request),
            &request, "sum", e);
    return r;
}

static void note(const struct comm *c, enum comm_phase phase, long step)
{
    struct cluster *k = of(c);
    struct window_rank *r = cluster_self(k);

    k->phase = phase;
    k->step = step;
    atomic_store(&r->phase, (int)phase);
    atomic_store(&r->step, step);
}

static void patience(const struct comm *c, double seconds)
{
    struct cluster *k = of(c);

    k->patience = seconds;
    if (k->limit > 0)
        seconds = k->limit;
    if (k->window.head)
        atomic_store(&k->window.head->patience, (int)ceil(seconds));
}

/* ---- opening ---- */

static void introduce(struct cluster *k)
{
    struct window_rank *r = window_rank(&k->window, k->window.local);

    atomic_store(&r->rank, k->comm.rank);
    atomic_store(&r->born, watch_born(getpid()));
    atomic_store(&r->pid, getpid());
}

/* The window of this host; where it cannot be had anywhere, no host has one. */
static int open_window(struct cluster *k, int group, int local, int ranks, struct err *e)
{
    struct mpi_request *request;
    char path[WINDOW_PATH_MAX] = "";
    int r = 0, rc, *all = mem_array((size_t)k->comm.world, sizeof *all);
    struct err why = {0};

    if (!all)
        return err_set(e, ERR_NOMEM, "shared memory: out of memory");
    if (ranks > WINDOW_RANKS_MAX)
        r = err_set(&why, ERR_UNSUPPORTED, "%d ranks on one host", ranks);
    else if (local == 0)
        r = window_create(&k->window, ranks, path, &why);
    rc = cluster_finish(k, k->mpi->broadcast(group, path, sizeof path, 0, &request),
                        &request, "start", e);
    if (!rc && !r && local)
        r = *path ? window_attach(&k->window, path, local, ranks, &why)
                  : err_set(&why, ERR_IO, "the first rank of the host has none");
    if (!rc)
        rc = cluster_finish(
            k, k->mpi->gather_all(MPI_GROUP_WORLD, &r, sizeof r, all, &request), &request,
            "start", e);
    for (int i = 0; !rc && i < k->comm.world; i++) {
        if (!all[i])
            continue;
        if (r)
            log_warn("rank %d on %s: no shared memory (%s); MPI carries everything",
                     k->comm.rank, k->host, why.msg);
        window_close(&k->window);
        k->window.ranks = 0;
        break;
    }
    mem_free(all);
    return rc;
}

/* Hosts with unequal numbers of ranks have no rails: each rank is its own host then. */
static int all_equal(struct cluster *k, int ranks, int *equal, struct err *e)
{
    struct mpi_request *request;
    int *all = mem_array((size_t)k->comm.world, sizeof *all), r;

    if (!all)
        return err_set(e, ERR_NOMEM, "start: out of memory");
    r = cluster_finish(
        k, k->mpi->gather_all(MPI_GROUP_WORLD, &ranks, sizeof ranks, all, &request),
        &request, "start", e);
    *equal = 1;
    for (int i = 0; !r && i < k->comm.world; i++)
        *equal &= all[i] == ranks;
    mem_free(all);
    return r;
}

static int make_groups(struct cluster *k, struct err *e)
{
    const struct mpi_ops *m = k->mpi;
    int group, local, ranks, equal = 0, error, r;

    error = m->split_host(MPI_GROUP_WORLD, k->comm.rank, &group);
    if (error)
        return cluster_mpi_error(k, error, "start", e);
    local = m->rank(group);
    ranks = m->ranks(group);
    r = all_equal(k, ranks, &equal, e);
    if (!r && equal && ranks > 1)
        r = open_window(k, group, local, ranks, e);
    if (r)
        return r;
    if (!k->window.head) {
        local = 0;
        ranks = 1;
    }
    k->locals = ranks;
    k->local = local;
    k->hosts = k->comm.world / ranks;
    error = k->hosts > 1 ? m->split(MPI_GROUP_WORLD, local, k->comm.rank, &k->rail) : 0;
    if (error)
        return cluster_mpi_error(k, error, "start", e);
    k->host_index = k->hosts > 1 ? m->rank(k->rail) : 0;
    return 0;
}

/* Each rank's share of the cores that the ranks of this host may use together. */
static void share_cores(struct cluster *k)
{
    cpu_set_t own, any, all[WINDOW_RANKS_MAX];
    int sum = 0;

    CPU_ZERO(&own);
    if (sched_getaffinity(0, sizeof own, &own))
        CPU_SET(0, &own);
    k->threads = CPU_COUNT(&own);
    if (!k->window.head)
        return;
    window_all_gather(&k->window, &own, sizeof own, all);
    CPU_ZERO(&any);
    for (int i = 0; i < k->locals; i++) {
        CPU_OR(&any, &any, &all[i]);
        sum += CPU_COUNT(&all[i]);
    }
    if (sum > CPU_COUNT(&any)) /* they overlap */
        k->threads = CPU_COUNT(&any) / k->locals;
    if (k->threads < 1)
        k->threads = 1;
    k->window.spins = CPU_COUNT(&any) >= k->locals ? SPINS : 0;
}

static void where(void *arg, char *buf, size_t n)
{
    const struct cluster *k = arg;

    snprintf(buf, n, "at step %ld, %s", k->step + 1, comm_phase_names[k->phase]);
}

/* What this host's ranks are doing: of the first that works, or else of the first. */
static void look(void *arg, struct beacon_state *out)
{
    struct cluster *k = arg;

    memset(out, 0, sizeof *out);
    for (int i = k->locals - 1; i >= 0; i--) {
        const struct window_rank *r =
            k->window.head ? window_rank(&k->window, i) : &k->lone;
        int works = !atomic_load(&r->waits) && !atomic_load(&r->left);
        struct beacon_rank it = describe(k, i);

        out->working += works;
        if (works || (!i && !out->working))
            out->one = it;
        if (i == k->locals - 1 || it.joined <= out->last.joined)
            out->last = it;
        if (it.joined > out->most)
            out->most = it.joined;
    }
}

/* The first ranks of the hosts hear of each other; without a beacon there is patience. */
static int light_beacon(struct cluster *k, const struct cluster_setup *s, struct err *e)
{
    size_t n = (size_t)k->comm.world;
    struct beacon_host own = {.first_rank = k->comm.rank, .ranks = k->locals};
    struct beacon_host *all = mem_array(n, sizeof *all);
    struct err why;
    int hosts = 0, index = 0, r;

    snprintf(own.name, sizeof own.name, "%s", k->host);
    if (k->local == 0 && beacon_open(&k->beacon, &own, &why))
        log_warn("rank %d on %s: %s", k->comm.rank, k->host, why.msg);
    if (k->local)
        own.ranks = 0;
    r = comm_agree(&k->comm, all ? 0 : err_set(e, ERR_NOMEM, "beacon: out of memory"), e);
    if (!r)
        r = k->comm.all_gather(&k->comm, &own, sizeof own, all, e);
    for (size_t i = 0; !r && i < n; i++) {
        if (!all[i].ranks)
            continue;
        index = (int)i == k->comm.rank ? hosts : index;
        all[hosts++] = all[i];
    }
    if (!r && k->beacon)
        r = beacon_start(k->beacon, all, hosts, index,
                         &(struct beacon_calls){where, look, k, s->lost, s->lag, s->arg},
                         k->window.head ? &k->window.head->reported : NULL, e);
    mem_free(all);
    return comm_agree(&k->comm, r, e);
}

static void set_table(struct cluster *k)
{
    k->comm.name = "cluster";
    k->comm.host = k->host;
    k->comm.state = k;
    k->comm.verdict = &k->verdict;
    k->comm.all_reduce = all_reduce;
    k->comm.all_gather = all_gather;
    k->comm.broadcast = broadcast;
    k->comm.barrier = barrier;
    k->comm.grad_open = cluster_grad_open;
    k->comm.grad_close = cluster_grad_close;
    k->comm.grad_start = cluster_grad_start;
    k->comm.grad_wait = cluster_grad_wait;
    k->comm.param_gather = cluster_param_gather;
    k->comm.note = note;
    k->comm.patience = patience;
}

int cluster_open(struct comm **out, const struct cluster_setup *s, struct err *e)
{
    struct cluster *k = mem_alloc(sizeof *k);
    int error, r = 0;

    *out = NULL;
    if (!k)
        return err_set(e, ERR_NOMEM, "start of the ranks: out of memory");
    k->mpi = s->mpi;
    k->patience = first_patience;
    k->lost = s->lost;
    k->lost_arg = s->arg;
    k->window.fd = -1;
    if (gethostname(k->host, sizeof k->host - 1))
        snprintf(k->host, sizeof k->host, "unknown host");
    error = k->mpi->start();
    if (error) {
        r = err_set(e, ERR_FAILED, "start of MPI: %s", k->mpi->text(error));
        mem_free(k);
        return r;
    }
    k->comm.rank = k->mpi->rank(MPI_GROUP_WORLD);
    k->comm.world = k->mpi->ranks(MPI_GROUP_WORLD);
    set_table(k);
    if (k->comm.world > WINDOW_RANKS_MAX * 4)
        r = err_set(e, ERR_UNSUPPORTED, "%d ranks", k->comm.world);
    if (!r)
        r = make_groups(k, e);
    if (!r && k->window.head) {
        introduce(k);
        share_cores(k);
        r = watch_start(&k->watch, &k->window, k->host, s->lost,
                        k->hosts == 1 ? s->lag : NULL, s->arg, e);
    } else if (!r) {
        share_cores(k);
    }
    if (!r && k->hosts > 1)
        r = light_beacon(k, s, e);
    if (r) {
        cluster_close(&k->comm, 0);
        return r;
    }
    *out = &k->comm;
    return 0;
}

void cluster_close(struct comm *c, int agreed)
{
    struct cluster *k = c ? of(c) : NULL;

    if (!k)
        return;
    agreed = agreed && !k->broken.code;
    if (agreed && k->window.head)
        atomic_store(&window_rank(&k->window, k->window.local)->left, 1);
    beacon_stop(k->beacon);
    if (agreed)
        k->mpi->end();
    watch_stop(k->watch);
    window_close(&k->window);
    mem_free(k);
}

int cluster_is_broken(const struct comm *c)
{
    return of(c)->broken.code != 0;
}

int cluster_speaks(const struct comm *c)
{
    struct cluster *k = of(c);

    return !k->window.head || !atomic_exchange(&k->window.head->reported, 1);
}

int cluster_threads(const struct comm *c)
{
    return of(c)->threads;
}

int cluster_local(const struct comm *c, int *ranks)
{
    *ranks = of(c)->locals;
    return of(c)->local;
}
