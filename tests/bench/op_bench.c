/* Speed of the operators: `op_bench [--cpu-time] [--bf16] [THREADS]...` (default 1 2), or
 * `op_bench [--bf16] --bound THREADS LAYERS WIDTH FEED TOKENS`: the matrix products of a
 * BERT encoder alone, forward and forward + backward, as JSON: what no training step can
 * beat.
 *
 * Prints, for each number of threads: the processor's own limits (FMA, memory triad); the
 * three matrix products of a linear layer at MiniLM's and BERT-base's shapes, as GFLOP/s
 * and as a share of the FMA limit, beside oneDNN's with prepacked weights where it was
 * found; the other operators in GB/s or GFLOP/s; and one training step of MiniLM (16 texts
 * of 25 tokens) put together from them. The best of several runs counts: others use the
 * machine. With --cpu-time one thread is measured by its CPU time, which does not run while
 * a neighbour has the core; several threads always by the wall clock. --bf16: our matrix
 * products in bf16, with the same limit (that of f32) and oneDNN's in f32. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "kernels/backend.h"
#include "kernels/cpu/cpu.h"
#include "tests/bench/dnnl_peer.h"

#define COUNT(a) ((int)(sizeof(a) / sizeof(a)[0]))

static const struct backend *be;
static double peak_gflops, peak_gbs;

static int cpu_time;
static enum op_precision precision;

static double bench_clock(void)
{
    struct timespec t;

    if (!cpu_time || be->threads() > 1 || clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t))
        return clock_now();
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static float *new_floats(long n)
{
    float *p = mem_aligned(64, (size_t)n * sizeof *p);

    if (!p) {
        fprintf(stderr, "op_bench: out of memory\n");
        exit(1);
    }
    for (long i = 0; i < n; i++)
        p[i] = (float)((uint32_t)i * 2654435761u >> 8) * 0x1p-24f - 0.5f;
    return p;
}

static void check(int rc)
{
    if (!rc)
        return;
    fprintf(stderr, "op_bench: %s\n", be->error());
    exit(1);
}

/* Best seconds of one call: at least 7 calls and 100 ms. */
#define BEST(call)                                                                         \
    ({                                                                                     \
        double best_ = 1e9, total_ = 0;                                                    \
        for (int n_ = 0; n_ < 7 || (total_ < 0.1 && n_ < 1000); n_++) {                    \
            double took_ = bench_clock();                                                  \
            check(call);                                                                   \
            took_ = bench_clock() - took_;                                                 \
            total_ += took_;                                                               \
            best_ = took_ < best_ ? took_ : best_;                                         \
        }                                                                                  \
        best_;                                                                             \
    })

/* ---- limits ---- */

enum { FMA_TILES = 20 };

/* The tile on operands that stay in the first-level cache: what FMA can do at best. */
static void fma_task(void *arg, long i, int worker)
{
    const struct cpu_loops *loops = cpu_loops();
    float *p = (float *)arg + (i % 64) * 32768;
    struct tile t = {.a = p,
                     .rs = 1,
                     .ks = loops->tile_m,
                     .b = p + 4096,
                     .bs = loops->tile_n,
                     .c = p + 16384,
                     .ldc = loops->tile_n,
                     .k = 128,
                     .rows = loops->tile_m};

    (void)worker;
    for (int k = 0; k < FMA_TILES; k++)
        loops->tile(&t);
}

struct triad {
    float *x, *y;
    long n;
};

static void triad_task(void *arg, long i, int worker)
{
    struct triad *t = arg;
    long block = t->n / 64;

    (void)worker;
    cpu_loops()->add(t->x + i * block, t->y + i * block, block);
}

static int run_fma(float *p)
{
    cpu_for(64, 1e9, fma_task, p);
    return 0;
}

static int run_triad(struct triad *t)
{
    cpu_for(64, 1e9, triad_task, t);
    return 0;
}

