/* See mirror.h. What each operator touches is written down here once more, from op.h, as
 * ranges; a kernel that leaves them leaves its allocation. */
#include "tests/op/mirror.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"

enum { SLOTS_MAX = 256 };

static const struct backend *under;
static struct backend table;

struct slot {
    char **field; /* in the argument struct */
    char *host;
    size_t bytes;
    int region;
};

struct region {
    char *host, *device;
    size_t bytes;
};

static struct slot slot[SLOTS_MAX];
static struct region region[SLOTS_MAX];
static int n_slots, n_regions;

/* The operator may touch `count` elements of `size` bytes behind the pointer in *field. */
static void use(const void *field, long count, size_t size)
{
    struct slot s = {.field = (char **)(uintptr_t)field, .region = -1};

    s.host = *s.field;
    s.bytes = (size_t)count * size;
    if (!s.host || count <= 0)
        return;
    invariant(n_slots < SLOTS_MAX);
    slot[n_slots++] = s;
}

#define USE(field, count) use(&(field), (count), sizeof *(field))

static int by_address(const void *a, const void *b)
{
    const struct slot *x = a, *y = b;

    return x->host < y->host ? -1 : x->host > y->host;
}

static void make_regions(void)
{
    qsort(slot, (size_t)n_slots, sizeof *slot, by_address);
    n_regions = 0;
    for (int i = 0; i < n_slots; i++) {
        struct region *r = n_regions ? &region[n_regions - 1] : NULL;
        char *end = slot[i].host + slot[i].bytes;

        if (!r || slot[i].host >= r->host + r->bytes) {
            r = &region[n_regions++];
            *r = (struct region){.host = slot[i].host};
        }
        if ((size_t)(end - r->host) > r->bytes)
            r->bytes = (size_t)(end - r->host);
        slot[i].region = n_regions - 1;
    }
}

/* Everything to the device; the fields then point there. */
static int begin(void)
{
    make_regions();
    for (int i = 0; i < n_regions; i++) {
        region[i].device = under->alloc(region[i].bytes);
        if (!region[i].device ||
            under->copy_in(region[i].device, region[i].host, region[i].bytes))
            return ERR_DEVICE;
    }
    for (int i = 0; i < n_slots; i++) {
        const struct region *r = &region[slot[i].region];

        *slot[i].field = r->device + (slot[i].host - r->host);
    }
    return 0;
}

/* Only what has changed: inputs may be constants. */
static int copy_back(const struct region *r)
{
    char *now = mem_alloc(r->bytes);
    int rc = now ? under->copy_out(now, r->device, r->bytes) : ERR_NOMEM;

    if (!rc && memcmp(now, r->host, r->bytes))
        memcpy(r->host, now, r->bytes);
    mem_free(now);
    return rc;
}

static int end(int rc)
{
    for (int i = 0; i < n_regions; i++) {
        if (!rc)
            rc = copy_back(&region[i]);
        under->release(region[i].device);
    }
    n_slots = n_regions = 0;
    return rc;
}

static void use_dropout(struct op_dropout *d, long rows)
{
    if (d->p > 0) {
        USE(d->example, rows);
        USE(d->position, rows);
    }
}

static long matrix(long rows, long cols, long ld)
{
    return rows && cols ? (rows - 1) * ld + cols : 0;
}

static void use_matmul(struct matmul_args *a)
{
    USE(a->a, a->trans_a ? matrix(a->K, a->M, a->lda) : matrix(a->M, a->K, a->lda));
    USE(a->b, a->trans_b ? matrix(a->N, a->K, a->ldb) : matrix(a->K, a->N, a->ldb));
    USE(a->bias, a->N);
    USE(a->pre, matrix(a->M, a->N, a->ldc));
    USE(a->c, matrix(a->M, a->N, a->ldc));
}

static void use_act(struct act_args *a)
{
    USE(a->x, a->n);
    USE(a->y, a->n);
}

static void use_act_backward(struct act_backward_args *a)
{
    USE(a->x, a->N * a->D);
    USE(a->dy, a->N * a->D);
    USE(a->dx, a->N * a->D);
    USE(a->dbias, a->D);
}

static void use_glu(struct glu_args *a)
{
    USE(a->gate, matrix(a->N, a->F, a->ld));
    USE(a->up, matrix(a->N, a->F, a->ld));
    USE(a->y, a->N * a->F);
}

