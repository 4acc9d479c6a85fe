/* hone nodes: the machines that a daemon knows of, and what runs there. */
#include <stdio.h>

#include "base/str.h"
#include "launcher/query.h"
#include "launcher/verb.h"

static const char *number(char *buf, size_t n, int has, double x, const char *format)
{
    if (!has || snprintf(buf, n, format, x) >= (int)n)
        snprintf(buf, n, "-");
    return buf;
}

static void print_gpu(const Hone__V1__Gpu *g)
{
    char name[96], stage[64];

    printf("  GPU %u  %s", g->index,
           remote_clean(name, sizeof name, g->name ? g->name : "(unknown kind)"));
    if (g->has_job)
        printf("  job %llu, %s, rank %u", (unsigned long long)g->job,
               remote_clean(stage, sizeof stage, g->stage), g->rank);
    else
        printf("  free");
    printf("\n");
}

static void print_rank(const Hone__V1__NodeRank *r)
{
    char stage[64], phase[32];

    printf("  job %llu, %s, rank %u: process %u", (unsigned long long)r->job,
           remote_clean(stage, sizeof stage, r->stage), r->rank, r->pid);
    for (size_t i = 0; i < r->n_cores; i++)
        printf("%s%u", i ? "," : ", cores ", r->cores[i]);
    printf(", %s, heard %.1f s ago\n",
           remote_clean(phase, sizeof phase, r->phase ? r->phase : "start"), r->heard);
}

static void print_node(const Hone__V1__Node *m)
{
    char host[64], cores[32] = "-", memory[64] = "-", used[24], all[24], spare[24] = "-";
    char load[16], heard[16];

    if (m->has_cores)
        snprintf(cores, sizeof cores, "%u of %u", m->cores_used, m->cores);
    if (m->has_memory)
        snprintf(memory, sizeof memory, "%s of %s",
                 str_bytes(used, sizeof used, (double)m->memory_used),
                 str_bytes(all, sizeof all, (double)m->memory));
    if (m->has_memory_free)
        str_bytes(spare, sizeof spare, (double)m->memory_free);
    printf("%-20s  %-10s  %-19s  %-9s  %6s  %s\n", remote_clean(host, sizeof host, m->host),
           cores, memory, spare, number(load, sizeof load, m->has_load, m->load, "%.2f"),
           number(heard, sizeof heard, m->has_heard, m->heard, "%.1f s ago"));
    for (size_t i = 0; i < m->n_gpus; i++)
        print_gpu(m->gpus[i]);
    for (size_t i = 0; i < m->n_ranks; i++)
        print_rank(m->ranks[i]);
}

static int fill(const struct query_options *o, union query_request *m, struct err *e)
{
    (void)o;
    (void)e;
    hone__v1__nodes_request__init(&m->nodes);
    return 0;
}

static void print(struct client *c, const ProtobufCMessage *reply)
{
    const Hone__V1__NodeList *list = (const Hone__V1__NodeList *)reply;

    (void)c;
    printf("%-20s  %-10s  %-19s  %-9s  %6s  %s\n", "HOST", "CORES", "MEMORY PLANNED",
           "FREE", "LOAD", "HEARD");
    for (size_t i = 0; i < list->n_nodes; i++)
        print_node(list->nodes[i]);
}

static int run(int argc, char **argv)
{
    static const struct arg_flag flags[] = {REMOTE_FLAGS(struct query_options), ARG_END};
    static const struct query q = {
        {"hone nodes", "[--to DAEMON] [--json]",
         "The machines that a daemon knows of: its own, with the cores and the memory "
         "that\n"
         "it gives, and those that ranks report from; GPUs and who uses them.",
         flags, 0, 0, 0},
        "Nodes",
        &hone__v1__node_list__descriptor,
        fill,
        print};

    return query_run(&q, argc, argv);
}

const struct verb verb_nodes = {"nodes", "machines, their cores and GPUs, who uses them",
                                run};
