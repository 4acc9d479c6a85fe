/* What the daemon's own machine has: cores and memory to give, load, GPUs. */
#ifndef DAEMON_MACHINE_H
#define DAEMON_MACHINE_H

#include <stddef.h>
#include <stdint.h>

#include "daemon/cores.h"

void machine_cores(struct cores *out); /* that this process may use; at least one */
uint64_t machine_memory(void);         /* bytes: all, or what the control group allows */
/* The least memory.max of a group of cgroup v2 ("/system.slice/honed.service") and those
 * above it, below `root`; 0: no limit. */
uint64_t machine_limit(const char *root, const char *group);
uint64_t machine_free(void); /* bytes that programs could get now; 0: not known */
double machine_load(void);   /* mean of the last minute; below 0: not known */

enum { MACHINE_GPUS_MAX = 64 };

struct machine_gpu {
    char name[96];
};

/* Folder of the driver with one folder for each GPU, named by its place on the PCI bus. */
#define MACHINE_GPUS "/proc/driver/nvidia/gpus"

/* In the order of the bus, at most `most`; returns how many. No library is loaded. */
size_t machine_gpus(const char *folder, struct machine_gpu *out, size_t most);

#endif
