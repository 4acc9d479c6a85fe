/* The CUDA runtime of emu.h: memory, streams, events, graphs, with the prototypes of CUDA's
 * own header; only what the back end calls. */
#include "tests/cuda_emu/emu_internal.h"

#include <algorithm>
#include <deque>
#include <fcntl.h>
#include <memory>
#include <sys/mman.h>
#include <thread>
#include <time.h>
#include <unistd.h>

namespace emu
{

/* ---- streams, events, graphs ----
 * A stream is a queue of work that runs as late as may be: when somebody waits for it.
 * EMU_SEED odd: at once. */

struct event {
    cudaStream_t stream = nullptr;
    unsigned long number = 0; /* of the stream's work recorded, 0: never */
    bool timed = false;
    std::shared_ptr<double> at; /* ms, when the work before it was done */
};
struct item {
    std::function<void()> run;
    std::function<bool()> ready; /* empty: always */
};
struct use {
    const void *memory; /* of cudaMalloc, */
    unsigned long born; /* ... its number */
};
struct graph {
    std::vector<item> work;
    std::vector<use> uses;
    std::thread::id owner;
    cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
    bool spoiled = false;
    size_t bytes = 0; /* of device memory, once it can be launched */
};
static std::vector<graph *> captures; /* under way */
struct stream {
    std::deque<item> work;
    unsigned long pushed = 0, done = 0;
    graph *capture = nullptr;
    bool busy = false; /* some of its work is running, or asks whether it is ready */
};

static std::map<cudaStream_t, std::unique_ptr<stream>> streams;

static stream *get(cudaStream_t s)
{
    auto &p = streams[s];
    if (!p)
        p.reset(new stream);
    return p.get();
}

/* EMU_PROTECT: the host may not touch device memory. It lies in pages of its own, which are
 * open only while work of a stream runs; who else touches it gets SIGSEGV. */
static std::map<void *, size_t> guarded;
static int opened;

static bool protects()
{
    static const char *s = getenv("EMU_PROTECT");
    return s != nullptr;
}

static size_t pages(size_t n)
{
    return (n + 4095) / 4096 * 4096 + (n ? 0 : 4096);
}

struct open_memory {
    open_memory()
    {
        for (auto &m : guarded)
            if (!opened)
                mprotect(m.first, pages(m.second), PROT_READ | PROT_WRITE);
        opened++;
    }
    ~open_memory()
    {
        opened--;
        for (auto &m : guarded)
            if (!opened)
                mprotect(m.first, pages(m.second), PROT_NONE);
    }
};

static void *device_memory(size_t n)
{
    void *p = nullptr;
    if (!protects())
        return posix_memalign(&p, 256, n ? n : 1) ? nullptr : p;
    p = mmap(nullptr, pages(n), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return nullptr;
    guarded[p] = n;
    return p;
}

static void device_memory_free(void *p)
{
    auto m = guarded.find(p);
    if (m == guarded.end()) {
        free(p);
        return;
    }
    munmap(p, pages(m->second));
    guarded.erase(m);
}

/* Work up to number `until` that need not wait for anyone; true: that is all of it. */
static bool advance(stream *s, unsigned long until)
{
    if (s->done >= until || s->work.empty())
        return true;
    if (s->busy)
        return false;
    open_memory hold;
    s->busy = true;
    while (s->done < until && !s->work.empty()) {
        item next = s->work.front();
        if (next.ready && !next.ready())
            break;
        s->work.pop_front();
        next.run();
        s->done++;
    }
    s->busy = false;
    return s->done >= until || s->work.empty();
}

/* The same, waiting for other processes (their sums) and threads. */
static void drain(cudaStream_t id, unsigned long until)
{
    while (!advance(get(id), until)) {
        int depth = lock.let_go();
        usleep(50);
        lock.take(depth);
    }
}

static void drain_all()
{
    std::vector<cudaStream_t> all;
    for (auto &s : streams)
        all.push_back(s.first);
    for (cudaStream_t s : all)
        drain(s, ~0ul);
}

static double spent;

void spend(double ms)
{
    spent += ms;
}

static double device_ms()
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6 + spent;
}

static bool eager()
{
    static const char *s = getenv("EMU_SEED");
    return !s || strtoul(s, nullptr, 0) % 2;
}

static std::map<const void *, size_t> pinned, sizes; /* host's, device's */
static std::map<const void *, unsigned long> births; /* of device memory */

static void add_uses(graph *g, const std::vector<const void *> &pointers)
{
    for (const void *p : pointers) {
        auto m = sizes.upper_bound(p);
        if (m != sizes.begin() &&
            (const char *)p < (const char *)(--m)->first + std::max(m->second, (size_t)1))
            g->uses.push_back({m->first, births[m->first]});
    }
}

static void check_uses(const graph *g)
{
    for (const use &u : g->uses) {
        auto m = births.find(u.memory);
        if (m == births.end() || m->second != u.born)
            fail(nullptr, 0, "a graph is launched that uses device memory freed since");
    }
}

bool is_captured(cudaStream_t id)
{
    guard hold(lock);
    return get(id)->capture != nullptr;
}

bool capture_forbids()
{
    bool found = false;
    for (graph *c : captures)
        if (c->mode == cudaStreamCaptureModeGlobal ||
            (c->mode == cudaStreamCaptureModeThreadLocal &&
             c->owner == std::this_thread::get_id()))
            found = c->spoiled = true;
    return found;
}

static void enqueue_item(cudaStream_t id, item next,
                         const std::vector<const void *> &uses = {})
{
    guard hold(lock);
    stream *s = get(id);
    if (s->capture) {
        s->capture->work.push_back(std::move(next));
        add_uses(s->capture, uses);
        return;
    }
    if (!id)
        drain_all(); /* the legacy stream waits for all others */
    s->work.push_back(std::move(next));
    s->pushed++;
    if (!id)
        drain(id, ~0ul);
    else if (eager())
        advance(s, ~0ul);
}

void enqueue(cudaStream_t id, std::function<void()> run,
             const std::vector<const void *> &uses)
{
    enqueue_item(id, {std::move(run), {}}, uses);
}

void enqueue_when(cudaStream_t id, std::function<bool()> ready, std::function<void()> run)
{
    enqueue_item(id, {std::move(run), std::move(ready)});
}

/* ---- failures on request: EMU_FAIL=call:n, or emu_fail_at(), makes the n-th call from now
 * fail (0: the next); EMU_STALL=call:n makes it never return (EMU_STALLED: a
 * file that is made then). EMU_RANK: on that rank alone.
 * EMU_ERROR=214: it fails with that error of CUDA's, and so does every later call, as where
 * a device is lost. ---- */

big_lock lock;
static char fail_call[64];
static long fail_left = -1;

bool is_chosen_rank()
{
    const char *asked = getenv("EMU_RANK"), *rank = getenv("OMPI_COMM_WORLD_RANK");
    return !asked || (rank && !strcmp(asked, rank));
}

static void stall_if_asked(const char *call)
{
    static const char *ask = is_chosen_rank() ? getenv("EMU_STALL") : nullptr;
    static long left = ask && strchr(ask, ':') ? atol(strchr(ask, ':') + 1) : 0;
    if (!ask || strncmp(ask, call, strlen(call)) || ask[strlen(call)] != ':' || left--)
        return;
    if (const char *mark = getenv("EMU_STALLED"))
        close(creat(mark, 0600));
    lock.let_go();
    for (;;)
        pause();
}

bool injected(const char *call)
{
    static const char *ask = is_chosen_rank() ? getenv("EMU_FAIL") : nullptr;
    stall_if_asked(call);
    if (ask) {
        const char *colon = strchr(ask, ':');
        snprintf(fail_call, sizeof fail_call, "%.*s",
                 (int)(colon ? colon - ask : (long)strlen(ask)), ask);
        fail_left = colon ? atol(colon + 1) : 0;
        ask = nullptr;
    }
    if (fail_left < 0 || strcmp(call, fail_call) || fail_left--)
        return false;
    fail_call[0] = 0;
    return true;
}

static cudaError_t last_error, lasting;

static cudaError_t failed(cudaError_t e)
{
    return last_error = lasting ? lasting : e;
}

static bool fails(const char *call)
{
    if (lasting)
        return true;
    if (!injected(call))
        return false;
    if (const char *error = getenv("EMU_ERROR"))
        lasting = (cudaError_t)atoi(error);
    return true;
}

bool launch_fails()
{
    if (!fails("launch"))
        return false;
    failed(cudaErrorLaunchFailure);
    return true;
}

} // namespace emu