static void use_glu_backward(struct glu_backward_args *a)
{
    USE(a->gate, matrix(a->N, a->F, a->ld));
    USE(a->up, matrix(a->N, a->F, a->ld));
    USE(a->dy, a->N * a->F);
    USE(a->dgate, matrix(a->N, a->F, a->ld));
    USE(a->dup, matrix(a->N, a->F, a->ld));
}

static void use_norm(struct norm_args *a)
{
    USE(a->x, a->N * a->D);
    USE(a->residual, a->N * a->D);
    USE(a->w, a->D);
    USE(a->b, a->D);
    use_dropout(&a->dropout, a->N);
    USE(a->sum, a->N * a->D);
    USE(a->y, a->N * a->D);
    USE(a->mean, a->N);
    USE(a->rstd, a->N);
}

static void use_norm_backward(struct norm_backward_args *a)
{
    USE(a->dy, a->N * a->D);
    USE(a->dsum, a->N * a->D);
    USE(a->sum, a->N * a->D);
    USE(a->w, a->D);
    USE(a->mean, a->N);
    USE(a->rstd, a->N);
    use_dropout(&a->dropout, a->N);
    USE(a->dx, a->N * a->D);
    USE(a->dresidual, a->N * a->D);
    USE(a->dw, a->D);
    USE(a->db, a->D);
}

static void use_head_norm(struct head_norm_args *a)
{
    USE(a->x, matrix(a->T, (long)a->heads * a->d, a->ld));
    USE(a->w, a->d);
    USE(a->saved, a->T * a->heads * a->d);
    USE(a->rstd, a->T * a->heads);
}

static void use_head_norm_backward(struct head_norm_backward_args *a)
{
    USE(a->dx, matrix(a->T, (long)a->heads * a->d, a->ld));
    USE(a->w, a->d);
    USE(a->saved, a->T * a->heads * a->d);
    USE(a->rstd, a->T * a->heads);
    USE(a->dw, a->d);
}

static long rows_of(const int *index, long T)
{
    long rows = 0;

    for (long t = 0; t < T; t++)
        rows = index[t] >= rows ? index[t] + 1 : rows;
    return rows;
}

static void use_embedding(struct embedding_args *a)
{
    for (int i = 0; i < a->n; i++) {
        USE(a->table[i], rows_of(a->index[i], a->T) * a->D);
        USE(a->index[i], a->T);
    }
    USE(a->y, a->T * a->D);
}

static void use_embedding_backward(struct embedding_backward_args *a)
{
    USE(a->dtable, rows_of(a->index, a->T) * a->D);
    USE(a->index, a->T);
    USE(a->order, a->T);
    USE(a->start, a->n_segments + 1);
    USE(a->dy, a->T * a->D);
}

static void use_rotary(struct rotary_args *a)
{
    USE(a->x, matrix(a->T, (long)a->heads * a->d, a->ld));
    USE(a->position, a->T);
    USE(a->freq, a->rot / 2);
}

static void use_attention(struct attention_args *a)
{
    USE(a->q, matrix(a->T, (long)a->H * a->d, a->ldq));
    USE(a->k, matrix(a->T, (long)a->K * a->d, a->ldk));
    USE(a->v, matrix(a->T, (long)a->K * a->d, a->ldv));
    USE(a->o, matrix(a->T, (long)a->H * a->d, a->ldo));
    USE(a->lse, a->T * a->H);
    USE(a->cu_seqlens, a->B + 1);
    use_dropout(&a->dropout, a->T);
}

static void use_attention_backward(struct attention_backward_args *a)
{
    USE(a->q, matrix(a->T, (long)a->H * a->d, a->ldq));
    USE(a->k, matrix(a->T, (long)a->K * a->d, a->ldk));
    USE(a->v, matrix(a->T, (long)a->K * a->d, a->ldv));
    USE(a->o, matrix(a->T, (long)a->H * a->d, a->ldo));
    USE(a->dout, matrix(a->T, (long)a->H * a->d, a->ldo));
    USE(a->lse, a->T * a->H);
    USE(a->dq, matrix(a->T, (long)a->H * a->d, a->ldq));
    USE(a->dk, matrix(a->T, (long)a->K * a->d, a->ldk));
    USE(a->dv, matrix(a->T, (long)a->K * a->d, a->ldv));
    USE(a->cu_seqlens, a->B + 1);
    use_dropout(&a->dropout, a->T);
}