static void limits(void)
{
    long n = 32 << 20;
    float *p = new_floats(64 * 32768);
    struct triad memory = {new_floats(n), new_floats(n), n};
    const struct cpu_loops *l = cpu_loops();

    peak_gflops = 64e-9 * FMA_TILES * 128 * 2 * l->tile_m * l->tile_n / BEST(run_fma(p));
    peak_gbs = 12e-9 * (double)n / BEST(run_triad(&memory));
    printf("limits: %.0f GFLOP/s (register tile in cache), %.1f GB/s (y += x in memory)\n",
           peak_gflops, peak_gbs);
    mem_free(p);
    mem_free(memory.x);
    mem_free(memory.y);
}

/* ---- matrix products ---- */

struct linear {
    struct matmul_args forward, packed, data, weight; /* y, y again, dx, dW */
    struct op_pack pack;
    float *x, *w, *y, *dw, *bias;
};

static void linear_open(struct linear *l, long M, long N, long K, enum op_act act)
{
    memset(l, 0, sizeof *l);
    l->x = new_floats(M * K);
    l->w = new_floats(N * K);
    l->y = new_floats(2 * M * N);
    l->dw = new_floats(N * K);
    l->bias = new_floats(N);
    l->pack.version = 1;
    l->forward = (struct matmul_args){.M = M,
                                      .N = N,
                                      .K = K,
                                      .a = l->x,
                                      .lda = K,
                                      .b = l->w,
                                      .ldb = K,
                                      .trans_b = 1,
                                      .bias = l->bias,
                                      .act = act,
                                      .pre = act ? l->y + M * N : NULL,
                                      .c = l->y,
                                      .ldc = N,
                                      .precision = precision};
    l->packed = l->forward;
    l->packed.pack = &l->pack;
    l->data = (struct matmul_args){.M = M,
                                   .N = K,
                                   .K = N,
                                   .a = l->y,
                                   .lda = N,
                                   .b = l->w,
                                   .ldb = K,
                                   .c = l->x,
                                   .ldc = K,
                                   .precision = precision};
    l->weight = (struct matmul_args){.M = N,
                                     .N = K,
                                     .K = M,
                                     .a = l->y,
                                     .lda = N,
                                     .trans_a = 1,
                                     .b = l->x,
                                     .ldb = K,
                                     .c = l->dw,
                                     .ldc = K,
                                     .accumulate = 1,
                                     .precision = precision};
}

static void linear_close(struct linear *l)
{
    be->pack_free(&l->pack);
    mem_free(l->x);
    mem_free(l->w);
    mem_free(l->y);
    mem_free(l->dw);
    mem_free(l->bias);
}

static void products(int threads)
{
    static const long shape[][3] = {
        {400, 1152, 384}, {400, 384, 384},  {400, 1536, 384},  {400, 384, 1536},
        {213, 384, 384},  {213, 1536, 384}, {3000, 1152, 384}, {3000, 384, 1536},
        {24, 1536, 384},  {512, 2304, 768}, {512, 768, 768},   {512, 3072, 768},
        {512, 768, 3072},
    };
    double log_share = 0;

    printf("\nGFLOP/s               y = x W^T    kept panels      dx = dy W   dW += dy^T x"
           "   oneDNN packed\n");
    for (int i = 0; i < COUNT(shape); i++) {
        long M = shape[i][0], N = shape[i][1], K = shape[i][2];
        double flops = 2e-9 * (double)M * (double)N * (double)K, peer;
        struct linear l;

        linear_open(&l, M, N, K, ACT_NONE);
        struct matmul_args *form[] = {&l.forward, &l.packed, &l.data, &l.weight};
        printf("%5ld x %4ld x %4ld ", M, N, K);
        for (int k = 0; k < COUNT(form); k++) {
            double rate = flops / BEST(be->matmul(form[k]));

            log_share += log(rate / peak_gflops) / (COUNT(form) * COUNT(shape));
            printf("  %6.1f (%3.0f%%)", rate, 100 * rate / peak_gflops);
        }
        peer = dnnl_peer_matmul(M, N, K, l.x, l.w, l.y, threads, bench_clock);
        printf(peer > 0 ? "   %6.1f\n" : "        -\n", flops / peer);
        linear_close(&l);
    }
    printf("geometric mean: %.0f%% of the limit\n", 100 * exp(log_share));
}

