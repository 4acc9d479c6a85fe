/* Sums from device to device: do the devices go together, opening, gradients; the plan is
 * in device.h. */
#include "worker/dist/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "worker/dist/device_internal.h"

static const double connect_seconds = 60, give_up_seconds = 1;

static struct devices *of(const struct comm *c)
{
    return c->device;
}

static int device_failed(const struct devices *d, const char *what, struct err *e)
{
    return err_set(e, ERR_DEVICE, "%s: %s", what, d->backend->error());
}

/* ---- do the devices go together? ---- */

struct card { /* of a rank */
    char backend[16], host[64], why[256];
    struct backend_card device;
    int version, sums; /* sums: the back end knows of sums between devices at all */
};

static int fill_card(struct card *own, const struct comm *c, const struct backend *b,
                     struct err *e)
{
    snprintf(own->backend, sizeof own->backend, "%s", b->name);
    snprintf(own->host, sizeof own->host, "%s", c->host);
    own->sums = b->ranks != NULL;
    if (!b->ranks)
        return 0;
    own->version = b->ranks->version(own->why, sizeof own->why);
    if (b->ranks->card && b->ranks->card(&own->device))
        return err_set(e, ERR_DEVICE, "%s", b->error());
    return 0;
}

/* One rank on a device, all on the same kind of back end. */
static int refuse(const struct card *card, int world, struct err *e)
{
    for (int i = 1; i < world; i++) {
        const struct card *a = &card[0], *b = &card[i];

        if (strcmp(a->backend, b->backend)) {
            err_set(e, ERR_CONFIG, "rank %d on %s computes on %s, rank 0 on %s on %s", i,
                    b->host, b->backend, a->host, a->backend);
            return err_mend(e, "give every rank a device (hone doctor says why one has "
                               "none), or set resources.device to cpu");
        }
        for (int k = 0; *b->device.id && k < i && !getenv("NCCL_HOSTID"); k++) {
            if (strcmp(card[k].device.id, b->device.id))
                continue;
            err_set(e, ERR_CONFIG,
                    "ranks %d on %s and %d on %s share one device (number %d, %.60s)", k,
                    card[k].host, i, b->host, b->device.index, b->device.name);
            return err_mend(e, "start as many ranks on a host as it has devices "
                               "(resources.workers), each with its own "
                               "(HONE_LOCAL_RANK, CUDA_VISIBLE_DEVICES)");
        }
    }
    return 0;
}

/* What slows all of them down, or keeps the library from serving; said by rank 0. */
static int serves(const struct card *card, const struct comm *c)
{
    int other = 0, bad = -1;

    for (int i = 0; i < c->world; i++) {
        if (strcmp(card[i].device.name, card[0].device.name) && !other)
            other = i;
        if ((!card[i].version || card[i].version != card[0].version) && bad < 0)
            bad = i;
    }
    if (c->rank == 0 && other)
        log_warn("devices of different kinds: rank 0 on %s has %s, rank %d on %s has %s; "
                 "each step waits for the slowest (a job for each kind would not)",
                 card[0].host, card[0].device.name, other, card[other].host,
                 card[other].device.name);
    if (c->rank == 0 && bad >= 0 && !card[bad].version)
        log_warn("rank %d on %s (device %d): no NCCL: %s; gradients go through host "
                 "memory, slowly",
                 bad, card[bad].host, card[bad].device.index, card[bad].why);
    else if (c->rank == 0 && bad >= 0)
        log_warn("rank %d on %s has NCCL %d, rank 0 on %s %d: install the same on every "
                 "host; gradients go through host memory, slowly",
                 bad, card[bad].host, card[bad].version, card[0].host, card[0].version);
    return bad < 0;
}

/* *use: sums from device to device. */
static int compare(struct devices *d, const struct comm *c, int *use, struct err *e)
{
    struct card own = {0}, *card = mem_array((size_t)c->world, sizeof *card);
    int r = card ? fill_card(&own, c, d->backend, e)
                 : err_set(e, ERR_NOMEM, "devices of %d ranks: out of memory", c->world);

    d->own = own.device;
    r = comm_agree(c, r, e);
    if (!r)
        r = c->all_gather(c, &own, sizeof own, card, e);
    if (!r)
        r = refuse(card, c->world, e);
    if (!r)
        *use = card[0].sums && serves(card, c);
    mem_free(card);
    return r;
}

/* ---- gradients ---- */

struct device_grads {
    unsigned char *started; /* (buckets) in this step */
    int next;               /* bucket to queue next */
    struct err err;         /* what failed in grad_start() */
};

