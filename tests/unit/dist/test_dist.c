/* Ranks: shards, collectives, sums of gradients, agreement, and ranks that get lost, on
 * one host, on several, on unequal ones. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/dist/ranks.h"
#include "worker/dist/shard.h"

/* World and ranks to a host. */
static const int layout[][2] = {{2, 2}, {3, 3}, {4, 4}, {2, 1}, {4, 2}, {3, 2}, {6, 2}};
enum { LAYOUTS = sizeof layout / sizeof *layout };

/* ---- shards ---- */

static void test_shard(void **state)
{
    size_t tokens[64], load[8];
    int owner[64], again[64];
    struct err e;

    (void)state;
    for (int world = 1; world <= 8; world++)
        for (size_t n = 0; n <= 64; n += 7) {
            size_t total = 0, longest = 0;

            for (size_t i = 0; i < n; i++) {
                tokens[i] = 3 + i * 7919 % 61;
                total += tokens[i];
                longest = tokens[i] > longest ? tokens[i] : longest;
            }
            memset(load, 0, sizeof load);
            assert_int_equal(shard_by_tokens(tokens, n, world, owner, &e), 0);
            assert_int_equal(shard_by_tokens(tokens, n, world, again, &e), 0);
            assert_memory_equal(owner, again, n * sizeof *owner);
            for (size_t i = 0; i < n; i++) {
                assert_in_range(owner[i], 0, world - 1);
                load[owner[i]] += tokens[i];
            }
            /* No rank waits for another longer than one example takes. */
            for (int r = 0; r < world; r++)
                assert_true(load[r] <= total / (size_t)world + longest);
            if (n)
                assert_true(load[0] > 0); /* rank 0's list of metrics is whole */
        }
}

/* ---- collectives ---- */

static int collectives(struct comm *c, void *arg)
{
    enum { N = 600000 }; /* more than a stage holds */
    float *x = malloc(N * sizeof *x);
    int all[RANKS_MAX], me = c->rank * 10 + 1, root = c->world - 1;
    unsigned flags = 1u << c->rank;
    struct err e;

    (void)arg;
    CHECK(x);
    CHECK(!c->all_gather(c, &me, sizeof me, all, &e));
    for (int i = 0; i < c->world; i++)
        CHECK(all[i] == i * 10 + 1);
    me = c->rank == root ? 77 : 0;
    CHECK(!c->broadcast(c, &me, sizeof me, root, &e) && me == 77);
    for (int i = 0; i < N; i++)
        x[i] = (float)(i % 1000 + c->rank);
    CHECK(!c->all_reduce(c, x, N, &e));
    for (int i = 0; i < N; i++)
        CHECK(x[i] == (float)(c->world * (i % 1000) + c->world * (c->world - 1) / 2));
    CHECK(!comm_any(c, &flags, &e) && flags == (1u << c->world) - 1);
    CHECK(!c->barrier(c, &e));
    free(x);
    return 0;
}

static void test_collectives(void **state)
{
    (void)state;
    for (int i = 0; i < LAYOUTS; i++)
        assert_int_equal(ranks_run(layout[i][0], layout[i][1], collectives, NULL, NULL), 0);
}

/* ---- agreement ---- */

static int agreement(struct comm *c, void *arg)
{
    struct err e = {0};
    int r;

    (void)arg;
    CHECK(!comm_agree(c, 0, &e));
    r = c->rank == 1 ? err_set(&e, ERR_IO, "disk is full") : 0;
    if (r)
        err_mend(&e, "make room");
    CHECK(comm_agree(c, r, &e) == ERR_IO && *c->verdict == ERR_IO);
    CHECK(strstr(e.msg, "rank 1 on ") && strstr(e.msg, ": disk is full"));
    CHECK(!strcmp(e.mend, "make room"));
    /* A failure counts more than a request to stop. */
    r = c->rank == 0 ? err_set(&e, ERR_STOPPED, "stopped")
                     : err_set(&e, ERR_NOMEM, "no memory");
    CHECK(comm_agree(c, r, &e) == ERR_NOMEM);
    r = c->rank == 0 ? err_set(&e, ERR_STOPPED, "stopped") : 0;
    CHECK(comm_agree(c, r, &e) == ERR_STOPPED && !strcmp(e.msg, "stopped"));
    CHECK(!comm_same(c, "a file", "same", 4, &e));
    CHECK(comm_same(c, "a file", c->rank == 1 ? "othr" : "same", 4, &e) == ERR_CONFIG);
    CHECK(strstr(e.msg, "rank 1 on ") && strstr(e.msg, "a file that differs"));
    return 0;
}

