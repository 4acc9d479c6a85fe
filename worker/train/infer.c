/* Inference over many sequences; see infer.h. Longest first, so that the step memory is
 * largest at once and batches hold sequences of like length. */
#include "worker/train/infer.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "worker/data/pack.h"

enum { INFER_MICRO_TOKENS = 2048 };

struct infer {
    struct model *model;
    const struct sequences *s;
    const struct infer_options *o;
    struct forward_options forward;
    uint32_t *order; /* sequences, longest first */
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
        f->order[i] = l[i].number;
    mem_free(l);
    return 0;
}

static void infer_close(struct infer *f)
{
    tape_free(f->tape);
    packer_free(f->packer);
    mem_free(f->order);
    mem_free(f->rows);
}

static int infer_open(struct infer *f, struct err *e)
{
    long micro = f->o && f->o->micro_tokens ? f->o->micro_tokens : INFER_MICRO_TOKENS;

    f->order = mem_array(f->s->n, sizeof *f->order);
    if (!f->order)
        return err_set(e, ERR_NOMEM, "inference: out of memory");
    f->tape = tape_new(model_get_backend(f->model), e);
    if (!f->tape)
        return ERR_NOMEM;
    f->packer = packer_new(f->s, micro, e);
    if (!f->packer)
        return ERR_NOMEM;
    return sort_by_length(f, e);
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

static int run_part(struct infer *f, size_t *next, float *out, float *value, float *pooled,
                    struct err *e)
{
    const uint32_t *number = f->order + *next;
    size_t begin = *next;
    struct packed in;
    struct model_out o;
    int r;

    tape_reset(f->tape, TAPE_INFER);
    r = packer_fill(f->packer, f->order, f->s->n, next, &in, e);
    if (r)
        return r;
    invariant(*next > begin);
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

static int run_all(struct infer *f, float *out, float *value, float *pooled, struct err *e)
{
    size_t next = 0;
    int r = f->s->n ? infer_open(f, e) : 0;

    while (!r && next < f->s->n) {
        if (f->o && f->o->stop && *f->o->stop)
            r = err_set(e, ERR_STOPPED, "stopped on request");
        else
            r = run_part(f, &next, out, value, pooled, e);
        if (!r && f->o && f->o->progress)
            f->o->progress(f->o->arg, next, f->s->n);
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
