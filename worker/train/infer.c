/* Inference over many sequences; see infer.h. Longest first, so that the step memory is
 * largest at once and batches hold sequences of like length. */
#include "worker/train/infer.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "worker/data/pack.h"
#include "worker/dist/shard.h"

enum { INFER_MICRO_TOKENS = 2048 };

struct infer {
    struct model *model;
    const struct sequences *s;
    const struct infer_options *o;
    struct forward_options forward;
    uint32_t *order; /* sequences of this rank, longest first */
    size_t n;        /* of them */
    int *owner;      /* (s->n) rank of each sequence; NULL: all ours */
    float *rows;     /* outputs of a micro-batch */
    size_t cap_rows;
    struct tape *tape;
    struct packer *packer;
};

struct length {
    size_t tokens;
    uint32_t number;
};

static int longer(const void *a, const void *b)
{
    const struct length *x = a, *y = b;

    if (x->tokens != y->tokens)
        return x->tokens < y->tokens ? 1 : -1;
    return x->number < y->number ? -1 : 1;
}

static int sort_by_length(struct infer *f, struct err *e)
{
    struct length *l = mem_array(f->s->n, sizeof *l);

    if (!l)
        return err_set(e, ERR_NOMEM, "inference: out of memory");
    for (size_t i = 0; i < f->s->n; i++)
        l[i] = (struct length){f->s->offset[i + 1] - f->s->offset[i], (uint32_t)i};
    qsort(l, f->s->n, sizeof *l, longer);
    for (size_t i = 0; i < f->s->n; i++)
        if (!f->owner || f->owner[l[i].number] == f->o->comm->rank)
            f->order[f->n++] = l[i].number;
    mem_free(l);
    return 0;
}

static int is_shared(const struct infer *f)
{
    return f->o && f->o->comm && f->o->comm->world > 1;
}

/* Who takes which sequence. */
static int share(struct infer *f, struct err *e)
{
    size_t n = f->s->n, *tokens;
    int r;

    if (!is_shared(f))
        return 0;
    tokens = mem_array(n, sizeof *tokens);
    f->owner = mem_array(n, sizeof *f->owner);
    if (!tokens || !f->owner) {
        mem_free(tokens);
        return err_set(e, ERR_NOMEM, "inference: out of memory");
    }
    for (size_t i = 0; i < n; i++)
        tokens[i] = f->s->offset[i + 1] - f->s->offset[i];
    r = shard_by_tokens(tokens, n, f->o->comm->world, f->owner, e);
    mem_free(tokens);
    return r;
}

static void infer_close(struct infer *f)
{
    tape_free(f->tape);
    packer_free(f->packer);
    mem_free(f->order);
    mem_free(f->owner);
    mem_free(f->rows);
}

static int infer_open(struct infer *f, struct err *e)
{
    long micro = f->o && f->o->micro_tokens ? f->o->micro_tokens : INFER_MICRO_TOKENS;
    int r;

    f->order = mem_array(f->s->n, sizeof *f->order);
    if (!f->order)
        return err_set(e, ERR_NOMEM, "inference: out of memory");
    f->tape = tape_new(model_get_backend(f->model), e);
    if (!f->tape)
        return ERR_NOMEM;
    f->packer = packer_new(f->s, micro, e);
    if (!f->packer)
        return ERR_NOMEM;
    r = share(f, e);
    return r ? r : sort_by_length(f, e);
}

/* Rows of a tensor (n, width) to out by sequence number. */
static int scatter(struct infer *f, const struct tensor *t, const uint32_t *number,
                   float *out, struct err *e)
{
    const struct backend *b = model_get_backend(f->model);
    size_t n = (size_t)t->rows, width = (size_t)t->cols;

    if (n * width > f->cap_rows) {
        mem_free(f->rows);
        f->rows = mem_array(n * width, sizeof *f->rows);
        f->cap_rows = f->rows ? n * width : 0;
        if (!f->rows)
            return err_set(e, ERR_NOMEM, "inference: out of memory");
    }
    if (b->copy_out(f->rows, t->data, n * width * sizeof *f->rows))
        return err_set(e, ERR_DEVICE, "outputs: %s", b->error());
    for (size_t i = 0; i < n; i++)
        memcpy(out + number[i] * width, f->rows + i * width, width * sizeof *out);
    return 0;
}

