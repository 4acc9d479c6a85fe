/* The scheduler of emu.h: a block's threads are fibers of one OS thread, which switch only
 * where they wait, in an order drawn from EMU_SEED. All blocks of a launch run one after
 * another, from a random one on.
 *
 * Fails by a message with the place and the thread, and _exit(3): an emulated program that
 * is wrong must not go on. */
#include "tests/cuda_emu/emu_internal.h"

#include <cstdarg>
#include <dlfcn.h>
#include <map>
#include <sys/mman.h>
#include <unistd.h>

#if !defined(__x86_64__) || defined(EMU_UCONTEXT)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define ASAN(call) call
#else
#define ASAN(call) (void)0
#endif

namespace emu
{

fiber *now;
dim3 grid_dim, block_dim;
uint3 block_idx;
unsigned char *dynamic_shared;
counters count;

fiber fibers[MAX_THREADS];
warp warps[MAX_THREADS / 32];
static int n_threads, n_warps, live, arrived, current_warp;
static bool stay, first_entry;
size_t dynamic_bytes;
static const char *kernel = "";
static const std::function<void()> *body;
static uint32_t random_state = 1;
void *return_address;
uint32_t epoch, serial, launch_serial;

static uint32_t random_word()
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    return random_state ^= random_state << 5;
}

static void print_counters()
{
    fprintf(stderr,
            "cuda_emu: %lu launches, %lu blocks, %lu switches, %lu block barriers, %lu "
            "warp operations, %lu mma, %lu ldmatrix rows of 8, %lu bank conflicts\n",
            count.launches, count.blocks, count.switches, count.barriers, count.warp_ops,
            count.mma, count.ldmatrix, count.bank_conflicts);
}

static struct start {
    start()
    {
        const char *s = getenv("EMU_SEED");
        random_state = (s ? (uint32_t)strtoul(s, nullptr, 0) : 1u) * 2654435761u | 1u;
        if (getenv("EMU_STATS"))
            atexit(print_counters);
    }
} start_;

void fail(const char *file, int line, const char *format, ...)
{
    char place[512] = "?:0";
    if (file)
        snprintf(place, sizeof place, "%s:%d", file, line);
    else if (return_address) { /* an access that the race checker did not like */
        Dl_info at = {};
        dladdr(return_address, &at);
        snprintf(place, sizeof place, "addr2line -e '%s' %#lx", at.dli_fname,
                 (unsigned long)((char *)return_address - 1 - (char *)at.dli_fbase));
        FILE *f = popen(place, "r");
        if (f && fgets(place, sizeof place, f))
            place[strcspn(place, " \n")] = 0;
    }
    fflush(stdout);
    fprintf(stderr, "cuda_emu: %s: %s", place, *kernel ? kernel : "host");
    if (now)
        fprintf(stderr, " block (%u,%u,%u) thread (%u,%u,%u)", block_idx.x, block_idx.y,
                block_idx.z, now->tid.x, now->tid.y, now->tid.z);
    fprintf(stderr, ": ");
    va_list a;
    va_start(a, format);
    vfprintf(stderr, format, a);
    va_end(a);
    fprintf(stderr, "\n");
    _exit(3);
}

/* ---- fibers ---- */

static void *scheduler_sp;
#if defined(__SANITIZE_ADDRESS__)
static void *scheduler_fake;
static const void *scheduler_stack;
static size_t scheduler_size;
#endif
static void entry();

#if defined(__x86_64__) && !defined(EMU_UCONTEXT)
/* Save the registers that a call must keep, change stacks, restore. swapcontext would make
 * a system call. */