/* ---- one step of MiniLM ---- */

enum { B = 16, LENGTH = 25, T = B * LENGTH, L = 6, D = 384, H = 12, F = 1536, V = 30522 };

static double step_total, matmul_total;

/* One line: `times` calls a step, `gigabytes` and `gigaflops` a call (0: not shown). */
static void line(const char *what, int times, double took, double gigabytes,
                 double gigaflops)
{
    printf("%-34s %3d x %8.1f us = %7.2f ms", what, times, took * 1e6, took * times * 1e3);
    if (gigaflops > 0)
        printf("  %6.1f GFLOP/s", gigaflops / took);
    if (gigabytes > 0)
        printf("  %6.1f GB/s", gigabytes / took);
    printf("\n");
    step_total += took * times;
}

static void step_products(void)
{
    static const struct {
        const char *name;
        long N, K;
        enum op_act act;
    } layer[] = {{"qkv", 3 * D, D, ACT_NONE},
                 {"attention output", D, D, ACT_NONE},
                 {"feed-forward in, gelu", F, D, ACT_GELU_ERF},
                 {"feed-forward out", D, F, ACT_NONE}};

    for (int i = 0; i < COUNT(layer); i++) {
        double flops = 2e-9 * T * (double)layer[i].N * (double)layer[i].K,
               before = step_total;
        char name[64];
        struct linear l;

        linear_open(&l, T, layer[i].N, layer[i].K, layer[i].act);
        snprintf(name, sizeof name, "%s: y", layer[i].name);
        line(name, L, BEST(be->matmul(&l.forward)), 0, flops);
        snprintf(name, sizeof name, "%s: dx", layer[i].name);
        line(name, L, BEST(be->matmul(&l.data)), 0, flops);
        snprintf(name, sizeof name, "%s: dW", layer[i].name);
        line(name, L, BEST(be->matmul(&l.weight)), 0, flops);
        linear_close(&l);
        matmul_total += step_total - before;
    }
}

static void step_attention(double p)
{
    int cu_seqlens[B + 1];
    uint32_t example[T], position[T];
    float *qkv = new_floats(T * 3L * D), *o = new_floats(T * (long)D);
    float *lse = new_floats(T * (long)H), *dout = new_floats(T * (long)D);
    float *dqkv = new_floats(T * 3L * D);
    double flops = 4e-9 * T * LENGTH * D;

    for (int i = 0; i <= B; i++)
        cu_seqlens[i] = i * LENGTH;
    for (uint32_t t = 0; t < T; t++) {
        example[t] = t / LENGTH;
        position[t] = t % LENGTH;
    }
    struct op_dropout drop = {(float)p, 1, 2, example, position};
    struct attention_args f = {qkv,   qkv + D, qkv + 2 * D, 3 * D, 3 * D, 3 * D, D,
                               o,     lse,     cu_seqlens,  B,     T,     H,     H,
                               D / H, 0,       0,           0.17f, drop};
    struct attention_backward_args b = {
        qkv,  qkv + D,  qkv + 2 * D,  o,          dout, lse, 3 * D, 3 * D, 3 * D, D,
        dqkv, dqkv + D, dqkv + 2 * D, cu_seqlens, B,    T,   H,     H,     D / H, 0,
        0,    0.17f,    drop};

    line(p > 0 ? "attention, dropout" : "attention", L, BEST(be->attention(&f)), 0, flops);
    line(p > 0 ? "attention_backward, dropout" : "attention_backward", L,
         BEST(be->attention_backward(&b)), 0, 2.5 * flops);
    mem_free(qkv);
    mem_free(o);
    mem_free(lse);
    mem_free(dout);
    mem_free(dqkv);
}

