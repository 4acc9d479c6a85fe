/* Sums from device to device: over the emulated back end and its NCCL (tests/cuda_emu),
 * among forked ranks on pretended hosts. Sums and parts of every layout, rows, a rank that
 * is missing, a sum that hangs, devices that do not go together. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/dist/ranks.h"
#include "worker/dist/device.h"

static const int layout[][2] = {{2, 2}, {3, 3}, {4, 2}, {3, 1}};
enum { LAYOUTS = sizeof layout / sizeof *layout, N = 51117, ROWS = 40, COLS = 6 };

static int put(const char *name, int x)
{
    char text[16];

    snprintf(text, sizeof text, "%d", x);
    return setenv(name, text, 1);
}

/* This process's device, one of its own. */
static const struct backend *take_device(void)
{
    if (put("HONE_LOCAL_RANK", my_rank) || put("OMPI_COMM_WORLD_RANK", my_rank) ||
        put("EMU_DEVICES", RANKS_MAX) || put("EMU_SEED", 2 + my_rank % 2))
        return NULL;
    if (!getenv("HONE_NCCL"))
        setenv("HONE_NCCL", getenv("HONE_CUDA_PLUGIN"), 1);
    return backend_find("cuda");
}

struct way {
    int shard, two_bytes;
};

/* One step: gradients in, sums out of what is owned, new parameters to all. */
static int one_step(struct comm *c, const struct backend *b, struct comm_grad *g,
                    const struct way *way, int step, float *x)
{
    /* Rounded once more where everybody owns all: bf16 has eight bits. */
    float slack = way->two_bytes && !way->shard ? 1 : 0;
    struct err e;

    for (size_t i = 0; i < g->n; i++)
        x[i] = grad_of(c->rank, step, i);
    CHECK(!b->copy_in(g->grad, x, g->n * sizeof *x));
    for (int k = 0; k < g->buckets - step % 2; k++) /* the rest in grad_wait() */
        c->grad_start(c, g, (k * 3 + c->rank + step) % g->buckets);
    CHECK(!c->grad_wait(c, g, &e));
    CHECK(!b->copy_out(x, g->grad, g->n * sizeof *x));
    for (size_t i = N - 100; i < N; i++) /* left alone */
        CHECK(x[i] == grad_of(c->rank, step, i));
    for (int k = 0; k < g->buckets; k++)
        for (size_t i = g->from[k]; i < g->to[k]; i++)
            CHECK(x[i] >= sum_of(c->world, step, i) - slack &&
                  x[i] <= sum_of(c->world, step, i) + slack);
    if (!g->shard) {
        CHECK(!g->param && g->from[0] == 0 && g->to[g->buckets - 2] == N - 100);
        return 0;
    }
    for (int k = 0; k < g->buckets; k++)
        for (size_t i = g->from[k]; i < g->to[k]; i++)
            x[i] = (float)(c->rank * 1000 + step);
    for (int k = 0; k < g->buckets; k++)
        CHECK(!b->copy_in(g->param + g->from[k], x + g->from[k],
                          (g->to[k] - g->from[k]) * sizeof *x));
    CHECK(!c->param_gather(c, g, &e));
    CHECK(!b->copy_out(x, g->param, g->n * sizeof *x));
    for (size_t i = 0; i < N - 100; i++) /* one owner each, and all see what it wrote */
        CHECK((int)x[i] % 1000 == step && (int)x[i] / 1000 < c->world);
    return 0;
}

/* Rows of a table, packed, summed and put back. */
static int rows(struct comm *c, const struct backend *b)
{
    static const int id[] = {1, 7, 39};
    float table[ROWS * COLS], *device = b->alloc(sizeof table);
    int *at = b->alloc(sizeof id);
    float *packed = b->alloc(3 * COLS * sizeof(float));
    struct err e;

    CHECK(device && packed && at && !b->copy_in(at, id, sizeof id));
    for (int i = 0; i < ROWS * COLS; i++)
        table[i] = grad_of(c->rank, 0, (size_t)i);
    CHECK(!b->copy_in(device, table, sizeof table));
    CHECK(!c->row_copy(c, packed, device, at, 3, COLS, 0, &e));
    CHECK(!c->device_sum(c, packed, (size_t)3 * COLS, &e));
    CHECK(!c->row_copy(c, packed, device, at, 3, COLS, 1, &e));
    CHECK(!b->copy_out(table, device, sizeof table));
    for (int i = 0; i < ROWS * COLS; i++) {
        int in = i / COLS == 1 || i / COLS == 7 || i / COLS == 39;

        CHECK(table[i] ==
              (in ? sum_of(c->world, 0, (size_t)i) : grad_of(c->rank, 0, (size_t)i)));
    }
    CHECK(!c->device_sum(c, packed, 0, &e));
    b->release(device);
    b->release(packed);
    b->release(at);
    return 0;
}

