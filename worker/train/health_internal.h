/* NVML as Hone knows it, for health.c and health_watch.c alone. */
#ifndef WORKER_TRAIN_HEALTH_INTERNAL_H
#define WORKER_TRAIN_HEALTH_INTERNAL_H

#include "worker/train/health.h"

enum {
    NVML_TIMEOUT = 10,
    NVML_GPU_LOST = 15,
    NVML_TEMPERATURE_GPU = 0,
    NVML_UNCORRECTED = 1,
    NVML_VOLATILE = 0,
    NVML_EVENT_XID = 8
};

struct nvml_rates {
    unsigned gpu, memory;
};
struct nvml_memory {
    unsigned long long total, free, used;
};

struct nvml_event {
    void *gpu;
    unsigned long long type, data; /* data: the number of an Xid */
    unsigned instance[2];
};

#define NVML_CALLS(X)                                                                      \
    X(nvmlInit_v2, (void))                                                                 \
    X(nvmlShutdown, (void))                                                                \
    X(nvmlDeviceGetCount_v2, (unsigned *))                                                 \
    X(nvmlDeviceGetHandleByIndex_v2, (unsigned, void **))                                  \
    X(nvmlDeviceGetName, (void *, char *, unsigned))                                       \
    X(nvmlDeviceGetUtilizationRates, (void *, struct nvml_rates *))                        \
    X(nvmlDeviceGetMemoryInfo, (void *, struct nvml_memory *))                             \
    X(nvmlDeviceGetTemperature, (void *, int, unsigned *))                                 \
    X(nvmlDeviceGetPowerUsage, (void *, unsigned *))                                       \
    X(nvmlDeviceGetCurrentClocksThrottleReasons, (void *, unsigned long long *))           \
    X(nvmlDeviceGetTotalEccErrors, (void *, int, int, unsigned long long *))

/* Those may be absent. */
#define NVML_EVENT_CALLS(X)                                                                \
    X(nvmlDeviceGetHandleByPciBusId_v2, (const char *, void **))                           \
    X(nvmlEventSetCreate, (void **))                                                       \
    X(nvmlDeviceRegisterEvents, (void *, unsigned long long, void *))                      \
    X(nvmlEventSetWait_v2, (void *, struct nvml_event *, unsigned))                        \
    X(nvmlEventSetFree, (void *))

struct nvml {
    void *file;
    const char *(*nvmlErrorString)(int);
#define X(name, args) int(*name) args;
    NVML_CALLS(X)
    NVML_EVENT_CALLS(X)
#undef X
};

/* 0, or ERR_DEVICE with the reason. */
int health_library(struct nvml *l, char *reason, size_t n);

/* What there is to know of the GPU `called`, whose handle NVML gave with rc. */
void health_gpu(const struct nvml *l, int rc, void *gpu, const char *called,
                struct health_gpu *g);

#endif
