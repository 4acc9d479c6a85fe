/* NCCL among processes of one machine, with the prototypes of its own header: exported by
 * the emulated back end, which finds it with HONE_NCCL=<itself>.
 *
 * A group shares a memfd: for each rank how many collectives it has posted and taken, and
 * two slots that it alone writes. Collective n is posted to slot n % 2 when all have taken
 * n - 2, and taken when all have posted it; sums go x_0 + x_1 + ... in order of rank. Both
 * are work on a stream that waits without holding up the process. Ranks that queue
 * different collectives are told so.
 *
 * EMU_NCCL=FAULT:n, on the rank that EMU_RANK names: at its n-th group of calls (from 1)
 *     fail   the call returns ncclSystemError
 *     async  the group reports ncclRemoteError from then on, and nothing completes
 *     hang   it never takes part, though it says it will
 *     die    the process is killed inside it
 * and at its start: init-fail, init-hang. EMU_NCCL_VERSION: another version. */
#include <atomic>
#include <csignal>
#include <fcntl.h>
#include <memory>
#include <nccl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/cuda_emu/emu_internal.h"

using namespace emu;

enum { RANKS = 16, CALLS = 64, HEAD = 1 << 16, PAGE = 4096 };
static const size_t slot_bytes = (size_t)1 << 28; /* touched where used */

enum kind { ALL_REDUCE, REDUCE_SCATTER, REDUCE, ALL_GATHER, BROADCAST, SEND, RECV };

struct call {
    int kind, type, peer; /* peer: or root */
    size_t count, at;     /* of its operand in the slot */
};
struct post { /* the beginning of a slot */
    int n;
    call calls[CALLS];
};
struct board {
    std::atomic<int> arrived;
    struct {
        std::atomic<long> posted, taken;
    } rank[RANKS];
};
struct pending { /* a call before its group ends */
    call c;
    const void *in;
    void *out;
};

struct ncclComm {
    board *all;
    char *slots;
    size_t bytes;
    int rank, world, fd;
    long number = 0;
    bool waits = true, dead = false, arrived = false, broken = false;

    post *slot(int r, long n) const
    {
        return (post *)(slots + ((size_t)r * 2 + (size_t)(n % 2)) * slot_bytes);
    }
    char *data(int r, long n, const call &c) const
    {
        return (char *)slot(r, n) + HEAD + c.at;
    }
};
typedef std::vector<pending> calls;
static thread_local int depth;
static thread_local calls group;
static thread_local cudaStream_t group_stream;
static thread_local ncclComm *group_comm;
static thread_local bool in_progress; /* the newest call has not been asked after */

static long fault_at(const char *fault)
{
    const char *s = is_chosen_rank() ? getenv("EMU_NCCL") : nullptr;
    size_t n = strlen(fault);
    if (!s || strncmp(s, fault, n) || (s[n] && s[n] != ':'))
        return -1;
    return s[n] ? atol(s + n + 1) : 0;
}

static size_t width(int type)
{
    return type == ncclBfloat16 ? 2 : 4;
}

/* ---- one collective ---- */

static void post_calls(ncclComm *c, long n, const calls &list)
{
    post *p = c->slot(c->rank, n);
    size_t at = 0;

    p->n = (int)list.size();
    for (size_t i = 0; i < list.size(); i++) {
        call &q = p->calls[i];
        size_t many = list[i].c.kind == REDUCE_SCATTER ? (size_t)c->world : 1;
        q = list[i].c;
        q.at = at;
        if (list[i].in)
            memcpy(c->data(c->rank, n, q), list[i].in, q.count * width(q.type) * many);
        at += (q.count * width(q.type) * many + 63) / 64 * 64;
    }
    c->all->rank[c->rank].posted = n;
}

/* The next call from *i on that all ranks make alike, or NULL. */
static const call *next_common(const post *p, int *i)
{
    while (*i < p->n && p->calls[*i].kind >= SEND)
        ++*i;
    return *i < p->n ? &p->calls[(*i)++] : nullptr;
}

static void compare(const ncclComm *c, long n)
{
    for (int r = 0; r < c->world; r++) {
        const call *a, *b;
        int i = 0, k = 0;
        do {
            a = next_common(c->slot(c->rank, n), &i);
            b = next_common(c->slot(r, n), &k);
        } while (a && b && a->kind == b->kind && a->count == b->count &&
                 a->type == b->type && a->peer == b->peer);
        if (!a && !b)
            continue;
        fprintf(stderr, "emu_nccl: ranks %d and %d disagree on collective %ld\n", c->rank,
                r, n);
        abort();
    }
}

