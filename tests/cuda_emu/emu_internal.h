/* Inside the emulator: what its files share. emu_block.cc runs blocks, emu_race.cc watches
 * memory, emu_runtime.cc and emu_blas.cc stand for CUDA's libraries. */
#ifndef TESTS_CUDA_EMU_EMU_INTERNAL_H
#define TESTS_CUDA_EMU_EMU_INTERNAL_H

#include <map>
#include <mutex>

#include "tests/cuda_emu/cuda_emu.h"

extern "C" { /* from the linker: all static __shared__ variables */
extern char __start_emu_shared[] __attribute__((weak, visibility("hidden")));
extern char __stop_emu_shared[] __attribute__((weak, visibility("hidden")));
}

namespace emu
{

enum { STACK = 256 << 10, MAX_THREADS = 1024 };

struct warp {
    unsigned live, ready, waiting; /* lanes: waiting for a warp operation */
    uint32_t epoch;                /* warp barriers passed */
};

extern fiber fibers[MAX_THREADS];
extern warp warps[MAX_THREADS / 32];
extern size_t dynamic_bytes;
extern void *return_address; /* of the access that the race checker looks at */
/* Block barriers passed, blocks run, the first block of this launch. */
extern uint32_t epoch, serial, launch_serial;
/* cudaFuncAttributeMaxDynamicSharedMemorySize of each kernel. */
extern std::map<const void *, size_t> reserved;

/* Device memory, for the race checker: from cudaMalloc to cudaFree. */
void region_add(void *p, size_t bytes);
bool region_remove(void *p); /* false: there is none */

/* One lock for all of it: the back end may be called by several threads. */
class big_lock
{
    std::recursive_mutex mutex;
    int depth = 0;

  public:
    void lock()
    {
        mutex.lock();
        depth++;
    }
    void unlock()
    {
        depth--;
        mutex.unlock();
    }
    int let_go() /* however often it is held; for take() */
    {
        int n = depth;
        for (int i = 0; i < n; i++)
            unlock();
        return n;
    }
    void take(int n)
    {
        for (int i = 0; i < n; i++)
            lock();
    }
};
extern big_lock lock;
typedef std::lock_guard<big_lock> guard;

/* Work that begins only when ready() says so: what another process must do first. */
void enqueue_when(cudaStream_t s, std::function<bool()> ready, std::function<void()> run);

/* Is this the rank on which things shall go wrong (EMU_RANK, else any)? */
bool is_chosen_rank();

/* May this thread not make a call that waits or takes memory, because of a capture? Such a
 * call also spoils the capture. */
bool capture_forbids();

/* Does this call fail? (EMU_FAIL, emu_fail_at) */
bool injected(const char *call);
/* Ends the program when a step of training runs. */
void outside_steps(const char *call);

/* The device's clock, which events read, goes on by so much: called by work. */
void spend(double ms);

} // namespace emu
#endif
