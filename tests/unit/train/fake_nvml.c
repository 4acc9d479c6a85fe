/* A driver's NVML library that answers, fails or hangs as FAKE_NVML asks: "ok", "init" (the
 * library does not start), "lost" (the second GPU fell off the bus), "hang", "sick" (hot,
 * with memory errors), "xid" (an Xid soon: FAKE_NVML_XID, or 79), "falls" (off the bus, at
 * the second look), "stuck" (the third reading never ends), "ecc" (a memory error, from the
 * second reading on). FAKE_NVML_RANK: of that rank of Open MPI alone; the others are well.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3, TIMEOUT = 10, DRIVER_NOT_LOADED = 9, GPU_LOST = 15 };

static int is(const char *mode)
{
    const char *asked = getenv("FAKE_NVML"), *chosen = getenv("FAKE_NVML_RANK");
    const char *rank = getenv("OMPI_COMM_WORLD_RANK");

    if (chosen && (!rank || strcmp(chosen, rank)))
        return !strcmp(mode, "ok");
    return asked && !strcmp(asked, mode);
}

/* FAKE_NVML_AFTER: only once that file exists. */
static int happened(void)
{
    const char *file = getenv("FAKE_NVML_AFTER");
    static int did;

    did = did || !file || !access(file, F_OK);
    return did;
}

struct event {
    void *gpu;
    unsigned long long type, data;
    unsigned instance[2];
};

const char *nvmlErrorString(int rc);
int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, void **gpu);
int nvmlEventSetCreate(void **set);
int nvmlDeviceRegisterEvents(void *gpu, unsigned long long types, void *set);
int nvmlEventSetWait_v2(void *set, struct event *event, unsigned ms);
int nvmlEventSetFree(void *set);
int nvmlInit_v2(void);
int nvmlShutdown(void);
int nvmlDeviceGetCount_v2(unsigned *n);
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **gpu);
int nvmlDeviceGetName(void *gpu, char *name, unsigned n);
int nvmlDeviceGetUtilizationRates(void *gpu, unsigned *rates);
int nvmlDeviceGetMemoryInfo(void *gpu, unsigned long long *memory);
int nvmlDeviceGetTemperature(void *gpu, int which, unsigned *celsius);
int nvmlDeviceGetPowerUsage(void *gpu, unsigned *milliwatts);
int nvmlDeviceGetCurrentClocksThrottleReasons(void *gpu, unsigned long long *why);
int nvmlDeviceGetTotalEccErrors(void *gpu, int kind, int counter, unsigned long long *n);

const char *nvmlErrorString(int rc)
{
    return rc == GPU_LOST ? "GPU is lost" : rc == SUCCESS ? "Success" : "Driver Not Loaded";
}

int nvmlInit_v2(void)
{
    while (is("hang"))
        sleep(1);
    return is("init") ? DRIVER_NOT_LOADED : SUCCESS;
}

int nvmlShutdown(void)
{
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned *n)
{
    *n = 2;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **gpu)
{
    static char gpus[2];

    *gpu = &gpus[i];
    return i && is("lost") ? GPU_LOST : SUCCESS;
}

int nvmlDeviceGetName(void *gpu, char *name, unsigned n)
{
    (void)gpu;
    snprintf(name, n, "NVIDIA Fake 1000");
    return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(void *gpu, unsigned *rates)
{
    (void)gpu;
    rates[0] = 37;
    rates[1] = 12;
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(void *gpu, unsigned long long *memory)
{
    (void)gpu;
    memory[0] = 80000000000ull;
    memory[1] = 78000000000ull;
    memory[2] = 2000000000ull;
    return SUCCESS;
}

int nvmlDeviceGetTemperature(void *gpu, int which, unsigned *celsius)
{
    static int readings;

    (void)gpu;
    while (is("stuck") && readings == 2)
        sleep(1);
    readings += is("stuck");
    *celsius = is("sick") ? 95 : 41;
    return which ? NOT_SUPPORTED : SUCCESS;
}

int nvmlDeviceGetPowerUsage(void *gpu, unsigned *milliwatts)
{
    (void)gpu;
    *milliwatts = 75500;
    return SUCCESS;
}

int nvmlDeviceGetCurrentClocksThrottleReasons(void *gpu, unsigned long long *why)
{
    (void)gpu;
    *why = is("sick") ? 0x40 : 0x1; /* thermal slowdown; idle */
    return SUCCESS;
}

int nvmlDeviceGetTotalEccErrors(void *gpu, int kind, int counter, unsigned long long *n)
{
    (void)counter;
    (void)kind;
    static int readings;

    *n = is("ecc") ? happened() && (getenv("FAKE_NVML_AFTER") || readings++ > 0)
         : is("sick") && (size_t)gpu % 2 ? 3
                                         : 0;
    return is("sick") || is("ecc") ? SUCCESS : NOT_SUPPORTED;
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, void **gpu)
{
    static char it;
    static int looks;

    *gpu = &it;
    if (strncmp(bus, "0000:3", 6))
        return NOT_SUPPORTED;
    return is("falls") && looks++ ? GPU_LOST : SUCCESS;
}

int nvmlEventSetCreate(void **set)
{
    static char it;

    *set = &it;
    return SUCCESS;
}

int nvmlDeviceRegisterEvents(void *gpu, unsigned long long types, void *set)
{
    (void)gpu;
    (void)set;
    return types == 8 ? SUCCESS : NOT_SUPPORTED;
}

int nvmlEventSetWait_v2(void *set, struct event *event, unsigned ms)
{
    static int told;

    (void)set;
    if (is("xid") && happened() && !told++) {
        event->type = 8;
        event->data =
            getenv("FAKE_NVML_XID") ? strtoul(getenv("FAKE_NVML_XID"), NULL, 10) : 79;
        return SUCCESS;
    }
    usleep(ms * 1000);
    return TIMEOUT;
}

int nvmlEventSetFree(void *set)
{
    (void)set;
    return SUCCESS;
}
