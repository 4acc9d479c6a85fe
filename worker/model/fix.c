/* Tensors that a file stores otherwise than we do: matrices (in, out), which are transposed
 * on load; a save and a comparison with recorded gradients undo that. */
#include "base/mem.h"
#include "worker/model/internal.h"

void fix_transpose(const float *a, long rows, long cols, float *out)
{
    enum { BLOCK = 32 }; /* both sides stay in the cache */

    for (long r = 0; r < rows; r += BLOCK)
        for (long c = 0; c < cols; c += BLOCK)
            for (long i = r; i < rows && i < r + BLOCK; i++)
                for (long j = c; j < cols && j < c + BLOCK; j++)
                    out[j * rows + i] = a[i * cols + j];
}

float *fix_to_file(const struct model *m, const struct model_tensor *t, const float *ours,
                   struct err *e)
{
    const struct backend *b = m->options.backend;
    size_t n = 1;
    float *out, *as_ours;

    for (int i = 0; i < t->rank; i++)
        n *= (size_t)t->shape[i];
    out = mem_array(t->transposed ? 2 * n : n, sizeof *out);
    if (!out) {
        err_set(e, ERR_NOMEM, "tensor %s: out of memory", t->saved);
        return NULL;
    }
    as_ours = t->transposed ? out + n : out;
    if (b->copy_out(as_ours, ours, n * sizeof *out)) {
        err_set(e, ERR_DEVICE, "tensor %s: %s", t->saved, b->error());
        mem_free(out);
        return NULL;
    }
    if (t->transposed)
        fix_transpose(as_ours, t->shape[1], t->shape[0], out);
    return out;
}