__attribute__((naked, noinline)) static void change_stack(void **, void *)
{
    asm("pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
        "movq %rsp, (%rdi)\n movq %rsi, %rsp\n"
        "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n ret\n");
}
static void prepare(fiber *f)
{
    void **top = (void **)(f->stack + STACK) -
                 1; /* at the start of a function the stack is 8 off 16 */
    *--top = (void *)entry;
    for (int i = 0; i < 6; i++)
        *--top = nullptr;
    f->sp = top;
}
#else
static ucontext_t contexts[MAX_THREADS],
    scheduler_context; /* an sp points to its context */
static void change_stack(void **save, void *load)
{
    if (save == &scheduler_sp)
        *save = &scheduler_context;
    swapcontext((ucontext_t *)*save, (ucontext_t *)load);
}
static void prepare(fiber *f)
{
    ucontext_t *c = &contexts[f->thread];
    getcontext(c);
    c->uc_stack.ss_sp = f->stack;
    c->uc_stack.ss_size = STACK;
    c->uc_link = nullptr;
    makecontext(c, entry, 0);
    f->sp = c;
}
#endif

static fiber *next_fiber();

/* From the fiber that runs to the next, or to run_block when none is left. */
__attribute__((no_sanitize("address"))) static void leave()
{
    fiber *f = now, *next = next_fiber();
    if (next == f)
        return;
    count.switches++;
    now = next;
    if (next) {
        ASAN(__sanitizer_start_switch_fiber(f->state == DONE ? nullptr : &f->fake_stack,
                                            next->stack, STACK));
        change_stack(&f->sp, next->sp);
    } else {
        ASAN(__sanitizer_start_switch_fiber(nullptr, scheduler_stack, scheduler_size));
        change_stack(&f->sp, scheduler_sp);
    }
    ASAN(__sanitizer_finish_switch_fiber(f->fake_stack, nullptr, nullptr));
}

/* ---- barriers ---- */

static bool same_place(const fiber *f, const fiber *g)
{
    return f->line == g->line && (f->file == g->file || !strcmp(f->file, g->file));
}

/* Open what the waiting lanes of a warp wait for, where all have come. */
static void open_warp(int w)
{
    fiber *lanes = &fibers[32 * w];
    for (unsigned rest = warps[w].waiting; rest;) {
        int first = __builtin_ctz(rest);
        fiber *f = &lanes[first];
        unsigned who = f->mask & warps[w].live;
        rest &= ~who;
        if (who & ~warps[w].waiting)
            continue;
        for (int i = first + 1; i < 32; i++)
            if (in(who, i) && (lanes[i].mask != f->mask ||
                               (lanes[i].op != f->op && strcmp(lanes[i].op, f->op)) ||
                               (f->aligned && !same_place(f, &lanes[i]))))
                fail(f->file, f->line,
                     "lanes %d and %d of a warp wait for different things: %s mask %08x "
                     "here, %s mask %08x at %s:%d",
                     first, i, f->op, f->mask, lanes[i].op, lanes[i].mask, lanes[i].file,
                     lanes[i].line);
        count.warp_ops++;
        if (f->run)
            f->run(lanes, who);
        else if (who == warps[w].live) /* __syncwarp: the only one that orders memory */
            warps[w].epoch++;
        for (int i = 0; i < 32; i++)
            if (in(who, i))
                lanes[i].state = READY;
        warps[w].ready |= who;
        warps[w].waiting &= ~who;
    }
}

static int *block_votes[MAX_THREADS];
static int vote_sum;

static void open_block()
{
    if (!live || arrived < live)
        return;
    fiber *first = nullptr;
    for (int i = 0; i < n_threads; i++) {
        fiber *f = &fibers[i];
        if (f->state != AT_BLOCK)
            continue;
        if (!first)
            first = f;
        if (!same_place(f, first))
            fail(first->file, first->line,
                 "threads %d and %d of a block wait at different barriers: %s here, %s at "
                 "%s:%d",
                 first->thread, i, first->op, f->op, f->file, f->line);
        f->state = READY;
        warps[f->warp].ready |= 1u << f->lane;
        if (block_votes[i]) {
            block_votes[i][0] = vote_sum;
            block_votes[i][1] = arrived;
        }
    }
    arrived = vote_sum = 0;
    epoch++;
    count.barriers++;
}