static void label(struct devices *d, int bucket)
{
    struct device_label *l = &d->label[d->queued % DEVICE_LABELS];

    atomic_store(&l->bucket, bucket);
    atomic_store(&l->step, d->cluster->step);
    d->queued++;
    atomic_store(&cluster_self(d->cluster)->joined, d->queued);
}

/* Elements of bucket b; 0: a gap. */
static size_t elements(const struct comm_grad *g, int b)
{
    return g->gap && g->gap[b] ? 0 : g->bound[b + 1] - g->bound[b];
}

static void begin_step(const struct comm_grad *g, struct device_grads *s)
{
    s->next = g->buckets - 1;
    for (int b = 0; b < g->buckets; b++)
        s->started[b] = !elements(g, b);
}

static int reserve(struct devices *d, const struct comm_grad *g, struct err *e)
{
    size_t most = COMM_DEVICE_BUCKET; /* rows of tables, too */

    for (int b = 0; b < g->buckets; b++)
        most = elements(g, b) > most ? elements(g, b) : most;
    return d->two_bytes && d->backend->ranks->reserve(d->group, most)
               ? device_failed(d, "gradients on their way", e)
               : 0;
}

static void grad_close(const struct comm *c, struct comm_grad *g)
{
    struct device_grads *s = g->state;

    (void)c;
    mem_free(g->from);
    mem_free(g->to);
    g->from = g->to = NULL;
    g->state = NULL;
    if (s)
        mem_free(s->started);
    mem_free(s);
}

static int grad_open(const struct comm *c, struct comm_grad *g, struct err *e)
{
    size_t B = (size_t)g->buckets + 1;
    struct device_grads *s = mem_alloc(sizeof *s);
    int r = 0;

    g->state = s;
    g->from = mem_array(B, sizeof *g->from);
    g->to = mem_array(B, sizeof *g->to);
    if (s)
        s->started = mem_alloc(B);
    if (!s || !s->started || !g->from || !g->to)
        r = err_set(e, ERR_NOMEM, "gradients: out of memory");
    if (!r)
        r = reserve(of(c), g, e);
    r = comm_agree(c, r, e);
    if (r) {
        grad_close(c, g);
        return r;
    }
    for (int b = 0; b < g->buckets; b++) {
        size_t at = g->bound[b], n = elements(g, b);

        g->from[b] = g->shard ? at + backend_share(n, c->rank, c->world) : at;
        g->to[b] = g->shard ? at + backend_share(n, c->rank + 1, c->world) : at + n;
    }
    begin_step(g, s);
    return 0;
}

static void grad_start(const struct comm *c, struct comm_grad *g, int bucket)
{
    struct devices *d = of(c);
    struct device_grads *s = g->state;

    s->started[bucket] = 1;
    for (; s->next >= 0 && s->started[s->next]; s->next--) {
        size_t at = g->bound[s->next], n = elements(g, s->next);

        if (s->err.code || !n)
            continue;
        label(d, s->next);
        if (d->backend->ranks->sum(d->group, g->grad + at, n, g->shard, d->two_bytes))
            device_failed(d, "sum of gradients", &s->err);
    }
}

/* What was queued is complete for the operators that follow. */
static int join(const struct comm *c, int r, struct err *e)
{
    struct devices *d = of(c);

    if (!r && d->backend->ranks->join(d->group))
        r = device_failed(d, "sums over the ranks", e);
    return comm_agree(c, r, e);
}

static int grad_wait(const struct comm *c, struct comm_grad *g, struct err *e)
{
    struct device_grads *s = g->state;

    for (int b = g->buckets - 1; b >= 0; b--)
        grad_start(c, g, b);
    begin_step(g, s);
    if (s->err.code)
        *e = s->err;
    return join(c, s->err.code, e);
}

static int param_gather(const struct comm *c, struct comm_grad *g, struct err *e)
{
    struct devices *d = of(c);
    int r = 0;

    if (!g->shard)
        return 0;
    for (int b = 0; !r && b < g->buckets; b++) {
        size_t n = elements(g, b);

        if (!n)
            continue;
        label(d, b);
        if (d->backend->ranks->gather(d->group, g->param + g->bound[b], n))
            r = device_failed(d, "gather of parameters", e);
    }
    return join(c, r, e);
}

static int device_sum(const struct comm *c, float *x, size_t n, struct err *e)
{
    struct devices *d = of(c);
    int r = 0;

    if (n)
        label(d, -1);
    if (n && d->backend->ranks->sum(d->group, x, n, 0, d->two_bytes))
        r = device_failed(d, "sum of embedding rows", e);
    return join(c, r, e);
}

