/* How the GPUs of this host are: what NVML, the driver's own library, says of each.
 *
 * The library is loaded at run time (HONE_NVML names another file); without it, or when it
 * fails, there is a reason in one line. A driver that has lost a GPU may never answer: the
 * question is asked on a thread of its own, and given up after a while, for good.
 *
 * Invariant: health_read() returns within HEALTH_PATIENCE seconds and a little. */
#ifndef WORKER_TRAIN_HEALTH_H
#define WORKER_TRAIN_HEALTH_H

#include "base/err.h"
#include "base/str.h"

enum { HEALTH_GPUS_MAX = 16, HEALTH_PATIENCE = 2 };

/* -1: not known, or not offered by this GPU. */
struct health_gpu {
    char name[96];
    double busy, memory_busy; /* percent of the last second */
    double used, total;       /* bytes */
    double celsius, watts;    /* now */
    double throttled;         /* bits, HEALTH_ */
    double ecc_uncorrected;   /* errors since the driver was loaded */
    int lost;                 /* it fell off the bus */
    char failed[96];          /* why nothing is known; "" */
};

/* Why a GPU runs slower than it could (NVML's bits). */
enum {
    HEALTH_POWER_CAP = 0x4,
    HEALTH_HW_SLOWDOWN = 0x8,
    HEALTH_HOT = 0x20 | 0x40,
    HEALTH_POWER_BRAKE = 0x80
};

struct health {
    int n;
    struct health_gpu gpu[HEALTH_GPUS_MAX];
};

/* 0, or ERR_DEVICE with the reason and the mend where one is known. */
int health_read(struct health *h, struct err *e);

/* One line about a GPU: "NVIDIA H200: 3 % busy, 1.2 of 150.0 GB, 41 C, 75 W". */
void health_line(const struct health_gpu *g, struct str *out);

/* What is wrong with it, in one line; 0: nothing. */
int health_alarm(const struct health_gpu *g, struct str *out);

#endif
