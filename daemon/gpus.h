/* GPUs that the daemon may give away, by the numbers that CUDA gives them in the order of
 * the PCI bus (as nvidia-smi shows them). */
#ifndef DAEMON_GPUS_H
#define DAEMON_GPUS_H

#include "base/err.h"
#include "daemon/cores.h"

/* "0,2,3", or "none". ERR_USAGE. */
int gpus_parse(const char *text, struct cores *out, struct err *e);
/* As honed was started: what CUDA_VISIBLE_DEVICES lets it see, else all that the driver
 * lists under `proc` (/proc/driver/nvidia/gpus). Names that are no numbers (a MIG device,
 * a UUID) are not given away one by one: none. */
void gpus_find(const char *visible, const char *proc, struct cores *out);

#endif
