/* What is found out of a step before step 0, by the same forward and backward on a tape
 * that plans: its memory, and which products it has. Fails as model_forward() does (too
 * long, out of memory). */
#include "base/mem.h"
#include "worker/model/internal.h"

static int fill(struct packed *in, const size_t *length, long B, struct err *e)
{
    size_t n = (size_t)B, T = 0;

    in->cu_seqlens = mem_array(n + 1, sizeof *in->cu_seqlens);
    for (size_t b = 0; in->cu_seqlens && b < n; b++) {
        T += length[b];
        in->cu_seqlens[b + 1] = (int)T;
        if ((long)length[b] > in->max_len)
            in->max_len = (long)length[b];
    }
    in->B = B;
    in->T = (long)T;
    in->ids = mem_array(T, sizeof *in->ids);
    in->types = mem_array(T, sizeof *in->types);
    in->position = mem_array(T, sizeof *in->position);
    in->example = mem_array(T, sizeof *in->example);
    if (!in->ids || !in->types || !in->position || !in->example || !in->cu_seqlens)
        return err_set(e, ERR_NOMEM, "out of memory for a plan");
    for (size_t b = 0, at = 0; b < n; b++)
        for (size_t i = 0; i < length[b]; i++)
            in->position[at++] = (uint32_t)i;
    return 0;
}

static int dry_run(struct model *m, const size_t *length, long B, enum model_plan_for use,
                   int prepare, size_t *bytes, struct err *e)
{
    const struct forward_options o = {.recompute = use == PLAN_RECOMPUTE};
    struct packed in = {0};
    struct model_out out;
    struct tape *t = NULL;
    int rc, train = use != PLAN_INFER;

    invariant(B > 0);
    rc = fill(&in, length, B, e);
    if (rc)
        goto done;
    t = tape_new(m->options.backend, e);
    if (!t) {
        rc = e->code;
        goto done;
    }
    tape_reset(t, train ? TAPE_PLAN : TAPE_PLAN_INFER);
    if (prepare)
        tape_prepare(t);
    tape_set_dropout(t, 0);
    rc = model_forward(m, t, &in, &o, &out, e);
    if (rc)
        goto done;
    if (train && out.logits && out.logits->needs_grad)
        tape_seed(t, out.logits, NULL);
    if (train && out.value && out.value->needs_grad)
        tape_seed(t, out.value, NULL);
    rc = train ? tape_backward(t, e) : 0;
    *bytes = tape_peak(t);
done:
    tape_free(t);
    mem_free(in.ids);
    mem_free(in.types);
    mem_free(in.position);
    mem_free(in.example);
    mem_free(in.cu_seqlens);
    return rc;
}

int model_plan(struct model *m, const size_t *length, long B, enum model_plan_for use,
               size_t *bytes, struct err *e)
{
    return dry_run(m, length, B, use, 0, bytes, e);
}

int model_prepare(struct model *m, struct err *e)
{
    static const size_t length[] = {2};
    size_t bytes;

    invariant(!m->options.plan);
    if (!m->options.backend->choices)
        return 0;
    return dry_run(m, length, 1, PLAN_TRAIN, 1, &bytes, e); /* rows do not count */
}
