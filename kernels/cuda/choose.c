/* Which algorithm of cuBLASLt computes a kind of product: the fastest of those that the
 * library proposes, by timing before the first step.
 *
 * Timing takes stand-in sizes (STAND_IN rows, fewer where that would take more than
 * TIMED_BYTES) in memory of its own that is given back at once; so a choice does not depend
 * on the batch in which its kind was met first, and the bits of a row not on how many rows
 * there are. Split-K is left out of products over rows; in weight gradients it is allowed
 * through the workspace, where partial sums are added in order; in-place split-K, which
 * adds as blocks finish, never is. A candidate must be MARGIN faster to displace one that
 * the library ranks higher. Where a bias is all that follows the product, candidates that
 * add it themselves run against those followed by our own kernel: the same sum, in f32.
 *
 * Two timings may differ. So choices are kept for good: choices_get() gives them as text,
 * which the program stores for each key (GPU, driver, cuBLASLt) and in checkpoints, and
 * choices_put() takes them back; each is checked by the library before it is trusted.
 * Within a step nothing is timed, since nothing there may wait or ask for memory: a program
 * names its kinds before (choices_prepare()); one that is met in a step for the first time
 * gets the library's first proposal. HONE_CUDA_TUNE=ROWS: other stand-in rows for timing
 * (tests); 0: the library's first proposal, untimed. Too little memory for timing means the
 * same. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/product.h"

enum { CHOICES_MAX = 512, CANDIDATES = 8, RUNS = 4, STAND_IN = 4096, ROWS_LEAST = 128 };
enum { LINE_MAX_BYTES = 320 };
#define TIMED_BYTES ((size_t)256 << 20)
#define MARGIN      0.02

static struct {
    int n;
    unsigned long changes;
    struct choice choice[CHOICES_MAX];
} kept;

struct bench { /* memory and events of a timing */
    char *memory;
    struct operand {
        size_t at, bytes;
    } a, b, c, bias;
    cudaEvent_t begin, end;
};

/* Strides as short as may be. */
static struct strides tight(const struct kind *k)
{
    long in = k->align_in / (long)operand_size(k->type), out = k->align_out / 4;
    long a = k->trans_a ? k->M : k->K, b = k->trans_b ? k->K : k->N;

    return (struct strides){(a + in - 1) / in * in, (b + in - 1) / in * in,
                            (k->N + out - 1) / out * out};
}

static int prefer(cublasLtMatmulPreference_t pref, const struct kind *k)
{
    static const cublasLtMatmulPreferenceAttributes_t alignments[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    uint64_t workspace = WORKSPACE;
    uint32_t align, split = CUBLASLT_REDUCTION_SCHEME_NONE;
    int rc = product_check(
        cublasLtMatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                             &workspace, sizeof workspace),
        "preference");

    if (product_is_gradient(k)) /* long sums, few results */
        split |= CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    if (!rc)
        rc = product_check(
            cublasLtMatmulPreferenceSetAttribute(
                pref, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &split, sizeof split),
            "preference");
    for (size_t i = 0; !rc && i < sizeof alignments / sizeof *alignments; i++) {
        align = (uint32_t)(i < 2 ? k->align_in : k->align_out);
        rc = product_check(
            cublasLtMatmulPreferenceSetAttribute(pref, alignments[i], &align, sizeof align),
            "preference");
    }
    return rc;
}

/* What the library proposes, best first. */
static int propose(const struct kind *k, const struct product *p,
                   cublasLtMatmulHeuristicResult_t *list, int most, int *found)
{
    cublasLtMatmulPreference_t pref = NULL;
    int rc = product_check(cublasLtMatmulPreferenceCreate(&pref), "preference");

    *found = 0;
    if (!rc)
        rc = prefer(pref, k);
    if (!rc)
        rc = product_check(cublasLtMatmulAlgoGetHeuristic(product_library(), p->op, p->a,
                                                          p->b, p->c, p->c, pref, most,
                                                          list, found),
                           "choose an algorithm");
    if (!rc && !*found)
        rc = op_fail(ERR_DEVICE, "matmul: cuBLASLt knows no algorithm for %ld x %ld x %ld",
                     k->M, k->N, k->K);
    if (pref)
        cublasLtMatmulPreferenceDestroy(pref);
    return rc;
}