/* ---- the CUDA runtime: only what is called; add a call when the back end wants it ---- */

using namespace emu;
static thread_local int current_device;

static bool is_pinned(const void *p)
{
    auto i = pinned.upper_bound(p);
    return i != pinned.begin() && (const char *)p < (const char *)(--i)->first + i->second;
}

/* How much memory the device has: EMU_MEMORY, in MiB. */
static size_t used_bytes;
static size_t all_bytes()
{
    const char *s = getenv("EMU_MEMORY");

    return (s && is_chosen_rank() ? strtoul(s, nullptr, 0) : 16384) << 20;
}

/* A call that takes memory from the system or gives it back, or makes what does: never
 * inside a step of training (the back end says when one runs). */
extern "C" int cuda_in_step __attribute__((weak));
namespace emu
{
void outside_steps(const char *call)
{
    if (&cuda_in_step && cuda_in_step)
        fail(nullptr, 0, "%s inside a step: everything must have been reserved", call);
}
} // namespace emu

/* EMU_COUNT=FILE: what the host asked of the device in each step, one line a step; work of
 * a capture is not counted. */
namespace emu
{
struct counts {
    std::map<int, std::vector<long>> step;
    const char *path = is_chosen_rank() ? getenv("EMU_COUNT") : nullptr;
    ~counts()
    {
        FILE *f = path ? fopen(path, "w") : nullptr;
        if (!f)
            return;
        fprintf(f, "step kernels products copies fills events waits graphs nodes\n");
        for (auto &s : step) {
            fprintf(f, "%d", s.first);
            for (long n : s.second)
                fprintf(f, " %ld", n);
            fprintf(f, "\n");
        }
        fclose(f);
    }
};
void count_call(counted what, cudaStream_t s, long n)
{
    static counts all;
    guard hold(lock);
    if (!all.path || !&cuda_in_step || !cuda_in_step || get(s)->capture)
        return;
    all.step[cuda_in_step].resize(COUNTED);
    all.step[cuda_in_step][what] += n;
}
} // namespace emu

