/* The race checker of emu.h, and cp.async, which it watches.
 *
 * Compile this file without -fsanitize=thread, also when the kernels are compiled with it:
 * that option makes the compiler report each load and store of a kernel to the functions at
 * the end of this file, and not to libtsan. */
#include "tests/cuda_emu/emu_internal.h"

namespace emu
{

static void set_under_way(const void *p, size_t n, bool yes);

/* ---- cp.async: the target is poison from the issue to the wait, so both too early and too
 * late shows ---- */

void copy_async(void *to, const void *from, unsigned bytes, unsigned valid,
                const char *file, int line)
{
    if (!is_shared(to, bytes) || (uintptr_t)to % bytes || (uintptr_t)from % bytes ||
        valid > bytes)
        fail(file, line,
             "cp.async of %u bytes from %p to %p: not shared memory, or not aligned", bytes,
             from, to);
    touch(now->thread, from, valid, false, file, line);
    touch(now->thread, to, bytes, true, file, line);
    set_under_way(to, bytes, true);
    memset(to, 0xff, bytes);
    now->copies.push_back({to, from, valid, bytes - valid});
}

void copy_commit()
{
    now->groups.push_back(now->copies.size());
}

void copy_wait(size_t left, const char *file, int line)
{
    auto &g = now->groups;
    auto &c = now->copies;
    if (g.size() <= left)
        return;
    size_t done = g[g.size() - left - 1];
    for (size_t i = 0; i < done; i++) {
        memcpy(c[i].to, c[i].from, c[i].bytes);
        memset((char *)c[i].to + c[i].bytes, 0, c[i].zeros);
        set_under_way(c[i].to, c[i].bytes + c[i].zeros, false);
        touch(now->thread, c[i].to, c[i].bytes + c[i].zeros, true, file, line);
    }
    c.erase(c.begin(), c.begin() + done);
    g.erase(g.begin(), g.end() - left);
    for (auto &end : g)
        end -= done;
}

/* ---- race checker ----
 * For each byte of shared memory and of cudaMalloc's: who wrote it last, and the last two
 * threads that read it. Two accesses of one block are ordered by a __syncthreads between
 * them, or by a __syncwarp when one warp made both; two blocks of one launch never are. So
 * it finds a race in any run that makes both accesses, whatever the order of the fibers. */

struct mark {
    uint32_t epoch, warp_epoch, serial;
    uint16_t thread;
    bool used, under_way; /* a cp.async that nobody has waited for */
};
struct shadow_byte {
    mark write, read[2];
};
struct region {
    size_t bytes;
    shadow_byte *shadow;
};
static std::map<uintptr_t, region> regions; /* cudaMalloc's */

static bool checking;                 /* some file was built with -fsanitize=thread */
static shadow_byte *shared_shadow[2]; /* dynamic, static */

static shadow_byte *new_shadow(size_t bytes)
{
    return (shadow_byte *)calloc(bytes ? bytes : 1, sizeof(shadow_byte));
}

static shadow_byte *find_shadow(uintptr_t a, size_t n)
{
    uintptr_t d = (uintptr_t)dynamic_shared, s = (uintptr_t)__start_emu_shared;
    if (d && a >= d && a + n <= d + dynamic_bytes) {
        if (!shared_shadow[0])
            shared_shadow[0] = new_shadow(227 << 10);
        return shared_shadow[0] + (a - d);
    }
    if (a >= s && a + n <= (uintptr_t)__stop_emu_shared) {
        if (!shared_shadow[1])
            shared_shadow[1] = new_shadow(__stop_emu_shared - __start_emu_shared);
        return shared_shadow[1] + (a - s);
    }
    auto r = regions.upper_bound(a);
    if (r == regions.begin())
        return nullptr;
    --r;
    if (a + n > r->first + r->second.bytes)
        return nullptr;
    if (!r->second.shadow)
        r->second.shadow = new_shadow(r->second.bytes);
    return r->second.shadow + (a - r->first);
}

static bool races(const mark &m, int thread, bool shared)
{
    if (!m.used || m.serial < launch_serial)
        return false;
    if (m.serial != serial)
        return !shared;
    if (m.thread == thread || m.epoch != epoch)
        return false;
    return m.thread / 32 != thread / 32 || m.warp_epoch == warps[thread / 32].epoch;
}

void touch(int thread, const void *p, size_t n, bool write, const char *file, int line)
{
    if (!checking || !n)
        return;
    shadow_byte *s = find_shadow((uintptr_t)p, n);
    if (!s)
        return;
    if (!now)
        fail(file, line, "the host uses device memory at %p", p);
    bool shared = is_shared(p, n);
    mark me = {epoch, warps[thread / 32].epoch, serial, (uint16_t)thread, true, false};
    for (size_t i = 0; i < n; i++) {
        if (s[i].write.under_way && s[i].write.serial == serial)
            fail(file, line,
                 "race: thread %d %s shared memory at %p that a cp.async of thread %d is "
                 "still writing",
                 thread, write ? "writes" : "reads", (const char *)p + i,
                 s[i].write.thread);
        const mark *other = races(s[i].write, thread, shared) ? &s[i].write : nullptr;
        for (int r = 0; write && r < 2 && !other; r++)
            if (races(s[i].read[r], thread, shared))
                other = &s[i].read[r];
        if (other)
            fail(file, line,
                 "race: thread %d %s %s memory at %p that thread %d of %s %s with no "
                 "barrier between",
                 thread, write ? "writes" : "reads", shared ? "shared" : "global",
                 (const char *)p + i, other->thread,
                 other->serial == serial ? "this block" : "another block",
                 other == &s[i].write ? "wrote" : "read");
        if (write)
            s[i].write = me;
        else {
            if (s[i].read[0].thread != thread)
                s[i].read[1] = s[i].read[0];
            s[i].read[0] = me;
        }
    }
}

static void set_under_way(const void *p, size_t n, bool yes)
{
    shadow_byte *s = checking ? find_shadow((uintptr_t)p, n) : nullptr;
    for (size_t i = 0; s && i < n; i++)
        s[i].write.under_way = yes;
}

[[maybe_unused]] static void hook(const void *p, size_t n, bool write, void *from)
{
    checking = true;
    if (!now && regions.empty())
        return;
    uintptr_t a = (uintptr_t)p;
    if (now && a >= (uintptr_t)fibers[0].stack &&
        a < (uintptr_t)fibers[0].stack + (size_t)MAX_THREADS * STACK)
        return;
    return_address = from;
    touch(now ? now->thread : 0, p, n, write, nullptr, 0);
}

void region_add(void *p, size_t bytes)
{
    regions[(uintptr_t)p] = {bytes, nullptr};
}

bool region_remove(void *p)
{
    auto r = regions.find((uintptr_t)p);
    if (r == regions.end())
        return false;
    free(r->second.shadow);
    regions.erase(r);
    return true;
}

} // namespace emu

