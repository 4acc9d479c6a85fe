/* The memory of a training step, counted before step 0: the same forward and backward on a
 * tape that plans. Fails as model_forward() does (too long, out of memory). */
#include "base/mem.h"
#include "worker/model/internal.h"

static int fill(struct packed *in, long B, long length, struct err *e)
{
    size_t n = (size_t)B, T = (size_t)(B * length);

    in->B = B;
    in->T = B * length;
    in->max_len = length;
    in->ids = mem_array(T, sizeof *in->ids);
    in->types = mem_array(T, sizeof *in->types);
    in->position = mem_array(T, sizeof *in->position);
    in->example = mem_array(T, sizeof *in->example);
    in->seq_example = mem_array(n, sizeof *in->seq_example);
    in->cu_seqlens = mem_array(n + 1, sizeof *in->cu_seqlens);
    if (!in->ids || !in->types || !in->position || !in->example || !in->seq_example ||
        !in->cu_seqlens)
        return err_set(e, ERR_NOMEM, "out of memory for a plan");
    for (long i = 0; i < in->T; i++)
        in->position[i] = (uint32_t)(i % length);
    for (long b = 0; b <= B; b++)
        in->cu_seqlens[b] = (int)(b * length);
    return 0;
}

int model_plan(struct model *m, long B, long length, size_t *bytes, struct err *e)
{
    struct packed in = {0};
    struct model_out out;
    struct tape *t = NULL;
    int rc;

    invariant(B > 0 && length > 0);
    rc = fill(&in, B, length, e);
    if (rc)
        goto done;
    t = tape_new(m->options.backend, e);
    if (!t) {
        rc = e->code;
        goto done;
    }
    tape_reset(t, TAPE_PLAN);
    tape_set_dropout(t, 0);
    rc = model_forward(m, t, &in, NULL, &out, e);
    if (rc)
        goto done;
    if (out.logits && out.logits->needs_grad)
        tape_seed(t, out.logits, NULL);
    if (out.value && out.value->needs_grad)
        tape_seed(t, out.value, NULL);
    rc = tape_backward(t, e);
    *bytes = tape_peak(t);
done:
    tape_free(t);
    mem_free(in.ids);
    mem_free(in.types);
    mem_free(in.position);
    mem_free(in.example);
    mem_free(in.seq_example);
    mem_free(in.cu_seqlens);
    return rc;
}