static int gradients(struct comm *c, void *arg)
{
    static const size_t bound[] = {0, 1000, 1003, 50000, 50000, N - 100, N};
    static const unsigned char gap[] = {0, 0, 0, 0, 0, 1};
    const struct way *way = arg;
    struct comm_grad g = {
        .n = N, .bound = bound, .buckets = 6, .shard = way->shard, .gap = gap};
    const struct backend *b = take_device();
    float *x = malloc(N * sizeof *x);
    struct comm *d;
    struct err e;

    CHECK(b && x && !device_open(&d, c, b, way->two_bytes, &e) && d);
    CHECK(!strcmp(d->name, "device") && d->rank == c->rank && d->world == c->world);
    g.grad = b->alloc(N * sizeof *x);
    g.param = way->shard ? b->alloc(N * sizeof *x) : NULL;
    CHECK(g.grad && (g.param || !way->shard) && !d->grad_open(d, &g, &e));
    for (int step = 0; step < 3; step++)
        CHECK(!one_step(d, b, &g, way, step, x));
    if (!way->two_bytes)
        CHECK(!rows(d, b));
    d->grad_close(d, &g);
    d->grad_close(d, &g);
    device_close(d);
    b->release(g.grad);
    if (g.param)
        b->release(g.param);
    free(x);
    return 0;
}

static void test_gradients(void **state)
{
    (void)state;
    for (int i = 0; i < LAYOUTS; i++) {
        struct way way = {i % 2, i / 2 % 2};

        assert_int_equal(ranks_run(layout[i][0], layout[i][1], gradients, NULL, &way), 0);
        way.shard = !way.shard;
        assert_int_equal(ranks_run(layout[i][0], layout[i][1], gradients, NULL, &way), 0);
    }
}

/* ---- what goes wrong ---- */

struct story {
    char text[ERR_MSG_MAX];
    _Atomic int reports;
    int stall; /* rank 1 stops before its sums; else a sum hangs */
};

static void on_lost(void *arg, const char *message, int report, int far)
{
    struct story *s = arg;

    (void)far;
    if (report) {
        snprintf(s->text, sizeof s->text, "%s", message);
        atomic_fetch_add(&s->reports, 1);
    }
    usleep(300000);
    _exit(0);
}

static int waits_for_ever(struct comm *c, void *arg)
{
    static const size_t bound[] = {0, 100, 200};
    struct comm_grad g = {.n = 200, .bound = bound, .buckets = 2};
    struct story *s = arg;
    const struct backend *b;
    struct comm *d;
    float x[200];
    struct err e;

    setenv("HONE_NCCL_SECONDS", "0.5", 1);
    setenv("EMU_RANK", "1", 1);
    if (!s->stall)
        setenv("EMU_NCCL", "hang:2", 1);
    b = take_device();
    CHECK(b && !device_open(&d, c, b, 0, &e) && d);
    g.grad = b->alloc(sizeof x);
    CHECK(g.grad && !d->grad_open(d, &g, &e));
    comm_note(d, COMM_BACKWARD, 41);
    if (s->stall && c->rank == 1)
        pause();
    CHECK(!d->grad_wait(d, &g, &e));
    b->copy_out(x, g.grad, sizeof x); /* for ever, but for the watch */
    pause();
    return 0;
}

static void test_hang(void **state)
{
    struct story *s =
        mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    (void)state;
    assert_ptr_not_equal(s, MAP_FAILED);
    assert_int_equal(ranks_run(2, 2, waits_for_ever, on_lost, s), 0);
    assert_int_equal(s->reports, 1);
    assert_non_null(strstr(s->text, "sum 2 (bucket 0, step 42) hangs since"));
    assert_non_null(strstr(s->text, "(device "));
    s->reports = 0;
    s->stall = 1;
    ranks_run(2, 2, waits_for_ever, on_lost, s);
    assert_int_equal(s->reports, 1);
    assert_non_null(strstr(s->text, "rank 1 on "));
    assert_non_null(
        strstr(s->text, ", device 1) is missing from sum 1 (bucket 1, step 42)"));
    assert_non_null(strstr(s->text, "it is at step 42, backward"));
    munmap(s, sizeof *s);
}

static int shares(struct comm *c, void *arg)
{
    struct comm *d;
    struct err e;

    (void)arg;
    setenv("EMU_SAME_DEVICE", "1", 1);
    CHECK(device_open(&d, c, take_device(), 0, &e) == ERR_CONFIG && !d);
    CHECK(strstr(e.msg, "ranks 0 on ") && strstr(e.msg, " and 1 on ") && *e.mend);
    return 0;
}

static int differs(struct comm *c, void *arg)
{
    struct comm *d;
    struct err e;

    (void)arg;
    CHECK(device_open(&d, c, c->rank ? take_device() : backend_find("cpu"), 0, &e) ==
              ERR_CONFIG &&
          !d);
    CHECK(strstr(e.msg, "rank 1 on ") && strstr(e.msg, "computes on cuda, rank 0 on "));
    return 0;
}

static int has_none(struct comm *c, void *arg)
{
    struct comm *d = c;
    struct err e;

    (void)arg;
    setenv("HONE_NCCL", c->rank ? "off" : getenv("HONE_CUDA_PLUGIN"), 1);
    CHECK(!device_open(&d, c, take_device(), 0, &e) && !d);
    d = c;
    CHECK(!device_open(&d, c, backend_find("cpu"), 0, &e) && !d);
    return 0;
}

static void test_refusals(void **state)
{
    (void)state;
    assert_int_equal(ranks_run(2, 2, shares, NULL, NULL), 0);
    assert_int_equal(ranks_run(2, 1, differs, NULL, NULL), 0);
    assert_int_equal(ranks_run(2, 2, has_none, NULL, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_hang),
        cmocka_unit_test(test_refusals),
    };

    if (!getenv("HONE_CUDA_PLUGIN")) {
        puts("skipped: the emulated back end is not built");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
