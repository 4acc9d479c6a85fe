/* Speed of a back end's operators on its own memory: `bench [BACKEND] [--tiny] [--steps]`.
 *
 * One line an operator: time of a call (queued back to back, the best of several runs),
 * its rate, and beside it the share of what is within reach and the share aimed at: of the
 * memory rate that `add` reaches, and for attention of the rate of the bf16 product. Sizes
 * are those of a BERT-base layer with 16,384 tokens;
 * --tiny makes them small, for a machine that only proves that this program works.
 * --steps: instead, what launching costs: a step of MiniLM's forward products, norms and
 * attention, as one step after another, with graphs or (HONE_CUDA_GRAPHS=off) without. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "kernels/backend.h"

enum { RUNS = 3, TENSORS = 16 };

static const struct backend *be;
static long T = 16384, D = 768, F = 3072, V = 30522, SEQ = 128;
static int calls = 20;
static double memory_rate, product_rate; /* GB/s of add, TFLOP/s of a bf16 product */

static void check(int rc)
{
    if (!rc)
        return;
    fprintf(stderr, "bench: %s\n", be->error());
    exit(1);
}

static void *device(size_t bytes)
{
    void *p = be->alloc(bytes);

    if (!p)
        check(-1);
    check(be->fill_zero(p, bytes));
    return p;
}

static float *floats(long n)
{
    float *host = mem_array((size_t)n, sizeof *host), *p = device((size_t)n * sizeof *p);

    if (!host)
        exit(1);
    for (long i = 0; i < n; i++)
        host[i] = (float)((uint32_t)i * 2654435761u >> 8) * 0x1p-24f - 0.5f;
    check(be->copy_in(p, host, (size_t)n * sizeof *p));
    mem_free(host);
    return p;
}

static void *copied(const void *host, size_t bytes)
{
    void *p = device(bytes);

    check(be->copy_in(p, host, bytes));
    return p;
}

/* Wait for all that was queued. */
static void finish(const void *p)
{
    char byte;

    check(be->copy_out(&byte, p, 1));
}

/* Seconds of one call of `op` with its arguments. */
#define SECONDS(op, args, out)                                                             \
    __extension__({                                                                        \
        double best_ = 1e30;                                                               \
                                                                                           \
        check(be->op(&(args)));                                                            \
        finish(out);                                                                       \
        for (int r_ = 0; r_ < RUNS; r_++) {                                                \
            double from_ = clock_now(), s_;                                                \
                                                                                           \
            for (int i_ = 0; i_ < calls; i_++)                                             \
                check(be->op(&(args)));                                                    \
            finish(out);                                                                   \
            s_ = (clock_now() - from_) / calls;                                            \
            best_ = s_ < best_ ? s_ : best_;                                               \
        }                                                                                  \
        best_;                                                                             \
    })

static void memory_line(const char *name, double seconds, double bytes)
{
    double rate = bytes / seconds / 1e9;

    if (memory_rate == 0)
        memory_rate = rate;
    printf("%-34s %9.1f us %9.1f GB/s %5.0f %% of 85 %%\n", name, seconds * 1e6, rate,
           100 * rate / memory_rate);
}

/* aim: percent of the bf16 product's rate; 0: none. */
static void flop_line(const char *name, double seconds, double flop, int aim)
{
    double rate = flop / seconds / 1e12;

    printf("%-34s %9.1f us %9.2f TFLOP/s", name, seconds * 1e6, rate);
    if (aim && product_rate > 0)
        printf(" %5.0f %% of %d %%", 100 * rate / product_rate, aim);
    puts("");
    if (!aim && rate > product_rate)
        product_rate = rate;
}

static void products(enum op_precision precision, const char *name)
{
    static const char *const kind[] = {"forward", "input gradient", "weight gradient"};
    float *x = floats(T * F), *w = floats(F * D), *y = floats(T * F), *bias = floats(F);
    char line[64];

    for (int k = 0; k < 3; k++) {
        struct matmul_args a = {.M = T, .N = F, .K = D, .precision = precision};
        double s;

        if (k == 0)
            a = (struct matmul_args){
                T,    F, D, x, D,    0,        w, D, 1, bias, ACT_GELU_ERF,
                NULL, y, F, 0, NULL, precision};
        else if (k == 1)
            a = (struct matmul_args){T,    D,        F,    x, F, 0, w,    D,        0,
                                     NULL, ACT_NONE, NULL, y, D, 0, NULL, precision};
        else
            a = (struct matmul_args){F,    D,        T,    x, F, 1, y,    D,        0,
                                     NULL, ACT_NONE, NULL, w, D, 1, NULL, precision};
        s = SECONDS(matmul, a, a.c);
        snprintf(line, sizeof line, "matmul %s %s", name, kind[k]);
        flop_line(line, s, 2.0 * (double)T * (double)F * (double)D, 0);
    }
    be->release(x);
    be->release(w);
    be->release(y);
    be->release(bias);
}