static void use_pool(struct pool_args *a)
{
    USE(a->x, a->T * a->D);
    USE(a->y, a->B * a->D);
    USE(a->cu_seqlens, a->B + 1);
}

static void use_pool_backward(struct pool_backward_args *a)
{
    USE(a->dy, a->B * a->D);
    USE(a->dx, a->T * a->D);
    USE(a->cu_seqlens, a->B + 1);
}

static void use_cross_entropy(struct cross_entropy_args *a)
{
    USE(a->logits, a->N * a->V);
    USE(a->label, a->N);
    USE(a->loss, a->N);
    USE(a->dlogits, a->N * a->V);
}

static void use_logprob(struct logprob_args *a)
{
    USE(a->logits, a->N * a->columns);
    USE(a->target, a->N);
    USE(a->state, a->N * LOGPROB_STATE);
    USE(a->out, a->N * LOGPROB_OUT);
}

static void use_logprob_backward(struct logprob_backward_args *a)
{
    USE(a->logits, a->N * a->columns);
    USE(a->target, a->N);
    USE(a->state, a->N * LOGPROB_STATE);
    USE(a->dout, a->N * LOGPROB_OUT);
}

static void use_dropout_op(struct dropout_args *a)
{
    USE(a->x, a->N * a->D);
    USE(a->y, a->N * a->D);
    use_dropout(&a->dropout, a->N);
}

static void use_add(struct add_args *a)
{
    USE(a->x, a->n);
    USE(a->y, a->n);
}

#define MIRROR(op, use_op)                                                                 \
    static int mirror_##op(const struct op##_args *args)                                   \
    {                                                                                      \
        struct op##_args a = *args;                                                        \
        int rc;                                                                            \
                                                                                           \
        use_op(&a);                                                                        \
        rc = begin();                                                                      \
        return end(rc ? rc : under->op(&a));                                               \
    }
MIRROR(matmul, use_matmul)
MIRROR(act, use_act)
MIRROR(act_backward, use_act_backward)
MIRROR(glu, use_glu)
MIRROR(glu_backward, use_glu_backward)
MIRROR(norm, use_norm)
MIRROR(norm_backward, use_norm_backward)
MIRROR(head_norm, use_head_norm)
MIRROR(head_norm_backward, use_head_norm_backward)
MIRROR(embedding, use_embedding)
MIRROR(embedding_backward, use_embedding_backward)
MIRROR(rotary, use_rotary)
MIRROR(attention, use_attention)
MIRROR(attention_backward, use_attention_backward)
MIRROR(pool, use_pool)
MIRROR(pool_backward, use_pool_backward)
MIRROR(cross_entropy, use_cross_entropy)
MIRROR(logprob, use_logprob)
MIRROR(logprob_backward, use_logprob_backward)
MIRROR(dropout, use_dropout_op)
MIRROR(add, use_add)

/* The tensors' memory is the device's, their list is not. */
enum { TENSORS_MAX = 32 };

static void use_tensors(struct adamw_tensor *copy, const struct adamw_tensor *t, int n)
{
    invariant(n <= TENSORS_MAX);
    for (int i = 0; i < n; i++) {
        copy[i] = t[i];
        USE(copy[i].p, t[i].n);
        USE(copy[i].grad, t[i].n);
        USE(copy[i].m, t[i].n);
        USE(copy[i].v, t[i].n);
    }
}

static int mirror_adamw(const struct adamw_args *args)
{
    struct adamw_tensor tensor[TENSORS_MAX];
    struct adamw_args a = *args;
    int rc;

    use_tensors(tensor, args->tensor, args->n);
    a.tensor = tensor;
    rc = begin();
    return end(rc ? rc : under->adamw(&a));
}

static int mirror_grad_norm(const struct grad_norm_args *args)
{
    struct adamw_tensor tensor[TENSORS_MAX];
    struct grad_norm_args a = *args;
    int rc;

    use_tensors(tensor, args->tensor, args->n);
    a.tensor = tensor;
    rc = begin();
    return end(rc ? rc : under->grad_norm(&a));
}

const struct backend *mirror_of(const struct backend *be)
{
    under = be;
    table = *be;
#define X(op) table.op = mirror_##op;
    HONE_OPS(X)
#undef X
    return &table;
}