void block_barrier(const char *op, int *votes, int vote, const char *file, int line)
{
    fiber *f = now;
    f->op = op;
    f->file = file;
    f->line = line;
    f->state = AT_BLOCK;
    block_votes[f->thread] = votes;
    vote_sum += vote != 0;
    arrived++;
    open_block();
    leave();
}

void warp_op(const char *op, unsigned mask, bool aligned, void *arg,
             void (*run)(fiber *, unsigned), const char *file, int line)
{
    fiber *f = now;
    if (!in(mask, f->lane))
        fail(file, line, "%s: lane %d is not in its mask %08x", op, f->lane, mask);
    f->op = op;
    f->mask = mask;
    f->aligned = aligned;
    f->arg = arg;
    f->run = run;
    f->file = file;
    f->line = line;
    f->state = AT_WARP;
    warp *w = &warps[f->warp];
    w->waiting |= 1u << f->lane;
    if (!(mask & w->live & ~w->waiting))
        open_warp(f->warp);
    leave();
}

/* Never returns, so ASan must not mark its frame: the next block starts on the same stack.
 */
__attribute__((no_sanitize("address"))) static void entry()
{
#if defined(__SANITIZE_ADDRESS__)
    const void *from;
    size_t size;
    __sanitizer_finish_switch_fiber(nullptr, &from, &size);
    if (first_entry)
        scheduler_stack = from, scheduler_size = size;
#endif
    first_entry = false;
    (*body)();
    now->state = DONE;
    warps[now->warp].live &= ~(1u << now->lane);
    live--;
    open_warp(now->warp);
    open_block();
    leave();
    abort();
}

[[noreturn]] static void deadlock()
{
    for (int i = 0; i < n_threads; i++)
        for (int j = 0; j < n_threads; j++)
            if (fibers[i].state == AT_WARP && fibers[j].state == AT_BLOCK)
                fail(fibers[i].file, fibers[i].line,
                     "deadlock: thread %d waits at %s mask %08x here, thread %d at %s at "
                     "%s:%d",
                     i, fibers[i].op, fibers[i].mask, j, fibers[j].op, fibers[j].file,
                     fibers[j].line);
    fail(nullptr, 0, "deadlock");
}

static fiber *next_fiber()
{
    if (!live)
        return nullptr;
    uint32_t r = random_word();
    int w = current_warp;
    if (!warps[w].ready || (!stay && r % 4 == 0)) {
        int k = 0;
        w = (int)(r >> 8) % n_warps;
        while (!warps[w].ready) {
            w = w + 1 < n_warps ? w + 1 : 0;
            if (++k > n_warps)
                deadlock();
        }
        current_warp = w;
    }
    unsigned turn = r >> 27,
             ready = warps[w].ready; /* the first ready lane from lane `turn` on */
    int lane = (__builtin_ctz(ready >> turn | ready << (-turn & 31)) + turn) & 31;
    warps[w].ready &= ~(1u << lane);
    return &fibers[32 * w + lane];
}

/* ---- blocks ---- */

static void run_block()
{
    for (int w = 0; w < n_warps; w++)
        warps[w] = {0, 0, 0, 0};
    for (int i = 0; i < n_threads; i++) {
        fiber *f = &fibers[i];
        f->thread = i;
        f->warp = i / 32;
        f->lane = i % 32;
        f->tid = {i % block_dim.x, i / block_dim.x % block_dim.y,
                  i / block_dim.x / block_dim.y};
        f->state = READY;
        f->copies.clear();
        f->groups.clear();
        warps[f->warp].live |= 1u << f->lane;
        prepare(f);
    }
    for (int w = 0; w < n_warps; w++)
        warps[w].ready = warps[w].live;
    live = n_threads;
    arrived = vote_sum = 0;
    epoch++;
    serial++;
    /* Some blocks let one warp run until it must wait, others mix the warps: both bring out
     * missing barriers. */
    stay = random_word() % 3 != 0;
    current_warp = 0;
    first_entry = true;
    now = next_fiber();
    ASAN(__sanitizer_start_switch_fiber(&scheduler_fake, now->stack, STACK));
    change_stack(&scheduler_sp, now->sp);
    ASAN(__sanitizer_finish_switch_fiber(scheduler_fake, nullptr, nullptr));
}