static void rows(void)
{
    long n = T * D;
    float *x = floats(n), *y = floats(n), *z = floats(n), *w = floats(D), *b = floats(D);
    float *stat = floats(2 * T), *u = floats(n);
    struct add_args add = {x, y, n};
    struct act_args act = {ACT_GELU_ERF, x, y, n};
    struct act_backward_args act_back = {ACT_GELU_ERF, x, y, z, w, T, D};
    struct norm_args norm = {NORM_LAYER, T,   D, x, y,    w,       b,
                             1e-12f,     {0}, z, u, stat, stat + T};
    struct norm_backward_args norm_back = {NORM_LAYER, T,        D,   y, NULL, z, w,
                                           stat,       stat + T, {0}, u, NULL, w, b};

    memory_line("add", SECONDS(add, add, y), 12.0 * (double)n);
    memory_line("act, GELU", SECONDS(act, act, y), 8.0 * (double)n);
    memory_line("act_backward with bias", SECONDS(act_backward, act_back, z),
                12.0 * (double)n);
    struct glu_args glu = {ACT_SILU, x, y, D, z, T, D};
    struct glu_backward_args glu_back = {ACT_SILU, x, y, z, D, u, x, T, D};
    struct dropout_args drop = {x, y, T, D, {0}};

    memory_line("glu", SECONDS(glu, glu, z), 12.0 * (double)n);
    memory_line("glu_backward", SECONDS(glu_backward, glu_back, u), 20.0 * (double)n);
    memory_line("dropout", SECONDS(dropout, drop, y), 8.0 * (double)n);
    memory_line("norm with residual", SECONDS(norm, norm, u), 16.0 * (double)n);
    memory_line("norm_backward", SECONDS(norm_backward, norm_back, u), 12.0 * (double)n);
    be->release(x);
    be->release(y);
    be->release(z);
    be->release(w);
    be->release(b);
    be->release(stat);
    be->release(u);
}

/* Rows of logits: as many as a micro-batch has, over a vocabulary's piece. */
static void losses(void)
{
    long N = T / 4, columns = 8192, part = 2048;
    int *zero = mem_array((size_t)T, sizeof *zero);
    const int *label = copied(zero, (size_t)T * sizeof *zero);
    float *z = floats(N * columns), *loss = floats(N), *state = floats(T * LOGPROB_STATE);
    float *out = floats(T * LOGPROB_OUT);
    struct cross_entropy_args cross = {z, label, 0, 0, 1, loss, z, N, columns};
    struct logprob_args logprob = {z, T, part, 0, part, 1, label, state, out};
    struct logprob_backward_args back = {z, T, 0, part, 1, label, state, out};

    memory_line("cross_entropy, 8192 columns", SECONDS(cross_entropy, cross, loss),
                8.0 * (double)(N * columns));
    memory_line("logprob, a fragment", SECONDS(logprob, logprob, out),
                4.0 * (double)(T * part));
    memory_line("logprob_backward", SECONDS(logprob_backward, back, z),
                8.0 * (double)(T * part));
    be->release(z);
    be->release(loss);
    be->release(state);
    be->release(out);
    mem_free(zero);
}

