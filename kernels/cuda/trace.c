/* Where the time of a step goes: ranges for profilers (NVTX, which costs nothing where none
 * listens), and events on the stream, between which the device's own clock is read.
 *
 * From one event to the next the stream belongs to the part that was entered first: also
 * when it waits, for the host's data or for the sums of other ranks; so the parts of a step
 * add up to its length. Two sets of events take turns: a step's are read when the next one
 * has ended, so that nobody waits for the device. What cannot be measured (an event fails,
 * more than MARKS of them) is left to the part before, or not known. */
#include <nvtx3/nvToolsExt.h>
#include <string.h>

#include "kernels/cuda/cuda.h"

enum { MARKS = 512 };

static const char *const names[BACKEND_PARTS] = {
    [BACKEND_LOAD] = "load",         [BACKEND_FORWARD] = "forward",
    [BACKEND_BACKWARD] = "backward", [BACKEND_REDUCE] = "reduce",
    [BACKEND_UPDATE] = "update",     [BACKEND_CHECKPOINT] = "checkpoint",
    [BACKEND_EVALUATE] = "evaluate"};

struct marks {
    cudaEvent_t event[MARKS];
    int part[MARKS], n, made;
};

static struct marks sets[2];
static int turn, named;

/* The moment that the stream comes to here. */
static void mark(struct marks *m, int part)
{
    if (m->n == MARKS || (m->n && m->part[m->n - 1] == part) || cuda_ready())
        return;
    if (m->n == m->made && !cudaEventCreate(&m->event[m->n]))
        m->made++;
    if (m->n < m->made && !cudaEventRecord(m->event[m->n], cuda_stream()))
        m->part[m->n++] = part;
    else
        cudaGetLastError();
}

void trace_enter(int part)
{
    if (named)
        nvtxRangePop();
    named = part >= 0 && part < BACKEND_PARTS;
    if (named)
        nvtxRangePushA(names[part]);
    if (named && part < BACKEND_STEP_PARTS)
        mark(&sets[turn], part);
}

static int read_marks(struct marks *m, double *seconds, int n)
{
    int known = m->n > 1;

    memset(seconds, 0, (size_t)n * sizeof *seconds);
    for (int i = 0; known && i + 1 < m->n; i++) {
        float ms = 0;

        known = !cudaEventElapsedTime(&ms, m->event[i], m->event[i + 1]);
        if (known && m->part[i] < n)
            seconds[m->part[i]] += ms / 1e3;
    }
    if (!known)
        cudaGetLastError();
    m->n = 0;
    return known;
}

int trace_step_seconds(double *seconds, int n)
{
    mark(&sets[turn], -1);
    trace_enter(-1);
    turn ^= 1;
    return read_marks(&sets[turn], seconds, n);
}

void trace_bus(char *buf, size_t n)
{
    *buf = 0;
    if (cuda_ready() || cudaDeviceGetPCIBusId(buf, (int)n, cuda_device()))
        *buf = 0;
}