static void add(const ncclComm *c, long n, int i, size_t first, float *out)
{
    size_t count = c->slot(c->rank, n)->calls[i].count;

    for (size_t k = 0; k < count; k++) {
        float sum = 0;
        for (int r = 0; r < c->world; r++) {
            float x = ((float *)c->data(r, n, c->slot(r, n)->calls[i]))[first + k];
            sum = r ? sum + x : x;
        }
        out[k] = sum;
    }
}

/* What rank `from` sends to us, for the nth time in this group. */
static void receive(const ncclComm *c, long n, const pending &p, int nth)
{
    const post *from = c->slot(p.c.peer, n);

    for (int i = 0; i < from->n; i++) {
        const call &q = from->calls[i];
        if (q.kind != SEND || q.peer != c->rank || nth--)
            continue;
        if (q.count != p.c.count || q.type != p.c.type) {
            fprintf(stderr, "emu_nccl: rank %d receives %zu of %zu\n", c->rank, p.c.count,
                    q.count);
            abort();
        }
        memcpy(p.out, c->data(p.c.peer, n, q), q.count * width(q.type));
        return;
    }
    fprintf(stderr, "emu_nccl: rank %d receives what rank %d does not send\n", c->rank,
            p.c.peer);
    abort();
}

static void take_calls(const ncclComm *c, long n, const calls &list)
{
    std::map<int, int> received;

    compare(c, n);
    for (int i = 0; i < (int)list.size(); i++) {
        const pending &p = list[(size_t)i];
        const post *root = c->slot(p.c.kind == BROADCAST ? p.c.peer : 0, n);
        size_t bytes = p.c.count * width(p.c.type);
        switch (p.c.kind) {
        case ALL_REDUCE:
            add(c, n, i, 0, (float *)p.out);
            break;
        case REDUCE_SCATTER:
            add(c, n, i, p.c.count * (size_t)c->rank, (float *)p.out);
            break;
        case REDUCE:
            if (p.c.peer == c->rank)
                add(c, n, i, 0, (float *)p.out);
            break;
        case ALL_GATHER:
            for (int r = 0; r < c->world; r++)
                memcpy((char *)p.out + bytes * (size_t)r,
                       c->data(r, n, c->slot(r, n)->calls[i]), bytes);
            break;
        case BROADCAST:
            memcpy(p.out, c->data(p.c.peer, n, root->calls[i]), bytes);
            break;
        case RECV:
            receive(c, n, p, received[p.c.peer]++);
            break;
        }
    }
    c->all->rank[c->rank].taken = n;
}

static void queue_group(ncclComm *c, cudaStream_t s, calls list)
{
    long n = ++c->number;
    auto kept = std::make_shared<calls>(std::move(list));

    if (n == fault_at("async"))
        c->broken = true;
    enqueue_when(
        s,
        [=] {
            bool ready = n != fault_at("hang") && !c->broken;
            for (int r = 0; r < c->world; r++)
                ready &= c->all->rank[r].taken >= n - 2;
            return ready || c->dead;
        },
        [=] {
            if (n == fault_at("die"))
                raise(SIGKILL);
            if (!c->dead)
                post_calls(c, n, *kept);
        });
    enqueue_when(
        s,
        [=] {
            bool ready = true;
            for (int r = 0; r < c->world; r++)
                ready &= c->all->rank[r].posted >= n;
            return ready || c->dead;
        },
        [=] {
            if (!c->dead)
                take_calls(c, n, *kept);
        });
}

static ncclResult_t add_call(int kind, const void *in, void *out, size_t count, int type,
                             int peer, ncclComm *c, cudaStream_t s)
{
    guard hold(lock);
    if (!c || c->dead || !count || count * 4 > slot_bytes / 4)
        return ncclInvalidArgument;
    if ((type != ncclFloat32 && type != ncclBfloat16) ||
        (kind <= REDUCE && type != ncclFloat32))
        return ncclInvalidArgument;
    if (!depth) { /* Hone groups all calls */
        fprintf(stderr, "emu_nccl: a call outside of a group\n");
        abort();
    }
    if (group.size() == CALLS)
        return ncclInvalidUsage;
    group.push_back({{kind, type, peer, count, 0}, in, out});
    group_stream = s;
    group_comm = c;
    return ncclSuccess;
}

