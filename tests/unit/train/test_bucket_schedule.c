/* The schedule of gradient buckets, with the code that trains (optim_grads.c) and a clock
 * of our own: backward completes parameters of BERT-base and of a 1.5B Llama one by one, a
 * communicator that only notes when a bucket was started stands for the link of 8×RTX 4090.
 * What is exposed agrees with the model behind docs/PERFORMANCE.md, and never falls below
 * what no schedule can hide. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/bench/step_model.h"
#include "worker/train/optim_internal.h"

static const struct step_box box = {"8×RTX 4090", 8,     165e12, 0.45, 806e9,
                                    10e9,         20e-6, 4e-6,   5e-6, 0.2e-6};
static const struct step_net bert = {"bert", 12, 768, 3072, 30522, 512, 0, 128, 0, 57, 48};
static const struct step_net llama = {"llama", 2, 2048, 6144, 4000, 0, 1, 2048, 0, 57, 48};

static struct step_bucket started[STEP_BUCKETS_MAX];
static int n_started, order_broken;
static double now;

static int same_all_gather(const struct comm *c, const void *in, size_t bytes, void *out,
                           struct err *e)
{
    (void)e;
    for (int k = 0; k < c->world; k++)
        memcpy((char *)out + (size_t)k * bytes, in, bytes);
    return 0;
}

static int nothing(const struct comm *c, struct err *e)
{
    (void)c;
    (void)e;
    return 0;
}

static int no_broadcast(const struct comm *c, void *p, size_t bytes, int root,
                        struct err *e)
{
    (void)p;
    (void)bytes;
    (void)root;
    return nothing(c, e);
}

static int open_grads(const struct comm *c, struct comm_grad *g, struct err *e)
{
    (void)c;
    (void)g;
    (void)e;
    return 0;
}

static void close_grads(const struct comm *c, struct comm_grad *g)
{
    (void)c;
    (void)g;
}

static void start(const struct comm *c, struct comm_grad *g, int bucket)
{
    double n = (double)(g->bound[bucket + 1] - g->bound[bucket]);

    (void)c;
    /* Backward goes from the end: a bucket never starts before one behind it. */
    order_broken |= n_started && bucket >= g->buckets - n_started;
    assert_true(n_started < STEP_BUCKETS_MAX);
    started[n_started++] = (struct step_bucket){n * 4, now};
}

static const struct comm fake = {.name = "fake",
                                 .world = 8,
                                 .host = "here",
                                 .all_gather = same_all_gather,
                                 .barrier = nothing,
                                 .broadcast = no_broadcast,
                                 .grad_open = open_grads,
                                 .grad_close = close_grads,
                                 .grad_start = start};

struct net { /* the parameters of a step_net, over one piece of memory */
    int n;
    struct step_param shape[STEP_PARAMS_MAX];
    struct param param[STEP_PARAMS_MAX];
    struct param *list[STEP_PARAMS_MAX];
    unsigned char *ready[STEP_PARAMS_MAX];
    float *memory;
    double elements, flops;
};

static struct net *make(const struct step_net *s)
{
    struct net *net = calloc(1, sizeof *net);
    double largest = 0, total;

    assert_non_null(net);
    net->n = step_params(s, net->shape, &total);
    for (int i = 0; i < net->n; i++) {
        largest = fmax(largest, net->shape[i].elements);
        net->elements += net->shape[i].elements;
        net->flops += net->shape[i].flops;
    }
    net->memory = calloc((size_t)largest, sizeof *net->memory);
    assert_non_null(net->memory);
    for (int i = 0; i < net->n; i++) {
        net->param[i] = (struct param){.name = "p",
                                       .rows = 1,
                                       .cols = (long)net->shape[i].elements,
                                       .data = net->memory,
                                       .grad = net->memory,
                                       .trainable = 1};
        net->list[i] = &net->param[i];
    }
    return net;
}

/* Exposed seconds of a backward that takes `backward`, by the code that trains. */
static double simulate(struct net *net, double backward)
{
    struct optim o = {.comm = &fake,
                      .backend = backend_find("cpu"),
                      .param = net->list,
                      .ready = net->ready,
                      .n = net->n};
    struct err e;
    double sent = 0;

    n_started = order_broken = 0;
    now = 0;
    assert_int_equal(optim_grads_open(&o, &e), 0);
    for (int i = net->n - 1; i >= 0; i--) {
        now += net->shape[i].flops / net->flops * backward;
        optim_param_done(&o, net->list[i]);
    }
    optim_grads_close(&o);
    for (int k = 0; k < n_started; k++)
        sent += started[k].bytes;
    assert_true(fabs(sent - 4 * net->elements) < 1); /* all of it, once */
    assert_false(order_broken);
    return step_exposed(&box, started, n_started, backward);
}