static int row_copy(const struct comm *c, float *packed, float *table, const int *id,
                    long rows, long cols, int back, struct err *e)
{
    struct devices *d = of(c);

    if (d->backend->ranks->rows(packed, table, id, rows, cols, back))
        return device_failed(d, "embedding rows", e);
    return 0;
}

/* Memory that a sum still writes to must not be freed: what others will not complete ends
 * here. */
static void give_up(const struct comm *c)
{
    struct devices *d = of(c);
    double until = clock_now() + give_up_seconds;
    struct backend_progress p;

    do {
        d->backend->ranks->look(d->group, &p);
        if (p.done == p.queued && !*p.failed)
            return;
        usleep(1000);
    } while (!*p.failed && clock_now() < until);
    device_watch_stop(d);
    d->backend->ranks->abort(d->group);
}

/* ---- opening ---- */

static double limit_of(void)
{
    const char *s = getenv("HONE_NCCL_SECONDS");
    double x = s ? strtod(s, NULL) : 0;

    return x > 0 && x < 1e6 ? x : 0;
}

/* Has another rank of this host failed to connect? */
static int is_hopeless(void *arg)
{
    const struct window *w = &((struct devices *)arg)->cluster->window;
    int bad = 0;

    for (int i = 0; w->head && i < w->ranks; i++)
        bad |= atomic_load(&window_rank(w, i)->unconnected);
    return bad;
}

static int connect_all(struct devices *d, const struct comm *c, struct err *e)
{
    const struct backend_ranks *ranks = d->backend->ranks;
    struct window_rank *own = cluster_self(d->cluster);
    char id[BACKEND_GROUP_ID] = "";
    double seconds;
    int r = 0;

    atomic_store(&own->device, d->own.index);
    if (c->rank == 0 && ranks->group_id(id))
        r = device_failed(d, "start of the sums", e);
    r = comm_agree(c, r, e);
    if (!r)
        r = c->broadcast(c, id, sizeof id, 0, e);
    if (r)
        return r;
    seconds = d->limit > 0 ? d->limit : connect_seconds;
    r = ranks->open(&d->group, id, c->rank, c->world, seconds, is_hopeless, d);
    if (r) {
        atomic_store(&own->unconnected, 1);
        err_set(e, r, "%s", d->backend->error());
        err_mend(e, "NCCL_SOCKET_IFNAME names the network between hosts; HONE_NCCL=off "
                    "sums through host memory");
    }
    r = comm_agree(c, r, e);
    atomic_store(&own->unconnected, 0);
    return r;
}

static void set_table(struct devices *d, const struct comm *c)
{
    d->comm = *c;
    d->comm.name = "device";
    d->comm.device = d;
    d->comm.grad_open = grad_open;
    d->comm.grad_close = grad_close;
    d->comm.grad_start = grad_start;
    d->comm.grad_wait = grad_wait;
    d->comm.param_gather = param_gather;
    d->comm.device_sum = device_sum;
    d->comm.row_copy = row_copy;
    d->comm.give_up = give_up;
}

int device_open(struct comm **out, const struct comm *c, const struct backend *b,
                int two_bytes, struct err *e)
{
    struct devices *d;
    int use = 0, r;

    *out = NULL;
    if (c->world == 1)
        return 0;
    d = mem_alloc(sizeof *d);
    if (d)
        d->comm.device = d;
    r = comm_agree(c, d ? 0 : err_set(e, ERR_NOMEM, "devices: out of memory"), e);
    if (r)
        goto fail;
    d->cluster = c->state;
    d->backend = b;
    d->two_bytes = two_bytes;
    d->limit = d->cluster->limit = limit_of();
    r = compare(d, c, &use, e);
    if (r || !use)
        goto fail;
    set_table(d, c);
    r = connect_all(d, c, e);
    if (!r)
        r = comm_agree(c, device_watch_start(d, e), e);
    if (r)
        goto fail;
    if (c->rank == 0)
        log_info("sums over %d devices by NCCL%s", c->world,
                 two_bytes ? ", two bytes a gradient" : "");
    *out = &d->comm;
    return 0;
fail:
    device_close(d ? &d->comm : NULL);
    return r;
}

void device_close(struct comm *c)
{
    struct devices *d = c ? of(c) : NULL;

    if (!d)
        return;
    device_watch_stop(d);
    if (d->group)
        d->backend->ranks->close(d->group);
    mem_free(d);
}