int choose_exactly(const struct kind *k, struct strides ld, cublasLtMatmulAlgo_t *algo)
{
    cublasLtMatmulHeuristicResult_t best;
    struct product p = {0};
    int found, rc = product_open(&p, k, ld, NULL);

    if (!rc)
        rc = propose(k, &p, &best, 1, &found);
    if (!rc)
        *algo = best.algo;
    product_close(&p);
    return rc;
}

/* ---- timing -------------------------------------------------------------------------- */

static struct operand place(size_t *at, long rows, long stride, int size)
{
    struct operand o = {*at, (size_t)rows * (size_t)stride * (size_t)size};

    *at += (o.bytes + 255) / 256 * 256;
    return o;
}

/* Where the operands lie; the bytes of all. */
static size_t lay_out(struct bench *b, const struct kind *k)
{
    struct strides ld = tight(k);
    int size = (int)operand_size(k->type);
    size_t at = 0;

    b->a = place(&at, k->trans_a ? k->K : k->M, ld.a, size);
    b->b = place(&at, k->trans_b ? k->N : k->K, ld.b, size);
    b->c = place(&at, k->M, ld.c, 4);
    b->bias = place(&at, 1, k->N, 4);
    return at;
}

static long rows_to_time(void)
{
    const char *tune = getenv("HONE_CUDA_TUNE");
    long rows = tune && *tune ? strtol(tune, NULL, 10) : STAND_IN;

    return rows < 0 || rows > STAND_IN ? STAND_IN : rows;
}

/* Stand-in sizes that fit; 0: none do, or nothing is to be timed. */
static size_t shrink(struct bench *b, struct kind *k)
{
    long *rows = product_is_gradient(k) ? &k->K : &k->M;
    size_t bytes;

    *rows = rows_to_time();
    bytes = *rows ? lay_out(b, k) : 0;

    while (bytes > TIMED_BYTES && *rows > ROWS_LEAST) {
        *rows /= 2;
        bytes = lay_out(b, k);
    }
    return bytes > TIMED_BYTES ? 0 : bytes;
}

static void bench_close(struct bench *b)
{
    if (b->begin)
        cudaEventDestroy(b->begin);
    if (b->end)
        cudaEventDestroy(b->end);
    if (b->memory)
        cudaFree(b->memory);
    cudaGetLastError(); /* what is wrong for good comes again */
    memset(b, 0, sizeof *b);
}

/* 1 when it can be timed. */
static int bench_open(struct bench *b, struct kind *k)
{
    size_t bytes;

    memset(b, 0, sizeof *b);
    bytes = shrink(b, k);
    if (bytes && !cudaMalloc((void **)&b->memory, bytes) && !cudaEventCreate(&b->begin) &&
        !cudaEventCreate(&b->end) &&
        !cudaMemsetAsync(b->memory, 0x3c, bytes, cuda_stream()))
        return 1;
    bench_close(b);
    return 0;
}

static int run_once(const struct bench *b, const struct kind *k, const struct product *p,
                    const cublasLtMatmulAlgo_t *algo, int epilogue)
{
    const struct matmul_args add = {.M = k->M,
                                    .N = k->N,
                                    .bias = (const float *)(b->memory + b->bias.at),
                                    .c = (float *)(b->memory + b->c.at),
                                    .ldc = tight(k).c};
    float one = 1, beta = k->accumulate ? 1 : 0;

    if (cublasLtMatmul(product_library(), p->op, &one, b->memory + b->b.at, p->a,
                       b->memory + b->a.at, p->b, &beta, add.c, p->c, add.c, p->c, algo,
                       product_workspace(), WORKSPACE, cuda_stream()))
        return ERR_DEVICE;
    return epilogue ? cuda_epilogue(&add) : 0;
}