/* The first micro-batch is the heaviest: a dry run of it reserves the step memory. */
static int reserve(struct infer *f, const struct packed *in, struct err *e)
{
    struct model_out o;
    int r;

    tape_reset(f->tape, TAPE_PLAN_INFER);
    r = model_forward(f->model, f->tape, in, &f->forward, &o, e);
    tape_reset(f->tape, TAPE_INFER);
    return r ? r : tape_result(f->tape, e);
}

static int run_part(struct infer *f, size_t *next, float *out, float *value, float *pooled,
                    struct err *e)
{
    const uint32_t *number = f->order + *next;
    size_t begin = *next;
    struct packed in;
    struct model_out o;
    int r;

    tape_reset(f->tape, TAPE_INFER);
    r = packer_fill(f->packer, f->order, f->n, next, &in, e);
    if (r)
        return r;
    invariant(*next > begin);
    if (!begin)
        r = reserve(f, &in, e);
    if (!r)
        r = model_forward(f->model, f->tape, &in, &f->forward, &o, e);
    if (!r)
        r = tape_result(f->tape, e);
    if (!r && out)
        r = scatter(f, o.logits, number, out, e);
    if (!r && value)
        r = scatter(f, o.value, number, value, e);
    if (!r && pooled)
        r = scatter(f, o.pooled, number, pooled, e);
    return r;
}

static int run_own(struct infer *f, float *out, float *value, float *pooled, struct err *e)
{
    size_t next = 0;
    int r = infer_open(f, e);

    while (!r && next < f->n) {
        if (f->o && f->o->stop && *f->o->stop)
            r = err_set(e, ERR_STOPPED, "stopped on request");
        else
            r = run_part(f, &next, out, value, pooled, e);
        if (!r && f->o && f->o->progress)
            f->o->progress(f->o->arg, next, f->n);
    }
    return r;
}

/* Results of all ranks; x (n, width) holds this rank's. */
static int gather(const struct infer *f, float *x, size_t width, struct err *e)
{
    const struct comm *c = f->o->comm;
    size_t world = (size_t)c->world, most = 0, k = 0;
    size_t *count = mem_array(world, sizeof *count);
    float *mine = NULL, *all = NULL;
    int r;

    for (size_t i = 0; count && i < f->s->n; i++)
        if (++count[f->owner[i]] > most)
            most = count[f->owner[i]];
    mine = mem_array(most * width, sizeof *mine);
    all = mem_array(most * width * world, sizeof *all);
    r = count && mine && all ? 0 : err_set(e, ERR_NOMEM, "inference: out of memory");
    for (size_t i = 0; !r && i < f->s->n; i++)
        if (f->owner[i] == c->rank)
            memcpy(mine + k++ * width, x + i * width, width * sizeof *x);
    r = comm_agree(c, r, e);
    if (!r)
        r = c->all_gather(c, mine, most * width * sizeof *mine, all, e);
    if (!r)
        memset(count, 0, world * sizeof *count);
    for (size_t i = 0; !r && i < f->s->n; i++) {
        size_t owner = (size_t)f->owner[i];

        memcpy(x + i * width, all + (owner * most + count[owner]++) * width,
               width * sizeof *x);
    }
    mem_free(count);
    mem_free(mine);
    mem_free(all);
    return r;
}

static int run_all(struct infer *f, float *out, float *value, float *pooled, struct err *e)
{
    int r = f->s->n ? run_own(f, out, value, pooled, e) : 0;

    if (is_shared(f) && f->s->n) {
        r = comm_agree(f->o->comm, r, e);
        if (!r && out)
            r = gather(f, out, (size_t)model_outputs(f->model), e);
        if (!r && value)
            r = gather(f, value, 1, e);
    }
    infer_close(f);
    return r;
}

int infer_outputs(struct model *m, const struct sequences *s, const struct infer_options *o,
                  float *out, float *value, struct err *e)
{
    struct infer f = {.model = m, .s = s, .o = o};

    return run_all(&f, out, value, NULL, e);
}

int infer_embeddings(struct model *m, const struct sequences *s, float *out, struct err *e)
{
    struct infer f = {.model = m, .s = s, .forward = {.pooled_only = 1}};

    return run_all(&f, NULL, NULL, out, e);
}