static void step_rows(double p)
{
    uint32_t example[T], position[T];
    float *x = new_floats(T * (long)F), *y = new_floats(T * (long)F);
    float *z = new_floats(T * (long)F), *w = new_floats(4 * F), *stat = new_floats(2 * T);
    double row = 4e-9 * T;

    for (uint32_t t = 0; t < T; t++) {
        example[t] = t / LENGTH;
        position[t] = t % LENGTH;
    }
    struct op_dropout drop = {(float)p, 1, 2, example, position};
    struct norm_args n = {NORM_LAYER, T,    D, x, y,    w,       w + D,
                          1e-12f,     drop, y, z, stat, stat + T};
    struct norm_backward_args nb = {NORM_LAYER, T,        D, x,
                                    NULL,       y,        w, stat,
                                    stat + T,   drop,     z, p > 0 ? z + T * D : NULL,
                                    w + 2 * D,  w + 3 * D};
    line(p > 0 ? "norm, dropout" : "norm", 2 * L + 1, BEST(be->norm(&n)), row * 4 * D, 0);
    line(p > 0 ? "norm_backward, dropout" : "norm_backward", 2 * L + 1,
         BEST(be->norm_backward(&nb)), row * 3 * D, 0);
    if (p <= 0) {
        struct act_backward_args g = {ACT_GELU_ERF, x, y, y, w, T, F};
        struct act_backward_args bias[] = {{ACT_NONE, NULL, x, x, w, T, 3 * D},
                                           {ACT_NONE, NULL, x, x, w, T, D}};
        line("act_backward, gelu", L, BEST(be->act_backward(&g)), row * 3 * F, 0);
        line("bias gradient, 1152", L, BEST(be->act_backward(&bias[0])), row * 3 * D, 0);
        line("bias gradient, 384", 2 * L, BEST(be->act_backward(&bias[1])), row * D, 0);
    }
    mem_free(x);
    mem_free(y);
    mem_free(z);
    mem_free(w);
    mem_free(stat);
}

static void step_embedding(float *table, float *grad)
{
    int ids[T], places[T], types[T], order[T], start[T + 1], segments = 0;
    float *y = new_floats(T * (long)D);

    for (int t = 0; t < T; t++) { /* already sorted: every token twice */
        ids[t] = t / 2 * 37;
        places[t] = t % LENGTH;
        types[t] = 0;
        order[t] = t;
        if (t % 2 == 0)
            start[segments++] = t;
    }
    start[segments] = T;
    struct embedding_args f = {3, {table, table, table}, {ids, places, types}, y, T, D};
    struct embedding_backward_args b = {ids, order, start, segments, T, D, y, grad};
    line("embedding", 1, BEST(be->embedding(&f)), 16e-9 * T * D, 0);
    line("embedding_backward, words", 1, BEST(be->embedding_backward(&b)), 12e-9 * T * D,
         0);
    start[1] = T;
    b.index = types;
    b.n_segments = 1;
    line("embedding_backward, one type", 1, BEST(be->embedding_backward(&b)), 4e-9 * T * D,
         0);
    mem_free(y);
}

static void step_optimizer(float *table, float *grad)
{
    long body = (long)L * (4L * D * D + 2L * D * F), words = (long)V * D;
    float *m = new_floats(words), *v = new_floats(words), *p = new_floats(4 * body);
    unsigned char *live = mem_array(V, 1);
    double sum[2];

    memset(v, 0, (size_t)words * sizeof *v);
    memset(p, 0, (size_t)(4 * body) * sizeof *p);
    for (int r = 0; live && r < V; r += 10)
        live[r] = 1;
    struct adamw_tensor t[] = {
        {p, p + body, p + 2 * body, p + 3 * body, body, 0, NULL, 0, 1e-5f},
        {table, grad, m, v, words, D, live, 0, 1e-5f}};
    struct adamw_args a = {t, 2, 0.9, 0.999, 1e-8, 5, 1};
    struct grad_norm_args g = {t, 2, sum};
    double touched = (double)body + 0.1 * (double)words;
    line("grad_norm", 1, BEST(be->grad_norm(&g)), 4e-9 * touched, 0);
    line("adamw, 10.6 M and a tenth of words", 1, BEST(be->adamw(&a)), 32e-9 * touched, 0);
    mem_free(m);
    mem_free(v);
    mem_free(p);
    mem_free(live);
}

