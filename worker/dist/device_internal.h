/* Inside the sums over devices: shared by device.c and device_watch.c alone. */
#ifndef WORKER_DIST_DEVICE_INTERNAL_H
#define WORKER_DIST_DEVICE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "worker/dist/cluster_internal.h"
#include "worker/dist/device.h"

enum { DEVICE_LABELS = 1024 };

struct device_label {   /* of a sum */
    _Atomic int bucket; /* -1: rows of embedding tables */
    _Atomic long step;
};

struct devices {
    struct comm comm;
    struct cluster *cluster;
    const struct backend *backend;
    struct backend_group *group;
    struct backend_card own;
    int two_bytes;
    double limit;                             /* seconds; 0: the cluster's patience */
    long queued;                              /* sums */
    struct device_label label[DEVICE_LABELS]; /* of sum number i, at i % DEVICE_LABELS */
    pthread_t thread;
    int watched;
    _Atomic int stopping, aborted;
};

int device_watch_start(struct devices *d, struct err *e);
void device_watch_stop(struct devices *d); /* total */

#endif