/* Milliseconds of one product; negative: it does not run. */
static float time_one(const struct bench *b, const struct kind *k, const struct product *p,
                      const cublasLtMatmulAlgo_t *algo, int epilogue)
{
    float ms = -1;
    int rc = run_once(b, k, p, algo, epilogue); /* the first loads its code */

    rc = rc || cudaEventRecord(b->begin, cuda_stream());
    for (int i = 0; !rc && i < RUNS; i++)
        rc = run_once(b, k, p, algo, epilogue);
    rc = rc || cudaEventRecord(b->end, cuda_stream()) || cudaEventSynchronize(b->end) ||
         cudaEventElapsedTime(&ms, b->begin, b->end);
    cudaGetLastError();
    return rc ? -1 : ms / RUNS;
}

/* The best candidate into `out`, when it beats *best; fused: they add the bias. */
static int run_candidates(const struct bench *b, const struct kind *k, int fused,
                          struct choice *out, float *best)
{
    const float *bias = (const float *)(b->memory + b->bias.at);
    cublasLtMatmulHeuristicResult_t list[CANDIDATES];
    struct product p = {0};
    int found = 0, rc = product_open(&p, k, tight(k), fused ? bias : NULL);

    if (!rc)
        rc = propose(k, &p, list, CANDIDATES, &found);
    for (int i = 0; !rc && i < found; i++) {
        float ms = time_one(b, k, &p, &list[i].algo, k->bias && !fused);

        if (ms < 0 || (*best >= 0 && ms > *best * (1 - MARGIN)))
            continue;
        *best = ms;
        out->algo = list[i].algo;
        out->fused = fused;
    }
    product_close(&p);
    return rc;
}

/* 1 when a choice was made. */
static int choose_by_timing(const struct kind *stand_in, struct choice *out)
{
    struct kind k = *stand_in;
    struct bench b;
    float best = -1;

    if (!bench_open(&b, &k))
        return 0;
    run_candidates(&b, &k, 0, out, &best);
    if (k.bias) /* a library that cannot add it proposes nothing */
        run_candidates(&b, &k, 1, out, &best);
    bench_close(&b);
    return best >= 0;
}

static struct choice *find(const struct kind *k)
{
    for (int i = 0; i < kept.n; i++)
        if (!memcmp(&kept.choice[i].kind, k, sizeof *k))
            return &kept.choice[i];
    return NULL;
}

int choose_algorithm(const struct kind *k, struct choice *out)
{
    struct kind stand_in = *k;
    const struct choice *found;
    int rc;

    *(product_is_gradient(k) ? &stand_in.K : &stand_in.M) = STAND_IN;
    found = find(&stand_in);
    if (found) {
        *out = *found;
        return 0;
    }
    memset(out, 0, sizeof *out);
    memcpy(&out->kind, &stand_in, sizeof stand_in);
    out->timed = !cuda_in_step && kept.n < CHOICES_MAX && choose_by_timing(&stand_in, out);
    rc = out->timed ? 0 : choose_exactly(&stand_in, tight(&stand_in), &out->algo);
    if (!rc && kept.n < CHOICES_MAX) {
        memcpy(&kept.choice[kept.n++], out, sizeof *out);
        kept.changes += (unsigned long)out->timed;
    }
    return rc;
}

/* ---- as text ------------------------------------------------------------------------- */

void choices_key(char *buf, size_t n)
{
    int driver = 0;
    char model[96];

    cudaDriverGetVersion(&driver);
    cuda_model(model, sizeof model);
    snprintf(buf, n, "%s, driver for CUDA %d.%d, cuBLASLt %zu", model, driver / 1000,
             driver % 1000 / 10, cublasLtGetVersion());
}

unsigned long choices_changes(void)
{
    return kept.changes;
}