/* Not memset: the section also holds ASan's red zones, which are not to be written by
 * checked code. */
__attribute__((no_sanitize("address"))) static void poison_static_shared()
{
    for (char *p = __start_emu_shared; p < __stop_emu_shared; p++)
        *(volatile char *)p = (char)0xff;
}

std::map<const void *, size_t> reserved;

/* EMU_SHARED: KiB of shared memory that a block may have; 99 (sm_86, sm_89) unless told.
 * sm_80: 163, sm_90: 227. */
static size_t shared_limit()
{
    static const char *s = getenv("EMU_SHARED");
    return s ? (size_t)atoi(s) << 10 : 99 << 10;
}

void run_grid(const char *name, const void *function, dim3 grid, dim3 threads,
              size_t dynamic, const std::function<void()> &f)
{
    static char *stacks;
    size_t n = (size_t)threads.x * threads.y * threads.z;
    kernel = name;
    if (now)
        fail(nullptr, 0, "a launch from inside a kernel");
    if (!n || n > MAX_THREADS || !grid.x || !grid.y || !grid.z || grid.y > 65535 ||
        grid.z > 65535 || dynamic > shared_limit())
        fail(nullptr, 0,
             "bad launch: grid (%u,%u,%u), %zu threads, %zu bytes of shared memory", grid.x,
             grid.y, grid.z, n, dynamic);
    if (dynamic > 48 << 10 && reserved[function] < dynamic)
        fail(nullptr, 0,
             "%zu bytes of shared memory: above 48 KiB a kernel needs cudaFuncSetAttribute "
             "first",
             dynamic);
    if (!stacks) {
        stacks = (char *)mmap(nullptr, (size_t)MAX_THREADS * STACK, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (stacks == MAP_FAILED)
            abort();
        for (int i = 0; i < MAX_THREADS; i++)
            fibers[i].stack = stacks + (size_t)i * STACK;
    }
    n_threads = (int)n;
    n_warps = (n_threads + 31) / 32;
    grid_dim = grid;
    block_dim = threads;
    dynamic_bytes = dynamic;
    body = &f;
    launch_serial = serial + 1;
    count.launches++;
    unsigned long blocks = (unsigned long)grid.x * grid.y * grid.z,
                  at = random_word() % blocks;
    for (unsigned long i = 0; i < blocks;
         i++, at = (at + 1) %
                   blocks) { /* blocks start anywhere: their order means nothing */
        block_idx = {(unsigned)(at % grid.x), (unsigned)(at / grid.x % grid.y),
                     (unsigned)(at / grid.x / grid.y)};
        void *p = nullptr;
        if (posix_memalign(&p, 1024,
                           dynamic ? dynamic : 1)) /* of the exact size, for ASan */
            abort();
        dynamic_shared = (unsigned char *)p;
        memset(p, 0xff, dynamic); /* NaN in f32, f16 and bf16 */
        poison_static_shared();
        run_block();
        free(p);
        count.blocks++;
    }
    dynamic_shared = nullptr;
    kernel = "";
}

bool is_shared(const void *p, size_t n)
{
    const char *c = (const char *)p, *d = (const char *)dynamic_shared;
    return (c >= d && c + n <= d + dynamic_bytes) ||
           (c >= __start_emu_shared && c + n <= __stop_emu_shared);
}

} // namespace emu