#pragma GCC visibility push(default)
extern "C" {

ncclResult_t ncclGetVersion(int *v)
{
    const char *s = getenv("EMU_NCCL_VERSION");
    *v = s && is_chosen_rank() ? atoi(s) : NCCL_VERSION_CODE;
    return ncclSuccess;
}
const char *ncclGetErrorString(ncclResult_t r)
{
    switch (r) {
    case ncclSuccess:
        return "no error";
    case ncclSystemError:
        return "unhandled system error";
    case ncclRemoteError:
        return "remote process exited or there was a network error";
    case ncclInProgress:
        return "NCCL operation in progress";
    default:
        return "invalid argument";
    }
}
ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    size_t bytes = PAGE + 2 * RANKS * slot_bytes;
    int fd = memfd_create("emu_nccl", 0);

    if (fd < 0 || ftruncate(fd, (off_t)bytes))
        return ncclSystemError;
    memset(id, 0, sizeof *id);
    snprintf(id->internal, sizeof id->internal, "/proc/%d/fd/%d", (int)getpid(), fd);
    return ncclSuccess;
}
ncclResult_t ncclCommInitRankConfig(ncclComm_t *out, int world, ncclUniqueId id, int rank,
                                    ncclConfig_t *config)
{
    size_t bytes = PAGE + 2 * RANKS * slot_bytes;
    int fd = open(id.internal, O_RDWR);
    void *p = fd < 0 ? MAP_FAILED
                     : mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_NORESERVE, fd, 0);

    if (fd >= 0)
        close(fd);
    if (p == MAP_FAILED || world > RANKS || fault_at("init-fail") >= 0)
        return ncclSystemError;
    guard hold(lock);
    ncclComm *c = new ncclComm;
    c->all = (board *)p;
    c->slots = (char *)p + PAGE;
    c->bytes = bytes;
    c->rank = rank;
    c->world = world;
    c->waits = config->blocking != 0;
    if (c->waits) { /* Hone must be able to end it */
        fprintf(stderr, "emu_nccl: a blocking communicator\n");
        abort();
    }
    if (fault_at("init-hang") < 0)
        c->all->arrived++;
    *out = c;
    return ncclInProgress;
}
ncclResult_t ncclCommGetAsyncError(ncclComm_t c, ncclResult_t *e)
{
    guard hold(lock);
    if (in_progress) {
        in_progress = false;
        *e = ncclInProgress;
    } else if (c->broken) {
        *e = ncclRemoteError;
    } else {
        *e = c->all->arrived < c->world ? ncclInProgress : ncclSuccess;
    }
    return ncclSuccess;
}
ncclResult_t ncclCommFinalize(ncclComm_t)
{
    return ncclSuccess;
}
ncclResult_t ncclCommDestroy(ncclComm_t c)
{
    guard hold(lock);
    munmap((void *)c->all, c->bytes);
    delete c;
    return ncclSuccess;
}
/* Work that is still queued finds it dead: it stays. */
ncclResult_t ncclCommAbort(ncclComm_t c)
{
    guard hold(lock);
    c->dead = true;
    return ncclSuccess;
}
ncclResult_t ncclGroupStart(void)
{
    depth++;
    return ncclSuccess;
}
ncclResult_t ncclGroupEnd(void)
{
    guard hold(lock);
    if (--depth || group.empty())
        return ncclSuccess;
    calls list;
    list.swap(group);
    if (group_comm->number + 1 == fault_at("fail"))
        return ncclSystemError;
    queue_group(group_comm, group_stream, std::move(list));
    in_progress = true;
    return ncclInProgress;
}
ncclResult_t ncclAllReduce(const void *in, void *out, size_t n, ncclDataType_t type,
                           ncclRedOp_t op, ncclComm_t c, cudaStream_t s)
{
    return op != ncclSum ? ncclInvalidArgument
                         : add_call(ALL_REDUCE, in, out, n, type, 0, c, s);
}
ncclResult_t ncclReduceScatter(const void *in, void *out, size_t n, ncclDataType_t type,
                               ncclRedOp_t op, ncclComm_t c, cudaStream_t s)
{
    return op != ncclSum ? ncclInvalidArgument
                         : add_call(REDUCE_SCATTER, in, out, n, type, 0, c, s);
}
ncclResult_t ncclReduce(const void *in, void *out, size_t n, ncclDataType_t type,
                        ncclRedOp_t op, int root, ncclComm_t c, cudaStream_t s)
{
    return op != ncclSum ? ncclInvalidArgument
                         : add_call(REDUCE, in, out, n, type, root, c, s);
}
ncclResult_t ncclAllGather(const void *in, void *out, size_t n, ncclDataType_t type,
                           ncclComm_t c, cudaStream_t s)
{
    return add_call(ALL_GATHER, in, out, n, type, 0, c, s);
}
ncclResult_t ncclBroadcast(const void *in, void *out, size_t n, ncclDataType_t type,
                           int root, ncclComm_t c, cudaStream_t s)
{
    return add_call(BROADCAST, in, out, n, type, root, c, s);
}
ncclResult_t ncclSend(const void *in, size_t n, ncclDataType_t type, int peer, ncclComm_t c,
                      cudaStream_t s)
{
    return add_call(SEND, in, nullptr, n, type, peer, c, s);
}
ncclResult_t ncclRecv(void *out, size_t n, ncclDataType_t type, int peer, ncclComm_t c,
                      cudaStream_t s)
{
    return add_call(RECV, nullptr, out, n, type, peer, c, s);
}
}
#pragma GCC visibility pop
