/* CUDA graphs for the steps of training, without the rest of Hone knowing of them.
 *
 * Inside a step operators, copies to the device and fills are not launched but written
 * down, as bytes: which operator, and its arguments. A piece is what was written down when
 * PIECE_CALLS are reached, when a result is wanted, another part of the step begins, or
 * ranks sum. A piece that was met before, byte for byte, is a graph already: one launch.
 * One met for the second time is captured; the first time its calls run one by one, which
 * also chooses algorithms, loads code and grows the scratch memory, so that a capture meets
 * nothing that is not allowed in it.
 *
 * Equal bytes mean the same work: addresses, shapes and flags are all among them, and what
 * else it depends on (is a weight's rounded copy out of date, where is scratch memory,
 * which algorithms were given back) is written down too. What differs from step to step is
 * no argument: the data of copies goes to the device in one piece before the graph, which
 * moves each to its place, and kernels read the dropout key from the device (graph_key).
 *
 * Captures go to a stream of their own, so that no other thread's work falls into one, in
 * thread-local mode, so that NCCL's and our watching threads may ask for events meanwhile.
 * The same kernels run in the same order with the same arguments: bits do not depend on
 * graphs. HONE_CUDA_GRAPHS=off: each call is launched as it comes. A capture that fails is
 * the last one: graph_notice() says why, once, and what has no graph runs one by one.
 *
 * Graphs take device memory outside of what was reserved: at most a BUDGET-th of it, the
 * one that was used longest ago goes first. Fails as the calls do, at the next call that
 * returns something. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "kernels/cuda/cuda.h"

enum { PIECE_CALLS = 64, PIECES_MAX = 1024, INPUT_BYTES = 1 << 20, KEY_BYTES = 256 };
enum { BUDGET = 64, ALIGN = 64 };

enum kind {
#define X(op) CALL_##op,
    HONE_OPS(X)
#undef X
        CALL_COPY,
    CALL_ZERO
};

struct call { /* its arguments follow, to a multiple of 8 bytes */
    uint32_t kind, bytes;
    const void *pack; /* of a product: the weight's rounded copy, */
    long stale;       /* ... and is it out of date */
};

struct fill {
    void *to;
    size_t bytes, at; /* at: of the input, in the step's input memory */
};

struct head {
    const void *scratch;
    size_t scratch_bytes;
    unsigned long choices;
};

struct piece {
    char *bytes;
    size_t n, device_bytes;
    uint64_t hash;
    unsigned long used;
    cudaGraphExec_t graph;
};

static struct {
    char *bytes; /* head, then calls */
    size_t used, cap;
    int calls;
    char *input; /* INPUT_BYTES, of the host */
    size_t n_input;
    int has_key;
    uint64_t key;
} queue;

static struct {
    struct piece piece[PIECES_MAX];
    int n;
    unsigned long turn, choices;
    size_t device_bytes, budget;
    cudaStream_t stream; /* of captures */
    int told;
    char failed[320]; /* why there are no more captures */
} graphs;

static char *device; /* the dropout key, then inputs */
static int has_key;  /* is the key on the device? */
static uint64_t key;

static _Thread_local int queueing, running, failure;
static _Thread_local char reason[512];

/* ---- opening ---- */

static int wanted(void)
{
    static int state; /* 1: no, 2: yes */
    const char *s;

    if (!state) {
        s = getenv("HONE_CUDA_GRAPHS");
        state = s && (!strcmp(s, "off") || !strcmp(s, "0")) ? 1 : 2;
    }
    return state == 2;
}

int graph_open(void)
{
    size_t left = 0, all = 0;
    int rc = cuda_ready();

    if (rc || (device && (graphs.stream || !wanted())))
        return rc;
    if (!device)
        rc = cuda_check(cudaMalloc((void **)&device, KEY_BYTES + INPUT_BYTES),
                        "memory for inputs");
    if (rc || !wanted())
        return rc;
    if (!queue.input)
        queue.input = mem_alloc(INPUT_BYTES);
    if (!queue.input)
        return op_fail(ERR_NOMEM, "out of memory for the inputs of a step");
    rc = cuda_check(cudaMemGetInfo(&left, &all), "ask for its memory");
    graphs.budget = all / BUDGET;
    return rc ? rc
              : cuda_check(cudaStreamCreateWithFlags(&graphs.stream, cudaStreamNonBlocking),
                           "a stream for captures");
}

const uint64_t *graph_key(void)
{
    return (const uint64_t *)device;
}

int graph_running(void)
{
    return running;
}

void graph_forget(void)
{
    graphs.choices++;
}

int graph_notice(char *buf, size_t n)
{
    if (!*graphs.failed || graphs.told)
        return 0;
    graphs.told = 1;
    snprintf(buf, n, "no more CUDA graphs, kernels are launched one by one: %s",
             graphs.failed);
    return 1;
}