static void embedding(void)
{
    int *index = mem_array((size_t)T, sizeof *index), *order, *start;
    float *table = floats(V * D), *y = floats(T * D);
    long segments = 0, at = 0;
    struct rng r;

    rng_init(&r, 1);
    order = mem_array((size_t)T, sizeof *order);
    start = mem_array((size_t)T + 1, sizeof *start);
    for (long t = 0; t < T; t++) /* sorted already: the order of tokens is the same */
        index[t] = (int)(t * V / T);
    for (long t = 0; t < T; t++) {
        if (t == 0 || index[t] != index[t - 1])
            start[segments++] = (int)at;
        order[at++] = (int)t;
    }
    start[segments] = (int)at;
    struct embedding_args a = {.n = 1, .table = {table}, .y = y, .T = T, .D = D};
    struct embedding_backward_args back = {
        .n_segments = segments, .T = T, .D = D, .dy = y, .dtable = table};
    a.index[0] = back.index = copied(index, (size_t)T * sizeof *index);
    back.order = copied(order, (size_t)T * sizeof *order);
    back.start = copied(start, (size_t)(segments + 1) * sizeof *start);
    memory_line("embedding", SECONDS(embedding, a, y), 8.0 * (double)(T * D));
    memory_line("embedding_backward", SECONDS(embedding_backward, back, table),
                12.0 * (double)(T * D));
    be->release(table);
    be->release(y);
    mem_free(index);
    mem_free(order);
    mem_free(start);
}

static void training(void)
{
    struct adamw_tensor t[TENSORS];
    double sum[TENSORS];
    long n = F * D;
    struct adamw_args adamw = {t, TENSORS, 0.9, 0.999, 1e-8, 1, 1};
    struct grad_norm_args norm = {t, TENSORS, sum};

    memset(t, 0, sizeof t);
    for (int i = 0; i < TENSORS; i++) {
        t[i].n = n;
        t[i].lr = 1e-6f;
        t[i].p = floats(n);
        t[i].grad = floats(n);
        t[i].m = device((size_t)n * sizeof(float));
        t[i].v = device((size_t)n * sizeof(float));
    }
    memory_line("grad_norm", SECONDS(grad_norm, norm, t[0].p), 4.0 * (double)n * TENSORS);
    memory_line("adamw", SECONDS(adamw, adamw, t[0].p), 32.0 * (double)n * TENSORS);
    for (int i = 0; i < TENSORS; i++) {
        be->release(t[i].p);
        be->release(t[i].grad);
        be->release(t[i].m);
        be->release(t[i].v);
    }
}

/* Heads of d, T tokens in sequences of one length, as many heads as fill D columns. */
static void attention(long length, int d, int causal, enum op_precision precision)
{
    long B = T / length, ld = 3 * D, H = D / d;
    float *qkv = floats(T * ld), *o = floats(T * D), *lse = floats(T * H);
    float *dqkv = floats(T * ld);
    int *bounds = mem_array((size_t)B + 1, sizeof *bounds);
    float scale = 0.1f;
    char name[64];
    double flop = 4.0 * (double)T * (double)length * (double)D / (causal ? 2 : 1);

    for (long i = 0; i <= B; i++)
        bounds[i] = (int)(i * length);
    const int *cu = copied(bounds, (size_t)(B + 1) * sizeof *bounds);
    struct attention_args a = {
        qkv, qkv + D,    qkv + 2 * D, ld,     ld, ld,     D, o,     lse, cu,
        B,   B * length, (int)H,      (int)H, d,  causal, 0, scale, {0}, precision};
    struct attention_backward_args back = {
        qkv,  qkv + D,  qkv + 2 * D,  o,        o, lse,        ld,     ld,     ld, D,
        dqkv, dqkv + D, dqkv + 2 * D, cu,       B, B * length, (int)H, (int)H, d,  causal,
        0,    scale,    {0},          precision};

    snprintf(name, sizeof name, "attention %s d %d, %ld%s",
             precision == PRECISION_F32 ? "f32" : "bf16", d, length,
             causal ? " causal" : "");
    flop_line(name, SECONDS(attention, a, o), flop, 45);
    snprintf(name, sizeof name, "  backward");
    flop_line(name, SECONDS(attention_backward, back, dqkv), 2.5 * flop, 35);
    be->release(qkv);
    be->release(o);
    be->release(lse);
    be->release(dqkv);
    mem_free(bounds);
}

/* One layer of MiniLM, bf16: seven operators, some of several kernels. */
struct layer {
    float *x, *qkv, *o, *h, *f, *norm, *mean, *weight[4];
    const int *cu;
    struct op_pack pack[4];
};

static void product(struct layer *l, int i, const float *a, float *c, long M, long N,
                    long K, enum op_act act)
{
    struct matmul_args m = {.M = M,
                            .N = N,
                            .K = K,
                            .a = a,
                            .lda = K,
                            .b = l->weight[i],
                            .ldb = K,
                            .trans_b = 1,
                            .act = act,
                            .c = c,
                            .ldc = N,
                            .pack = &l->pack[i],
                            .precision = be->bf16() ? PRECISION_BF16 : PRECISION_F32};

    check(be->matmul(&m));
}

