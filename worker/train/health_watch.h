/* The GPU of this process while it trains: a thread asks NVML every few seconds and waits
 * for Xid events in between (the driver's error reports), so that a library that hangs
 * holds up nobody.
 *
 * A GPU is broken once it is off the bus, or has had an uncorrected memory error since the
 * watch began (of older ones there is only an alarm). One that is off the bus may hold its
 * process in a call for ever: HEALTH_GRACE seconds later `lost` is called, from the thread,
 * and is expected to end the process.
 *
 * Alarms: what health_alarm() says, once until it says something else; each Xid; a library
 * that has not answered for `seconds` and HEALTH_PATIENCE. No NVML at all is no alarm: then
 * nothing is known. */
#ifndef WORKER_TRAIN_HEALTH_WATCH_H
#define WORKER_TRAIN_HEALTH_WATCH_H

#include "worker/train/health.h"

struct health_watch;

enum { HEALTH_WATCH_SECONDS = 10, HEALTH_GRACE = 5 };
typedef void health_lost(void *arg, const char *words);

/* bus: the PCI address that the CUDA runtime gives ("0000:3B:00.0"). NULL: no watch (no
 * memory, no thread). lost: may be NULL. */
struct health_watch *health_watch_start(const char *bus, double seconds, health_lost *lost,
                                        void *arg);

/* 1 and the newest reading, or 0: there is none. */
int health_watch_latest(struct health_watch *w, struct health_gpu *out);

/* 1 and the next alarm that was not told yet. */
int health_watch_alarm(struct health_watch *w, char *text, size_t n);

/* 1 and why, once the GPU is broken. */
int health_watch_broken(struct health_watch *w, char *text, size_t n);

/* A new reading, now; it is waited for at most so long. */
void health_watch_ask(struct health_watch *w, double seconds);

/* Total. A thread that hangs in the library is left to itself. */
void health_watch_stop(struct health_watch *w);

#endif