/* ---- what is written down ---- */

/* Where arguments of dropout lie in an operator's; NULL: it has none. */
static struct op_dropout *dropout_of(int kind, void *args)
{
    switch (kind) {
    case CALL_norm:
        return &((struct norm_args *)args)->dropout;
    case CALL_norm_backward:
        return &((struct norm_backward_args *)args)->dropout;
    case CALL_attention:
        return &((struct attention_args *)args)->dropout;
    case CALL_attention_backward:
        return &((struct attention_backward_args *)args)->dropout;
    case CALL_dropout:
        return &((struct dropout_args *)args)->dropout;
    default:
        return NULL;
    }
}

/* These neither wait for the device nor read host memory behind their arguments. */
static int may_wait_its_turn(int kind)
{
    switch (kind) {
    case CALL_cross_entropy:
    case CALL_adamw:
    case CALL_grad_norm:
        return 0;
    default:
        return 1;
    }
}

/* Bytes between members, too, are compared. */
static void clear_padding(int kind, void *args)
{
#if defined(__has_builtin)
#if __has_builtin(__builtin_clear_padding)
    switch (kind) {
#define X(op)                                                                              \
    case CALL_##op:                                                                        \
        __builtin_clear_padding((struct op##_args *)args);                                 \
        break;
        HONE_OPS(X)
#undef X
    }
#endif
#endif
    (void)kind;
    (void)args;
}

static int run_direct(int kind, const void *args)
{
    switch (kind) {
#define X(op)                                                                              \
    case CALL_##op:                                                                        \
        return cuda_##op((const struct op##_args *)args);
        HONE_OPS(X)
#undef X
    default:
        return op_fail(ERR_FAILED, "operator %d is none", kind);
    }
}

/* Room for a call with `bytes` of arguments, cleared. */
static void *write_down(int kind, size_t bytes, struct call **out)
{
    size_t round = (bytes + 7) / 8 * 8, want;
    struct call *c;

    if (!queue.calls)
        queue.used = sizeof(struct head);
    want = queue.used + sizeof *c + round;
    if (want > queue.cap) {
        char *more = mem_resize(queue.bytes, 2 * want, 1);

        if (!more) {
            op_fail(ERR_NOMEM, "out of memory for the calls of a step");
            return NULL;
        }
        queue.bytes = more;
        queue.cap = 2 * want;
    }
    c = (struct call *)(queue.bytes + queue.used);
    memset(c, 0, sizeof *c + round);
    c->kind = (uint32_t)kind;
    c->bytes = (uint32_t)round;
    if (out)
        *out = c;
    queue.used = want;
    queue.calls++;
    return c + 1;
}

static int write_copy(void *to, const void *from, size_t bytes)
{
    struct fill *f;
    int rc = 0;

    if (queue.n_input + bytes > INPUT_BYTES)
        rc = graph_flush();
    f = rc ? NULL : write_down(CALL_COPY, sizeof *f, NULL);
    if (!f)
        return rc ? rc : ERR_NOMEM;
    *f = (struct fill){to, bytes, queue.n_input};
    memcpy(queue.input + queue.n_input, from, bytes);
    queue.n_input += (bytes + ALIGN - 1) / ALIGN * ALIGN;
    return 0;
}

/* The piece has one key, which goes to the device with its inputs. */
static int write_key(uint64_t k)
{
    int rc = 0;

    if (queue.has_key && queue.key != k)
        rc = graph_flush();
    if (!rc && !queue.has_key)
        rc = write_copy(device, &k, sizeof k);
    queue.has_key = 1;
    queue.key = k;
    return rc;
}

static int is_stale(const struct matmul_args *a)
{
    return !a->pack->data || a->pack->packed != a->pack->version;
}

static int write_op(int kind, const void *args, size_t bytes)
{
    const struct matmul_args *m = args;
    struct op_dropout *d;
    struct call *c;
    void *p;
    int rc = 0;

    d = dropout_of(kind, (void *)args);
    if (d && d->p > 0)
        rc = write_key(d->key);
    p = rc ? NULL : write_down(kind, bytes, &c);
    if (!p)
        return rc ? rc : ERR_NOMEM;
    memcpy(p, args, bytes);
    d = dropout_of(kind, p);
    if (d)
        d->key = 0;
    clear_padding(kind, p);
    if (kind == CALL_matmul && m->pack &&
        (m->precision == PRECISION_BF16 || m->precision == PRECISION_F16)) {
        c->pack = m->pack->data;
        c->stale = is_stale(m);
    }
    return 0;
}

/* ---- running a piece ---- */

static int run_one(const struct call *c)
{
    const struct fill *f = (const struct fill *)(c + 1);

    if (c->kind == CALL_COPY)
        return cuda_check(cudaMemcpyAsync(f->to, device + KEY_BYTES + f->at, f->bytes,
                                          cudaMemcpyDeviceToDevice, cuda_stream()),
                          "inputs");
    if (c->kind == CALL_ZERO)
        return cuda_fill_zero(f->to, f->bytes);
    return run_direct((int)c->kind, c + 1);
}

static const struct call *next_call(const struct call *c)
{
    return (const struct call *)((const char *)(c + 1) + c->bytes);
}

static int run_calls(void)
{
    const struct call *c = (const struct call *)(queue.bytes + sizeof(struct head));
    int rc = 0;

    for (int i = 0; !rc && i < queue.calls; i++, c = next_call(c))
        rc = run_one(c);
    return rc;
}

/* Weights whose rounded copies were out of date: now they are made, or will have to be. */
static void mark_packs(int made)
{
    const struct call *c = (const struct call *)(queue.bytes + sizeof(struct head));

    for (int i = 0; i < queue.calls; i++, c = next_call(c)) {
        struct op_pack *p = c->stale ? ((const struct matmul_args *)(c + 1))->pack : NULL;

        if (p && p->data)
            p->packed = made ? p->version : 0;
    }
}

/* ---- the pieces that are known ---- */

static void drop(int i)
{
    struct piece *p = &graphs.piece[i];

    if (p->graph)
        cudaGraphExecDestroy(p->graph);
    graphs.device_bytes -= p->device_bytes;
    mem_free(p->bytes);
    *p = graphs.piece[--graphs.n];
    memset(&graphs.piece[graphs.n], 0, sizeof *p);
}

void graph_clear(void)
{
    while (graphs.n)
        drop(0);
}

/* The one used longest ago; with_graph: that has a graph. -1: none. */
static int oldest(int with_graph)
{
    int found = -1;

    for (int i = 0; i < graphs.n; i++)
        if ((!with_graph || graphs.piece[i].graph) &&
            (found < 0 || graphs.piece[i].used < graphs.piece[found].used))
            found = i;
    return found;
}

static uint64_t hash_of(const char *p, size_t n)
{
    uint64_t h = n, word;

    for (size_t i = 0; i + sizeof word <= n; i += sizeof word) {
        memcpy(&word, p + i, sizeof word);
        h = (h ^ word) * 0x9E3779B97F4A7C15u;
        h ^= h >> 29;
    }
    return h;
}

static struct piece *find(uint64_t hash)
{
    for (int i = 0; i < graphs.n; i++) {
        struct piece *p = &graphs.piece[i];

        if (p->hash == hash && p->n == queue.used && !memcmp(p->bytes, queue.bytes, p->n))
            return p;
    }
    return NULL;
}

/* Not to have room for it is no failure: it is met anew. */
static void remember(uint64_t hash)
{
    struct piece *p;
    char *bytes;

    if (graphs.n == PIECES_MAX)
        drop(oldest(0));
    bytes = mem_alloc(queue.used);
    if (!bytes)
        return;
    memcpy(bytes, queue.bytes, queue.used);
    p = &graphs.piece[graphs.n++];
    *p = (struct piece){.bytes = bytes, .n = queue.used, .hash = hash, .used = graphs.turn};
}

static size_t free_memory(void)
{
    size_t left = 0, all;

    return cudaMemGetInfo(&left, &all) ? 0 : left;
}

/* The graph of the calls written down. */
static int capture(cudaGraphExec_t *out)
{
    cudaGraph_t graph = NULL;
    int rc, ends;

    rc = cuda_check(cudaStreamBeginCapture(graphs.stream, cudaStreamCaptureModeThreadLocal),
                    "capture");
    if (rc)
        return rc;
    cuda_divert(graphs.stream);
    rc = run_calls();
    cuda_divert(NULL);
    if (rc) { /* the call's own reason is the one to tell */
        cudaStreamEndCapture(graphs.stream, &graph);
        cudaGetLastError();
    } else {
        ends = cuda_check(cudaStreamEndCapture(graphs.stream, &graph), "end of a capture");
        rc = ends;
    }
    if (!rc)
        rc = cuda_check(cudaGraphInstantiate(out, graph, 0), "make a graph");
    if (graph)
        cudaGraphDestroy(graph);
    return rc;
}

/* The graph of a piece; none when that fails, for good. */
static void make_graph(struct piece *p)
{
    size_t before = free_memory(), after;
    uint64_t hash = p->hash;
    cudaGraphExec_t made = NULL;

    if (capture(&made)) {
        snprintf(graphs.failed, sizeof graphs.failed, "%s", op_error());
        mark_packs(0); /* nothing ran */
        return;
    }
    after = free_memory();
    p->graph = made;
    p->device_bytes = before > after ? before - after : 0;
    graphs.device_bytes += p->device_bytes;
    p->used = graphs.turn;
    while (graphs.device_bytes > graphs.budget) {
        int i = oldest(1);

        if (graphs.piece[i].hash == hash)
            break;
        drop(i);
    }
}

static int launch(struct piece *p)
{
    int rc = cuda_check(cudaGraphLaunch(p->graph, cuda_stream()), "launch of a graph");

    if (!rc)
        mark_packs(1);
    return rc;
}

static int run_piece(void)
{
    struct head *h = (struct head *)queue.bytes;
    struct piece *p;
    uint64_t hash;
    int rc;

    *h = (struct head){.choices = graphs.choices};
    h->scratch = cuda_scratch_at(&h->scratch_bytes);
    hash = hash_of(queue.bytes, queue.used);
    rc = queue.n_input ? cuda_copy_in(device + KEY_BYTES, queue.input, queue.n_input) : 0;
    if (rc)
        return rc;
    graphs.turn++;
    p = find(hash);
    if (p && !p->graph && !*graphs.failed) {
        make_graph(p);
        p = find(hash); /* others may have gone */
    }
    if (p)
        p->used = graphs.turn;
    if (p && p->graph)
        return launch(p);
    rc = run_calls();
    if (!rc && !p && !*graphs.failed)
        remember(hash);
    return rc;
}

int graph_flush(void)
{
    int rc = failure;

    if (running)
        return 0;
    failure = 0;
    if (rc)
        op_fail(rc, "%s", reason);
    if (!queueing || !queue.calls)
        return rc;
    running = 1;
    if (!rc)
        rc = run_piece();
    running = 0;
    if (queue.has_key) {
        has_key = !rc;
        key = queue.key;
    }
    queue.calls = queue.has_key = 0;
    queue.n_input = 0;
    return rc;
}

/* Where nothing can be returned: it fails at the next call that returns something. */
void graph_flush_later(void)
{
    failure = graph_flush();
    if (failure)
        snprintf(reason, sizeof reason, "%s", op_error());
}

/* ---- the back end's table ---- */

/* A call as it comes: its dropout key is brought to the device where it differs. */
static int run_now(int kind, const void *args)
{
    struct op_dropout *d = dropout_of(kind, (void *)args);
    int rc = graph_flush();

    if (!rc && d && d->p > 0 && (!has_key || key != d->key)) {
        rc = graph_open();
        if (!rc)
            rc = cuda_copy_in(device, &d->key, sizeof d->key);
        has_key = !rc;
        key = d->key;
    }
    return rc ? rc : run_direct(kind, args);
}

static int call(int kind, const void *args, size_t bytes)
{
    int rc;

    if (!queueing || !may_wait_its_turn(kind))
        return run_now(kind, args);
    rc = failure ? graph_flush() : 0;
    if (!rc && queue.calls >= PIECE_CALLS)
        rc = graph_flush();
    return rc ? rc : write_op(kind, args, bytes);
}

#define X(op)                                                                              \
    int graph_##op(const struct op##_args *a)                                              \
    {                                                                                      \
        return call(CALL_##op, a, sizeof *a);                                              \
    }
HONE_OPS(X)
#undef X

int graph_copy_in(void *to, const void *from, size_t bytes)
{
    int rc = failure || (queueing && bytes > INPUT_BYTES) ? graph_flush() : 0;

    if (rc || !bytes)
        return rc;
    if (!queueing || bytes > INPUT_BYTES)
        return cuda_copy_in(to, from, bytes);
    return write_copy(to, from, bytes);
}

int graph_copy_out(void *to, const void *from, size_t bytes)
{
    int rc = graph_flush();

    return rc ? rc : cuda_copy_out(to, from, bytes);
}

int graph_fill_zero(void *to, size_t bytes)
{
    int rc = failure ? graph_flush() : 0;
    struct fill *f;

    if (rc || !queueing || !bytes)
        return rc ? rc : cuda_fill_zero(to, bytes);
    f = write_down(CALL_ZERO, sizeof *f, NULL);
    if (!f)
        return ERR_NOMEM;
    *f = (struct fill){to, bytes, 0};
    return 0;
}

void graph_pack_free(struct op_pack *p)
{
    graph_flush_later();
    cuda_pack_free(p);
}

void graph_enter(int part)
{
    graph_flush_later();
    trace_enter(part);
}

int graph_step_seconds(double *seconds, int n)
{
    graph_flush_later();
    return trace_step_seconds(seconds, n);
}

void graph_step(int begins)
{
    graph_flush_later();
    if (begins && !failure && wanted()) {
        failure = graph_open();
        if (failure)
            snprintf(reason, sizeof reason, "%s", op_error());
    }
    queueing = begins && wanted();
    cuda_step(begins);
}