static void check(const struct step_net *s)
{
    static const double tokens[] = {64, 512, 4096, 65536};
    struct net *net = make(s);

    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
        struct step_time t;
        double exposed, alone = 0, last = 0;

        step_predict(&box, s, tokens[i], 4, 4 << 20, 1, &t);
        exposed = simulate(net, t.backward);
        for (int k = 0; k < n_started; k++) {
            double each = step_all_reduce(&box, started[k].bytes);

            alone += each;
            last += started[k].ready > t.backward * (1 - 1e-9) ? each : 0;
        }
        /* Nothing hides what is complete only at the end (the embeddings), nor what the
         * link needs beyond backward. */
        assert_true(exposed >= last * 0.999);
        assert_true(exposed >= alone - t.backward);
        /* Where backward is long, little more than that is left. */
        if (t.backward > 3 * alone)
            assert_true(exposed < 0.1 * alone + last);
        assert_true(fabs(exposed - t.exposed) < 0.1 * t.exposed + 0.002);
    }
    free(net->memory);
    free(net);
}

static void test_bert(void **state)
{
    (void)state;
    check(&bert);
}

static void test_llama(void **state)
{
    (void)state;
    check(&llama);
}

static int no_sum(const struct comm *c, float *x, size_t n, struct err *e)
{
    (void)x;
    (void)n;
    return nothing(c, e);
}

/* Between devices gradients are cut where they lie, into buckets of the size that was asked
 * for, up to twice that, but for the last ones. */
static void test_sizes(void **state)
{
    enum { PARAMS = 60, ELEMENTS = 300000 };
    static const size_t sizes[] = {1 << 18, 8 << 18, 25 << 18};
    struct backend device = *backend_find("cpu");
    struct comm devices = fake;
    struct net *net = calloc(1, sizeof *net);
    float *memory = calloc(PARAMS * (size_t)ELEMENTS, sizeof *memory);
    struct err e;

    (void)state;
    assert_true(net && memory);
    device.name = "cuda";
    devices.device_sum = no_sum;
    for (int i = 0; i < PARAMS; i++) {
        float *at = memory + (size_t)i * ELEMENTS;

        net->param[i] = (struct param){
            .rows = 1, .cols = ELEMENTS, .data = at, .grad = at, .trainable = 1};
        net->list[i] = &net->param[i];
    }
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        struct optim o = {.comm = &devices,
                          .backend = &device,
                          .options = {.bucket = sizes[s]},
                          .param = net->list,
                          .ready = net->ready,
                          .n = PARAMS};
        double sent = 0;

        n_started = order_broken = 0;
        assert_int_equal(optim_grads_open(&o, &e), 0);
        for (int i = PARAMS - 1; i >= 0; i--)
            optim_param_done(&o, net->list[i]);
        optim_grads_close(&o);
        for (int k = 0; k < n_started; k++) {
            sent += started[k].bytes;
            assert_true(started[k].bytes < 2 * 4.0 * (double)sizes[s]);
            assert_true(k == 0 || started[k].bytes >= 4.0 * (double)sizes[s]);
        }
        assert_true(sent == 4.0 * PARAMS * ELEMENTS);
        assert_false(order_broken);
    }
    free(memory);
    free(net);
}

/* The formulas at points that can be computed by hand. */
static void test_model(void **state)
{
    struct step_box one = box;
    struct step_bucket b[] = {{10e6, 0.001}, {10e6, 0.002}, {10e6, 0.1}};
    double each = 2 * 7.0 / 8 * 10e6 / 10e9 + 14 * 20e-6; /* ring: 2.03 ms */

    (void)state;
    assert_true(fabs(step_all_reduce(&box, 10e6) - each) < 1e-9);
    /* tree, for the short: 6 hops, not 14 */
    assert_true(fabs(step_all_reduce(&box, 1e3) - (2e-7 + 6 * 20e-6)) < 1e-9);
    one.gpus = 1;
    assert_true(step_all_reduce(&one, 10e6) == 0);
    assert_true(fabs(step_exposed(&box, b, 2, 0.002) - (0.001 + 2 * each - 0.002)) < 1e-9);
    assert_true(fabs(step_exposed(&box, b, 3, 0.1) - each) < 1e-9);
    assert_true(step_exposed(&box, b, 2, 1) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_bert),
        cmocka_unit_test(test_llama),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