static void test_agreement(void **state)
{
    (void)state;
    for (int i = 0; i < LAYOUTS; i++)
        assert_int_equal(ranks_run(layout[i][0], layout[i][1], agreement, NULL, NULL), 0);
}

/* ---- gradients ---- */

static int gradients(struct comm *c, void *arg)
{
    static const size_t bound[] = {0, 1000, 1003, 50000, 50000, 51117};
    struct comm_grad g = {.n = 51117, .bound = bound, .buckets = 5};
    struct err e;

    g.shard = *(int *)arg;
    CHECK(!c->grad_open(c, &g, &e));
    for (size_t i = 0; i < g.n; i++)
        CHECK(g.grad[i] == 0);
    for (int step = 0; step < 5; step++) {
        for (size_t i = 0; i < g.n; i++)
            g.grad[i] = grad_of(c->rank, step, i);
        for (int k = 0; k < g.buckets - step % 2; k++) /* the rest in grad_wait() */
            c->grad_start(c, &g, (k * 3 + c->rank + step) % g.buckets);
        CHECK(!c->grad_wait(c, &g, &e));
        for (int b = 0; b < g.buckets; b++)
            for (size_t i = g.from[b]; i < g.to[b]; i++)
                CHECK(g.grad[i] == sum_of(c->world, step, i));
        for (int b = 0; g.shard && b < g.buckets; b++)
            for (size_t i = g.from[b]; i < g.to[b]; i++)
                g.param[i] = (float)(c->rank * 1000 + step);
        CHECK(!c->param_gather(c, &g, &e));
        if (!g.shard) {
            CHECK(!g.param && g.from[0] == 0 && g.to[g.buckets - 1] == g.n);
            CHECK(!c->barrier(c, &e));
            continue;
        }
        /* Every element has exactly one owner, and all see what it wrote. */
        for (size_t i = 0; i < g.n; i++) {
            CHECK((int)g.param[i] % 1000 == step);
            CHECK((int)g.param[i] / 1000 < c->world);
        }
        CHECK(!c->barrier(c, &e));
    }
    c->grad_close(c, &g);
    c->grad_close(c, &g);
    return 0;
}

static void test_gradients(void **state)
{
    (void)state;
    for (int shard = 0; shard < 2; shard++)
        for (int i = 0; i < LAYOUTS; i++)
            assert_int_equal(ranks_run(layout[i][0], layout[i][1], gradients, NULL, &shard),
                             0);
}

/* ---- lost ranks ---- */

struct story {
    char text[ERR_MSG_MAX];
    _Atomic int reports;
};

static void on_lost(void *arg, const char *message, int report, int far)
{
    struct story *s = arg;

    (void)far;
    if (report) {
        snprintf(s->text, sizeof s->text, "%s", message);
        atomic_fetch_add(&s->reports, 1);
    }
    usleep(300000); /* let the others look, too */
    _exit(0);
}

static int one_dies(struct comm *c, void *arg)
{
    struct err e;

    (void)arg;
    c->note(c, COMM_BACKWARD, 41);
    if (c->barrier(c, &e))
        return 1;
    if (c->rank == 0)
        raise(SIGKILL);
    return c->barrier(c, &e); /* for ever, but for the watch */
}

static int all_leave(struct comm *c, void *arg)
{
    (void)arg;
    usleep((unsigned)(c->world - c->rank) * 100000u); /* one after the other */
    return 0;
}

static void test_lost(void **state)
{
    struct story *s =
        mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    (void)state;
    assert_ptr_not_equal(s, MAP_FAILED);
    assert_int_equal(ranks_run(3, 3, one_dies, on_lost, s), 1); /* the dead one alone */
    assert_int_equal(s->reports, 1);
    assert_non_null(strstr(s->text, "rank 0 on "));
    assert_non_null(strstr(s->text, "was killed or crashed at step 42, backward"));
    s->reports = 0;
    assert_int_equal(ranks_run(3, 3, all_leave, on_lost, s), 0);
    assert_int_equal(s->reports, 0);
    munmap(s, sizeof *s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shard),     cmocka_unit_test(test_collectives),
        cmocka_unit_test(test_agreement), cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_lost),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