/* Of calls that a capture forbids. */
#define NOT_CAPTURED                                                                       \
    if (capture_forbids())                                                                 \
        return failed(cudaErrorStreamCaptureUnsupported);

/* The first line of every call: what fails on request. */
#define CALL(name, error)                                                                  \
    guard hold(lock);                                                                      \
    if (fails(#name))                                                                      \
        return failed(error);

extern "C" {
void emu_fail_at(const char *call, long n);

__attribute__((visibility("default"))) void emu_fail_at(const char *call, long n)
{
    guard hold(lock);
    snprintf(fail_call, sizeof fail_call, "%s", call);
    fail_left = n;
}

/* EMU_DEVICES: how many (1); EMU_DRIVER=old: a driver older than the toolkit. */
cudaError_t cudaGetDeviceCount(int *n)
{
    CALL(cudaGetDeviceCount, cudaErrorUnknown)
    const char *s = getenv("EMU_DEVICES"), *driver = getenv("EMU_DRIVER");
    *n = 0;
    if (driver && !strcmp(driver, "old"))
        return failed(cudaErrorInsufficientDriver);
    *n = s ? atoi(s) : 1;
    return *n ? cudaSuccess : failed(cudaErrorNoDevice);
}
cudaError_t cudaDriverGetVersion(int *v)
{
    const char *driver = getenv("EMU_DRIVER");
    *v = driver && !strcmp(driver, "old") ? 11040 : CUDART_VERSION;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *v)
{
    *v = CUDART_VERSION;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetPCIBusId(char *s, int n, int device)
{
    CALL(cudaDeviceGetPCIBusId, cudaErrorUnknown)
    snprintf(s, (size_t)n, "0000:%02X:00.0", 0x3b + device);
    return cudaSuccess;
}
cudaError_t cudaSetDevice(int device)
{
    CALL(cudaSetDevice, cudaErrorDevicesUnavailable)
    int n;
    if (cudaGetDeviceCount(&n) || device < 0 || device >= n)
        return failed(cudaErrorInvalidDevice);
    current_device = device;
    return cudaSuccess;
}
cudaError_t cudaGetDevice(int *device)
{
    *device = current_device;
    return cudaSuccess;
}
/* EMU_NAME: another kind of device; EMU_SAME_DEVICE: every process has the same one. */
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device)
{
    const char *name = getenv("EMU_NAME");
    const char *s = getenv("EMU_CAPABILITY"); /* 75: compute capability 7.5 */
    int capability = s && is_chosen_rank() ? atoi(s) : 80;
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "%s",
             name && is_chosen_rank() ? name : "emulated GPU");
    p->uuid.bytes[0] = getenv("EMU_SAME_DEVICE") ? 0 : (char)(device + 1);
    gethostname(p->uuid.bytes + 1, sizeof p->uuid.bytes - 1);
    p->major = capability / 10;
    p->minor = capability % 10;
    p->totalGlobalMem = all_bytes();
    p->multiProcessorCount = 2;
    return cudaSuccess;
}
/* EMU_NO_PEERS: as GeForce cards. */
cudaError_t cudaDeviceCanAccessPeer(int *can, int, int)
{
    CALL(cudaDeviceCanAccessPeer, cudaErrorInvalidDevice)
    *can = getenv("EMU_NO_PEERS") == nullptr;
    return cudaSuccess;
}
cudaError_t cudaMalloc(void **p, size_t n)
{
    CALL(cudaMalloc, cudaErrorMemoryAllocation)
    NOT_CAPTURED
    outside_steps("cudaMalloc");
    open_memory hold_open;
    *p = used_bytes + n > all_bytes() ? nullptr : device_memory(n);
    if (!*p)
        return failed(cudaErrorMemoryAllocation);
    static unsigned long born;
    sizes[*p] = n;
    births[*p] = ++born;
    used_bytes += n;
    memset(*p, 0xff, n);
    region_add(*p, n);
    return cudaSuccess;
}
cudaError_t cudaFree(void *p)
{
    CALL(cudaFree, cudaErrorUnknown)
    NOT_CAPTURED
    outside_steps("cudaFree");
    drain_all();
    if (!p)
        return cudaSuccess;
    if (!region_remove(p))
        return failed(cudaErrorInvalidValue);
    used_bytes -= sizes[p];
    sizes.erase(p);
    births.erase(p);
    device_memory_free(p);
    return cudaSuccess;
}
cudaError_t cudaMallocHost(void **p, size_t n)
{
    CALL(cudaMallocHost, cudaErrorMemoryAllocation)
    NOT_CAPTURED
    outside_steps("cudaMallocHost");
    if (posix_memalign(p, 4096, n ? n : 1))
        return failed(cudaErrorMemoryAllocation);
    pinned[*p] = n;
    return cudaSuccess;
}
cudaError_t cudaFreeHost(void *p)
{
    guard hold(lock);
    NOT_CAPTURED
    drain_all();
    pinned.erase(p);
    free(p);
    return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t *left, size_t *all)
{
    CALL(cudaMemGetInfo, cudaErrorUnknown)
    *all = all_bytes();
    *left = *all - used_bytes;
    return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n, cudaMemcpyKind kind,
                            cudaStream_t s)
{
    CALL(cudaMemcpyAsync, cudaErrorLaunchFailure)
    bool pageable = (kind == cudaMemcpyHostToDevice && !is_pinned(from)) ||
                    (kind == cudaMemcpyDeviceToHost && !is_pinned(to));
    if (pageable && get(s)->capture) { /* would be read when the graph is launched */
        get(s)->capture->spoiled = true;
        return failed(cudaErrorStreamCaptureUnsupported);
    }
    count_call(COPIES, s);
    if (kind == cudaMemcpyHostToDevice &&
        !is_pinned(from)) { /* pageable memory may be reused at once */
        auto copy =
            std::make_shared<std::vector<char>>((const char *)from, (const char *)from + n);
        enqueue(s, [=] { memcpy(to, copy->data(), n); });
        return cudaSuccess;
    }
    enqueue(s, [=] { memcpy(to, from, n); }, {to, from});
    return kind == cudaMemcpyDeviceToHost && !is_pinned(to) ? cudaStreamSynchronize(s)
                                                            : cudaSuccess;
}
cudaError_t cudaMemcpy(void *to, const void *from, size_t n, cudaMemcpyKind)
{
    CALL(cudaMemcpy, cudaErrorLaunchFailure)
    NOT_CAPTURED
    drain_all();
    open_memory hold_open;
    memcpy(to, from, n);
    return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void *p, int v, size_t n, cudaStream_t s)
{
    CALL(cudaMemsetAsync, cudaErrorLaunchFailure)
    count_call(FILLS, s);
    enqueue(s, [=] { memset(p, v, n); }, {p});
    return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned)
{
    CALL(cudaStreamCreateWithFlags, cudaErrorMemoryAllocation)
    static uintptr_t next = 0x1000;
    get(*s = (cudaStream_t)++next);
    return cudaSuccess;
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *s, unsigned flags, int)
{
    CALL(cudaStreamCreateWithPriority, cudaErrorMemoryAllocation)
    return cudaStreamCreateWithFlags(s, flags);
}
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *most)
{
    *least = 0;
    *most = -5;
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    guard hold(lock);
    drain(s, ~0ul);
    streams.erase(s);
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    CALL(cudaStreamSynchronize, cudaErrorIllegalAddress)
    NOT_CAPTURED
    count_call(WAITS, s);
    drain(s, ~0ul);
    return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize(void)
{
    CALL(cudaDeviceSynchronize, cudaErrorIllegalAddress)
    NOT_CAPTURED
    drain_all();
    return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned)
{
    CALL(cudaEventCreateWithFlags, cudaErrorMemoryAllocation)
    *e = (cudaEvent_t) new event;
    return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t *e)
{
    CALL(cudaEventCreate, cudaErrorMemoryAllocation)
    *e = (cudaEvent_t) new event;
    ((event *)*e)->timed = true;
    return cudaSuccess;
}
/* In the time of the device: what its work took here, and what emu::spend() added. */
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t begin, cudaEvent_t end)
{
    CALL(cudaEventElapsedTime, cudaErrorUnknown)
    event *a = (event *)begin, *b = (event *)end;
    if (!a->at || !b->at)
        return failed(cudaErrorInvalidResourceHandle);
    if (*a->at < 0 || *b->at < 0)
        return failed(cudaErrorNotReady);
    *ms = (float)(*b->at - *a->at);
    return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    CALL(cudaEventDestroy, cudaErrorUnknown)
    delete (event *)e;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s)
{
    CALL(cudaEventRecord, cudaErrorUnknown)
    count_call(EVENTS, s);
    event *v = (event *)e;
    if (v->timed) {
        auto at = std::make_shared<double>(-1);
        v->at = at;
        enqueue(s, [=] { *at = device_ms(); });
    }
    v->stream = s;
    v->number = get(s)->pushed;
    return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t e)
{
    CALL(cudaEventSynchronize, cudaErrorUnknown)
    NOT_CAPTURED
    event *v = (event *)e;
    if (v->number)
        drain(v->stream, v->number);
    return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t e)
{
    CALL(cudaEventQuery, cudaErrorIllegalAddress)
    NOT_CAPTURED
    event v = *(event *)e; /* who asks moves the work on, as a device would by itself */
    return !v.number || advance(get(v.stream), v.number) ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned)
{
    CALL(cudaStreamWaitEvent, cudaErrorUnknown)
    event v = *(event *)e;
    if (v.stream && get(v.stream)->capture)
        get(s)->capture =
            get(v.stream)->capture; /* a fork: the graph keeps the order of the calls */
    else if (v.number)
        enqueue_when(
            s, [=] { return advance(get(v.stream), v.number); }, [] {});
    return cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode mode)
{
    CALL(cudaStreamBeginCapture, cudaErrorUnknown)
    if (!s || get(s)->capture)
        return failed(cudaErrorIllegalState);
    graph *c = get(s)->capture = new graph;
    c->owner = std::this_thread::get_id();
    c->mode = mode;
    captures.push_back(c);
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g)
{
    guard hold(lock);
    graph *c = get(s)->capture;
    *g = nullptr;
    if (!c)
        return failed(cudaErrorIllegalState);
    captures.erase(std::find(captures.begin(), captures.end(), c));
    for (auto &t : streams)
        if (t.second->capture == c)
            t.second->capture = nullptr;
    if (injected("cudaStreamEndCapture") || c->spoiled) { /* it has ended, too */
        delete c;
        return failed(cudaErrorStreamCaptureInvalidated);
    }
    *g = (cudaGraph_t)c;
    return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *x, cudaGraph_t g, unsigned long long)
{
    CALL(cudaGraphInstantiate, cudaErrorUnknown)
    size_t bytes = (64 << 10) + 512 * ((graph *)g)->work.size();
    if (used_bytes + bytes > all_bytes())
        return failed(cudaErrorMemoryAllocation);
    graph *made = new graph(*(graph *)g);
    used_bytes += made->bytes = bytes;
    *x = (cudaGraphExec_t)made;
    return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t x, cudaStream_t s)
{
    CALL(cudaGraphLaunch, cudaErrorUnknown)
    check_uses((graph *)x);
    count_call(GRAPHS, s);
    count_call(NODES, s, (long)((graph *)x)->work.size());
    for (auto &f : ((graph *)x)->work)
        enqueue_item(s, f);
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t g)
{
    CALL(cudaGraphDestroy, cudaErrorUnknown)
    delete (graph *)g;
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t x)
{
    CALL(cudaGraphExecDestroy, cudaErrorUnknown)
    used_bytes -= ((graph *)x)->bytes;
    delete (graph *)x;
    return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void *function, cudaFuncAttribute what, int n)
{
    CALL(cudaFuncSetAttribute, cudaErrorUnknown)
    if (what == cudaFuncAttributeMaxDynamicSharedMemorySize)
        reserved[function] = (size_t)n;
    return cudaSuccess;
}
cudaError_t cudaGetLastError(void)
{
    guard hold(lock);
    cudaError_t e = last_error;
    last_error = cudaSuccess;
    return e;
}
const char *cudaGetErrorString(cudaError_t e)
{
    switch (e) {
    case cudaSuccess:
        return "no error";
    case cudaErrorMemoryAllocation:
        return "out of memory";
    case cudaErrorNoDevice:
        return "no CUDA-capable device is detected";
    case cudaErrorInsufficientDriver:
        return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorInvalidDevice:
        return "invalid device ordinal";
    case cudaErrorDevicesUnavailable:
        return "CUDA-capable device(s) is/are busy or unavailable";
    case cudaErrorIllegalAddress:
        return "an illegal memory access was encountered";
    case cudaErrorECCUncorrectable:
        return "uncorrectable ECC error encountered";
    case cudaErrorLaunchFailure:
        return "unspecified launch failure";
    case cudaErrorStreamCaptureUnsupported:
        return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated:
        return "operation failed due to a previous error during capture";
    default:
        return "unknown error";
    }
}
}
