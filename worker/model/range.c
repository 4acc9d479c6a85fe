/* Weights that f16 has no numbers for, found when a model is loaded: a product would turn
 * them into infinities, and every step would overflow.
 *
 * Fails with ERR_CONFIG and the tensor's name; NaN and infinities of the file are left for
 * the training itself to find. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "worker/model/internal.h"

enum { CHUNK = 1 << 18 };
static const float f16_most = 65504.0f;

/* The tensor of the file that element `at` of parameter i came from. */
static const char *name_of(const struct model *m, int i, size_t at)
{
    const struct model_tensor *best = NULL;

    for (size_t k = 0; k < m->n_tensors; k++)
        if (m->tensor[k].param == i && m->tensor[k].first <= at &&
            (!best || m->tensor[k].first >= best->first))
            best = &m->tensor[k];
    return best ? best->name : m->param[i].name;
}

/* Is it an operand of a product in f16? Tables that are only looked up are not. */
static int is_operand(const struct model *m, const struct param *p)
{
    int has_words = head_is_causal(m->options.head) || m->options.head == HEAD_MASKED;

    return p->precision == PRECISION_F16 && p->rows > 1 && p->cols > 1 &&
           (has_words || !str_starts(p->name, "embed."));
}

static int check_param(const struct model *m, int i, float *buf, struct err *e)
{
    const struct param *p = &m->param[i];
    size_t n = (size_t)p->rows * (size_t)p->cols, k;

    for (size_t at = 0; at < n; at += k) {
        k = n - at < CHUNK ? n - at : CHUNK;
        if (m->options.backend->copy_out(buf, p->data + at, k * sizeof *buf))
            return err_set(e, ERR_DEVICE, "%s: %s", p->name, m->options.backend->error());
        for (size_t j = 0; j < k; j++) {
            if (!isfinite(buf[j]) || fabsf(buf[j]) <= f16_most)
                continue;
            err_set(e, ERR_CONFIG,
                    "%s: tensor %s holds %g, and f16 ends at %.0f: its products would be "
                    "infinite",
                    m->dir, name_of(m, i, at + j), (double)buf[j], (double)f16_most);
            return err_mend(e, "set resources.precision to bf16 or f32");
        }
    }
    return 0;
}

int model_check_range(const struct model *m, struct err *e)
{
    float *buf;
    int rc = 0;

    if (m->options.precision != PRECISION_F16)
        return 0;
    buf = mem_array(CHUNK, sizeof *buf);
    if (!buf)
        return err_set(e, ERR_NOMEM, "%s: out of memory", m->dir);
    for (size_t i = 0; !rc && i < m->n_params; i++)
        if (is_operand(m, &m->param[i]))
            rc = check_param(m, (int)i, buf, e);
    mem_free(buf);
    return rc;
}