static size_t format(const struct choice *c, char *line)
{
    const unsigned char *bytes = (const unsigned char *)&c->algo;
    const struct kind *k = &c->kind;
    int n = snprintf(line, LINE_MAX_BYTES, "%ld %ld %ld %d %d %d %d %d %d %d %d %d ", k->M,
                     k->N, k->K, k->trans_a, k->trans_b, k->accumulate, k->type,
                     k->align_in, k->align_out, k->bias, c->fused, c->timed);

    for (size_t i = 0; i < sizeof c->algo; i++)
        n += snprintf(line + n, LINE_MAX_BYTES - (size_t)n, "%02x", bytes[i]);
    line[n++] = '\n';
    line[n] = 0;
    return (size_t)n;
}

size_t choices_get(char *buf, size_t n, int all)
{
    char line[LINE_MAX_BYTES];
    size_t at = 0;

    for (int i = 0; i < kept.n; i++) {
        size_t len = all || kept.choice[i].timed ? format(&kept.choice[i], line) : 0;

        if (len && at + len < n)
            memcpy(buf + at, line, len + 1);
        at += len;
    }
    if (n && !at)
        *buf = 0;
    return at;
}

static int hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* One line; the place behind it, or NULL: it is none. */
static const char *parse(const char *s, struct choice *c)
{
    unsigned char *bytes = (unsigned char *)&c->algo;
    struct kind *k = &c->kind;
    int n = 0, flags;

    memset(c, 0, sizeof *c);
    if (sscanf(s, "%9ld %9ld %9ld %1d %1d %1d %1d %3d %3d %1d %1d %1d %n", &k->M, &k->N,
               &k->K, &k->trans_a, &k->trans_b, &k->accumulate, &k->type, &k->align_in,
               &k->align_out, &k->bias, &c->fused, &c->timed, &n) != 12 ||
        !n)
        return NULL;
    flags = k->trans_a | k->trans_b | k->accumulate | k->bias | c->fused | c->timed;
    if (k->M < 1 || k->N < 1 || k->K < 1 || flags & ~1 || k->type >= OPERANDS ||
        (c->fused && !k->bias) ||
        (k->align_in != 16 && k->align_in != (int)operand_size(k->type)) ||
        (k->align_out != 16 && k->align_out != 4))
        return NULL;
    for (size_t i = 0; i < sizeof c->algo; i++) {
        int high = hex(s[n]), low = high < 0 ? -1 : hex(s[n + 1]);

        if (low < 0)
            return NULL;
        bytes[i] = (unsigned char)(high << 4 | low);
        n += 2;
    }
    return s[n] == '\n' ? s + n + 1 : NULL;
}

/* Does the library take it for what it is said to be for? */
static int accepted(const struct choice *c)
{
    cublasLtMatmulHeuristicResult_t result;
    struct product p = {0};
    const float *bias = c->fused ? product_workspace() : NULL;
    int rc = product_open(&p, &c->kind, tight(&c->kind), bias);

    if (!rc)
        rc = cublasLtMatmulAlgoCheck(product_library(), p.op, p.a, p.b, p.c, p.c, &c->algo,
                                     &result);
    product_close(&p);
    return !rc && result.workspaceSize <= WORKSPACE;
}

int choices_put_locked(const char *text)
{
    struct choice c;
    int lines = 0;

    for (const char *s = text; *s; lines++) {
        s = parse(s, &c);
        if (!s || lines >= CHOICES_MAX)
            return op_fail(ERR_CORRUPT, "line %d of the kept algorithms is none",
                           lines + 1);
        if (!accepted(&c))
            return op_fail(ERR_CORRUPT, "cuBLASLt does not take kept algorithm %d",
                           lines + 1);
    }
    for (const char *s = text; *s;) {
        struct choice *old;

        s = parse(s, &c);
        old = find(&c.kind);
        if (old || kept.n < CHOICES_MAX)
            memcpy(old ? old : &kept.choice[kept.n++], &c, sizeof c);
    }
    return 0;
}