static void step_head(void)
{
    int cu_seqlens[B + 1], label[B];
    float *x = new_floats(T * (long)D), *y = new_floats(B * (long)D);
    float *logits = new_floats(B * 5), *loss = new_floats(B);

    for (int i = 0; i <= B; i++)
        cu_seqlens[i] = i * LENGTH;
    for (int i = 0; i < B; i++)
        label[i] = i % 5;
    struct pool_args p = {POOL_MEAN, x, y, cu_seqlens, B, T, D};
    struct pool_backward_args pb = {POOL_MEAN, y, x, cu_seqlens, B, T, D};
    struct cross_entropy_args c = {logits, label, 0, 0, 1, loss, logits, B, 5};
    line("pool", 1, BEST(be->pool(&p)), 4e-9 * T * D, 0);
    line("pool_backward", 1, BEST(be->pool_backward(&pb)), 4e-9 * T * D, 0);
    line("cross_entropy", 1, BEST(be->cross_entropy(&c)), 0, 0);
    mem_free(x);
    mem_free(y);
    mem_free(logits);
    mem_free(loss);
}

static void step(void)
{
    float *table = new_floats((long)V * D), *grad = new_floats((long)V * D);

    printf("\none training step of MiniLM: 16 texts of 25 tokens, no dropout\n");
    step_total = matmul_total = 0;
    step_products();
    step_attention(0);
    step_rows(0);
    step_embedding(table, grad);
    step_head();
    step_optimizer(table, grad);
    printf("%-34s                     %7.2f ms, matrix products %.0f%%, %.0f tokens/s\n",
           "sum", step_total * 1e3, 100 * matmul_total / step_total, T / step_total);
    step_total = 0;
    step_attention(0.1);
    step_rows(0.1);
    mem_free(table);
    mem_free(grad);
}

/* ---- the bound ---- */

static int bound(char **word)
{
    long layers = atol(word[1]), width = atol(word[2]), feed = atol(word[3]);
    long tokens = atol(word[4]);
    const long shape[][2] = {
        {3 * width, width}, {width, width}, {feed, width}, {width, feed}};
    double forward = 0, all = 0, flops = 0;

    be->set_threads(atoi(word[0]));
    for (int i = 0; i < COUNT(shape); i++) {
        struct linear l;
        double y;

        linear_open(&l, tokens, shape[i][0], shape[i][1], ACT_NONE);
        y = (double)layers * BEST(be->matmul(&l.forward));
        forward += y;
        all +=
            y + (double)layers * (BEST(be->matmul(&l.data)) + BEST(be->matmul(&l.weight)));
        flops += 6.0 * (double)layers * (double)tokens * (double)shape[i][0] *
                 (double)shape[i][1];
        linear_close(&l);
    }
    printf("{\"forward_tokens_s\": %.1f, \"step_tokens_s\": %.1f, \"gflops\": %.1f}\n",
           (double)tokens / forward, (double)tokens / all, flops / all * 1e-9);
    return 0;
}

int main(int argc, char **argv)
{
    static const char *const usual[] = {"1", "2"};
    const char *const *list = usual;
    int n = COUNT(usual);
    char text[160];

    for (; argc > 1 && argv[1][0] == '-' && strcmp(argv[1], "--bound"); argc--, argv++) {
        cpu_time |= !strcmp(argv[1], "--cpu-time");
        if (!strcmp(argv[1], "--bf16"))
            precision = PRECISION_BF16;
    }
    if (argc > 1) {
        list = (const char *const *)argv + 1;
        n = argc - 1;
    }
    be = backend_find("cpu");
    if (argc == 7 && !strcmp(argv[1], "--bound"))
        return bound(argv + 2);
    for (int i = 0; i < n; i++) {
        be->set_threads(atoi(list[i]));
        be->describe(text, sizeof text);
        printf("%s== %s ==\n", i > 0 ? "\n" : "", text);
        limits();
        products(be->threads());
        step();
    }
    return 0;
}