static void layer(struct layer *l, long tokens, long width, long inner)
{
    struct attention_args a = {.q = l->qkv,
                               .k = l->qkv + width,
                               .v = l->qkv + 2 * width,
                               .ldq = 3 * width,
                               .ldk = 3 * width,
                               .ldv = 3 * width,
                               .ldo = width,
                               .o = l->o,
                               .cu_seqlens = l->cu,
                               .B = tokens / 32,
                               .T = tokens,
                               .H = (int)width / 32,
                               .K = (int)width / 32,
                               .d = 32,
                               .scale = 0.1f,
                               .precision = be->bf16() ? PRECISION_BF16 : PRECISION_F32};
    struct norm_args n = {.N = tokens,
                          .D = width,
                          .x = l->h,
                          .residual = l->x,
                          .w = l->norm,
                          .b = l->norm,
                          .eps = 1e-5f,
                          .sum = l->h,
                          .y = l->x,
                          .mean = l->mean,
                          .rstd = l->mean + tokens};

    product(l, 0, l->x, l->qkv, tokens, 3 * width, width, ACT_NONE);
    check(be->attention(&a));
    product(l, 1, l->o, l->h, tokens, width, width, ACT_NONE);
    check(be->norm(&n));
    product(l, 2, l->x, l->f, tokens, inner, width, ACT_GELU_ERF);
    product(l, 3, l->f, l->h, tokens, width, inner, ACT_NONE);
    check(be->norm(&n));
}

static void steps(int tiny)
{
    long width = tiny ? 64 : 384, inner = 4 * width, most = tiny ? 64 : 8192;
    long rows[4] = {3 * width, width, inner, width};
    int bounds[8192 / 32 + 1];
    struct layer l = {.x = floats(most * width),
                      .qkv = floats(3 * most * width),
                      .o = floats(most * width),
                      .h = floats(most * width),
                      .f = floats(most * inner),
                      .norm = floats(width),
                      .mean = floats(2 * most)};

    for (int i = 0; i < 4; i++) {
        l.weight[i] = floats(rows[i] * (i == 3 ? inner : width));
        l.pack[i].version = 1;
    }
    for (int i = 0; i <= most / 32; i++)
        bounds[i] = 32 * i;
    l.cu = copied(bounds, (size_t)(most / 32 + 1) * sizeof *bounds);
    for (long tokens = 64; tokens <= most; tokens *= 4) {
        double best = 1e30;

        layer(&l, tokens, width, inner); /* makes room, chooses algorithms */
        for (int k = 0; k < (tiny ? 4 : 200); k++) {
            double from = clock_now(), s;

            be->step(1);
            for (int i = 0; i < 6; i++)
                layer(&l, tokens, width, inner);
            finish(l.x);
            be->step(0);
            s = clock_now() - from;
            best = s < best ? s : best;
        }
        printf("forward of 6 layers of width %ld, %5ld tokens  %9.1f us\n", width, tokens,
               best * 1e6);
    }
}

int main(int argc, char **argv)
{
    const char *name = "cuda";
    int only_steps = 0;
    char line[256];

    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--tiny")) {
            T = 64;
            D = 128;
            F = 192;
            V = 100;
            SEQ = 16;
            calls = 1;
        } else if (!strcmp(argv[i], "--steps")) {
            only_steps = 1;
        } else {
            name = argv[i];
        }
    }
    if (*backend_reason(name)) {
        fprintf(stderr, "bench: %s: %s\n", name, backend_reason(name));
        return 1;
    }
    be = backend_find(name);
    be->describe(line, sizeof line);
    puts(line);
    if (only_steps) {
        steps(calls == 1);
        return 0;
    }
    rows();
    losses();
    embedding();
    training();
    products(PRECISION_F32, "f32");
    product_rate = 0; /* the bf16 one is what attention is held against */
    if (be->bf16())
        products(PRECISION_BF16, "bf16");
    attention(SEQ, 64, 0, PRECISION_F32);
    for (int d = 32; be->bf16() && d <= 256 && d <= D; d *= 2) {
        attention(SEQ, d, 0, PRECISION_BF16);
        attention(16 * SEQ < T ? 16 * SEQ : T, d, 0, PRECISION_BF16);
        attention(16 * SEQ < T ? 16 * SEQ : T, d, 1, PRECISION_BF16);
    }
    return 0;
}
