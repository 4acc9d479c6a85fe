/* What the daemon's benchmarks share: the real honed in a folder of its own, clients of it,
 * and this program as its hone-worker where the engine would only be in the way. Whatever
 * goes wrong ends the program with a line that says what. */
#ifndef TESTS_BENCH_DAEMON_RIG_H
#define TESTS_BENCH_DAEMON_RIG_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "proto/client.h"

/* In a folder of their own: honed, hone-worker (a link to this program), state/, job.yaml.
 */
struct rig {
    char dir[64], address[128], job[128], state[96];
    pid_t honed; /* 0: it does not run */
};
extern struct rig rig;

void must(int ok, const char *what);
void rig_open(const char *programs); /* folder of honed */
void rig_close(void);
void rig_use_worker(const char *program); /* instead of this one */

double rig_start(void); /* seconds until a client was answered */
void rig_stop(int signal);

/* Of honed, and of the process that forks checks (0 where there is none). */
struct rig_usage {
    double memory, checker_memory; /* resident, MB */
    double cpu, checker_cpu;       /* seconds; of the checker with its checks */
    long descriptors;
};
struct rig_usage rig_usage(void);

double rig_cpu(pid_t pid, int with_children); /* seconds */

struct client *rig_dial(void);
ProtobufCMessage *rig_call(struct client *c, const char *method,
                           const ProtobufCMessage *request,
                           const ProtobufCMessageDescriptor *d);
/* A job of one stage that does what `set` says, see stand_in_work(); `file` NULL: of the
 * rig. */
uint64_t rig_submit(struct client *c, const char *file, const char *set);
void rig_cancel(struct client *c, uint64_t id);
int rig_is_running(struct client *c, uint64_t id, int heard);
struct client *rig_watch(uint64_t id); /* from its first event on */

double percentile(double *v, size_t n, double p);

/* This program as hone-worker: 1 and *status, or 0: it is not. */
int stand_in(int argc, char **argv, int *status);

#endif