#if !defined(__SANITIZE_ADDRESS__) /* which knows these names itself */
using emu::hook;

extern "C" {
/* What -fsanitize=thread makes the compiler call. */
void __tsan_init(void)
{
}
void __tsan_func_entry(void *)
{
}
void __tsan_func_exit(void)
{
}
#define HOOK(name, bytes, write)                                                           \
    void __tsan_##name(void *p)                                                            \
    {                                                                                      \
        hook(p, bytes, write, __builtin_return_address(0));                                \
    }
HOOK(read1, 1, false)
HOOK(read2, 2, false)
HOOK(read4, 4, false)
HOOK(read8, 8, false)
HOOK(read16, 16, false)
HOOK(write1, 1, true)
HOOK(write2, 2, true)
HOOK(write4, 4, true)
HOOK(write8, 8, true)
HOOK(write16, 16, true)
HOOK(unaligned_read2, 2, false)
HOOK(unaligned_read4, 4, false)
HOOK(unaligned_read8, 8, false)
HOOK(unaligned_read16, 16, false)
HOOK(unaligned_write2, 2, true)
HOOK(unaligned_write4, 4, true)
HOOK(unaligned_write8, 8, true)
HOOK(unaligned_write16, 16, true)
void __tsan_read_range(void *p, size_t n)
{
    hook(p, n, false, __builtin_return_address(0));
}
void __tsan_write_range(void *p, size_t n)
{
    hook(p, n, true, __builtin_return_address(0));
}
void __tsan_vptr_update(void **, void *)
{
}
void __tsan_vptr_read(void **)
{
}
}
#endif
