/* Nodes: the machines that the daemon knows of. Its own, whose cores and memory it gives
 * out, and every other one that ranks of running stages report from; all from memory, but
 * for a few small files of /proc. */
#include <string.h>
#include <unistd.h>

#include "daemon/daemon.h"
#include "daemon/machine.h"
#include "daemon/rpc.h"

struct listing {
    struct daemon *d;
    struct arena arena;
    Hone__V1__NodeList m;
    double now;
    size_t cap; /* ranks that there are: no list is longer */
};

static size_t count_ranks(const struct daemon *d)
{
    size_t n = 0;

    for (size_t i = 0; i < d->n_jobs; i++)
        for (size_t k = 0; k < d->jobs[i]->n_stages; k++)
            n += d->jobs[i]->stage[k].n_ranks;
    return n;
}

/* NULL: out of memory. */
static Hone__V1__Node *find_node(struct listing *l, const char *host)
{
    Hone__V1__Node *node;

    for (size_t i = 0; i < l->m.n_nodes; i++)
        if (!strcmp(l->m.nodes[i]->host, host))
            return l->m.nodes[i];
    node = arena_alloc(&l->arena, sizeof *node);
    if (!node)
        return NULL;
    hone__v1__node__init(node);
    node->host = arena_strdup(&l->arena, host);
    node->ranks = arena_array(&l->arena, l->cap + 1, sizeof *node->ranks);
    if (!node->host || !node->ranks)
        return NULL;
    l->m.nodes[l->m.n_nodes++] = node;
    return node;
}

static int add_gpus(struct listing *l, Hone__V1__Node *m)
{
    const struct cores *gpus = &l->d->resources.gpus;
    size_t n = (size_t)cores_count(gpus);
    struct machine_gpu found[MACHINE_GPUS_MAX];
    size_t named = n ? machine_gpus(MACHINE_GPUS, found, MACHINE_GPUS_MAX) : 0;
    Hone__V1__Gpu *gpu = arena_array(&l->arena, n + 1, sizeof *gpu);

    m->gpus = arena_array(&l->arena, n + 1, sizeof *m->gpus);
    if (!gpu || !m->gpus)
        return -1;
    for (size_t i = 0; i < CORES_MAX; i++) {
        if (!cores_has(gpus, (int)i))
            continue;
        hone__v1__gpu__init(gpu);
        gpu->index = (uint32_t)i;
        if (i < named && *found[i].name)
            gpu->name = arena_strdup(&l->arena, found[i].name);
        m->gpus[m->n_gpus++] = gpu++;
    }
    return 0;
}

static int add_own(struct listing *l)
{
    struct daemon *d = l->d;
    char host[256] = "";
    Hone__V1__Node *m;

    gethostname(host, sizeof host - 1);
    m = find_node(l, host);
    if (!m)
        return -1;
    m->has_own = m->has_cores = m->has_cores_used = m->has_memory = 1;
    m->has_memory_used = m->own = 1;
    m->cores = (uint32_t)cores_count(&d->resources.cores);
    m->memory = d->resources.memory;
    m->memory_free = machine_free();
    m->has_memory_free = m->memory_free > 0;
    m->load = machine_load();
    m->has_load = m->load >= 0;
    return add_gpus(l, m);
}

/* A stage has GPUs of this machine alone: the n-th is its n-th rank's. */
static void use_gpus(struct listing *l, const struct job *j, const struct job_stage *s)
{
    Hone__V1__Node *own = l->m.nodes[0];
    uint32_t rank = 0;

    for (size_t i = 0; i < own->n_gpus; i++) {
        Hone__V1__Gpu *g = own->gpus[i];

        if (!cores_has(&s->gpus, (int)g->index))
            continue;
        g->has_job = g->has_rank = 1;
        g->job = j->id;
        g->stage = (char *)(uintptr_t)s->name;
        g->rank = rank++;
    }
}

static int add_rank(struct listing *l, const struct job *j, const struct job_stage *s,
                    size_t rank)
{
    const struct rank *r = &s->rank[rank];
    Hone__V1__NodeRank *m = arena_alloc(&l->arena, sizeof *m);
    Hone__V1__Node *node = r->host ? find_node(l, r->host) : l->m.nodes[0];

    if (!m || !node)
        return -1;
    hone__v1__node_rank__init(m);
    m->job = j->id;
    m->stage = (char *)(uintptr_t)s->name;
    m->rank = (uint32_t)rank;
    m->has_pid = r->pid != 0;
    m->pid = r->pid;
    m->phase = r->phase;
    m->has_heard = 1;
    m->heard = l->now - r->heard;
    if (node == l->m.nodes[0]) {
        m->cores =
            arena_array(&l->arena, (size_t)cores_count(&s->cores) + 1, sizeof *m->cores);
        for (int i = 0; m->cores && i < CORES_MAX; i++)
            if (cores_has(&s->cores, i))
                m->cores[m->n_cores++] = (uint32_t)i;
        if (!m->cores)
            return -1;
    }
    if (!node->has_heard || m->heard < node->heard)
        node->heard = m->heard;
    node->has_heard = 1;
    node->ranks[node->n_ranks++] = m;
    return 0;
}

static int list_nodes(struct listing *l)
{
    struct daemon *d = l->d;
    struct cores used = {0};

    l->now = d->io->ops->now(d->io);
    l->cap = count_ranks(d);
    hone__v1__node_list__init(&l->m);
    l->m.nodes = arena_array(&l->arena, l->cap + 2, sizeof *l->m.nodes);
    if (!l->m.nodes || add_own(l))
        return -1;
    for (size_t i = 0; i < d->n_jobs; i++)
        for (size_t k = 0; k < d->jobs[i]->n_stages; k++) {
            const struct job_stage *s = &d->jobs[i]->stage[k];

            if (s->state != STAGE_RUNNING)
                continue;
            cores_join(&used, &s->cores);
            use_gpus(l, d->jobs[i], s);
            l->m.nodes[0]->memory_used += s->memory;
            for (size_t r = 0; r < s->n_ranks; r++)
                if (s->rank[r].heard && add_rank(l, d->jobs[i], s, r))
                    return -1;
        }
    l->m.nodes[0]->cores_used = (uint32_t)cores_count(&used);
    return 0;
}

RPC_HANDLER(nodes, NodesRequest, NodeList)
{
    struct rpc_call *call = ctx;
    struct listing l = {.d = call->d};
    struct err e;
    int rc = access_check(&call->who, ACCESS_VIEW, NULL, &e);

    (void)service;
    (void)in;
    if (!rc && list_nodes(&l))
        rc = err_set(&e, ERR_NOMEM, "out of memory");
    if (rc)
        rpc_fail(call, &e);
    else
        reply(&l.m, ctx);
    arena_fini(&l.arena);
}
