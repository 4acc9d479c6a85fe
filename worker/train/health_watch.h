/* The GPU of this process while it trains: a thread asks NVML every few seconds and waits
 * for Xid events in between (the driver's error reports), so that a library that hangs
 * holds up nobody.
 *
 * Alarms: what health_alarm() says, once until it says something else; each Xid; a library
 * that has not answered for `seconds` and HEALTH_PATIENCE. No NVML at all is no alarm: then
 * nothing is known. */
#ifndef WORKER_TRAIN_HEALTH_WATCH_H
#define WORKER_TRAIN_HEALTH_WATCH_H

#include "worker/train/health.h"

struct health_watch;

enum { HEALTH_WATCH_SECONDS = 10 };

/* bus: the PCI address that the CUDA runtime gives ("0000:3B:00.0"). NULL: no watch (no
 * memory, no thread). */
struct health_watch *health_watch_start(const char *bus, double seconds);

/* 1 and the newest reading, or 0: there is none. */
int health_watch_latest(struct health_watch *w, struct health_gpu *out);

/* 1 and the next alarm that was not told yet. */
int health_watch_alarm(struct health_watch *w, char *text, size_t n);

/* Total. A thread that hangs in the library is left to itself. */
void health_watch_stop(struct health_watch *w);

#endif
