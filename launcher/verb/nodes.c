/* hone nodes: the machines that a daemon knows of, and what runs there. */
#include <stdio.h>

#include "base/str.h"
#include "launcher/remote.h"
#include "launcher/verb.h"
#include "proto/message.h"

struct options {
    const char *to;
    int json;
};

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

static int nodes(const struct options *o, struct err *e)
{
    Hone__V1__NodesRequest m = HONE__V1__NODES_REQUEST__INIT;
    const Hone__V1__NodeList *list;
    ProtobufCMessage *reply = NULL;
    struct client *c = NULL;
    int rc = remote_open(&c, o->to, e);

    if (!rc)
        rc = remote_call(c, "Nodes", &m.base, &hone__v1__node_list__descriptor, &reply, e);
    if (!rc && o->json) {
        rc = remote_print_json(reply, e);
    } else if (!rc) {
        list = (Hone__V1__NodeList *)reply;
        printf("%-20s  %-10s  %-19s  %-9s  %6s  %s\n", "HOST", "CORES", "MEMORY PLANNED",
               "FREE", "LOAD", "HEARD");
        for (size_t i = 0; i < list->n_nodes; i++)
            print_node(list->nodes[i]);
    }
    if (reply)
        message_free(reply);
    client_close(c);
    return rc;
}

static int run(int argc, char **argv)
{
    static const struct arg_flag flags[] = {REMOTE_FLAGS(struct options), ARG_END};
    static const struct arg_spec spec = {
        "hone nodes",
        "[--to DAEMON] [--json]",
        "The machines that a daemon knows of: its own, with the cores and the memory that\n"
        "it gives, and those that ranks report from; GPUs and who uses them.",
        flags,
        0,
        0,
        0};
    struct options o = {0};
    struct err e;
    int rc = args_parse(&spec, argc, argv, &o, &e);

    if (rc == ARGS_HELP)
        return 0;
    if (!rc)
        rc = nodes(&o, &e);
    if (rc)
        err_print(&e, "hone");
    return err_exit_status(rc);
}

const struct verb verb_nodes = {"nodes", "machines, their cores and GPUs, who uses them",
                                run};
