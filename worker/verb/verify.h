/* Certify a model against recorded numbers, tensor by tensor; the core of `hone verify` and
 * of the golden tests.
 *
 * |got - want| <= rtol * max(1, |want|) must hold for every element of what the file
 * holds: logits, pooled, hidden.N, hidden.norm, cls, mean, rewards, scores_all, loss,
 * grad.<parameter>. What we do not know is listed and fails nothing. */
#ifndef WORKER_VERB_VERIFY_H
#define WORKER_VERB_VERIFY_H

#include "base/arena.h"
#include "base/err.h"
#include "kernels/op.h"

struct verify_row {
    const char *name; /* as in the golden file */
    long n;           /* elements compared; 0: not known to us */
    double diff;      /* |got - want| of the worst element */
    double got, want; /* its values */
    double share;     /* worst |got - want| / (rtol * max(1, |want|)): above 1 fails */
    double rms;       /* norm of got - want by that of want */
};

struct verify_report {
    struct arena arena;
    struct verify_row *row;
    size_t n, compared, unknown, failed;
    double rtol;
};

#define VERIFY_RTOL 5e-5

struct verify_options {
    const char *backend;
    enum op_precision precision; /* `hone verify`: f32, always */
    double rtol;
};

int verify_run(const char *model, const char *golden, const struct verify_options *o,
               struct verify_report *out, struct err *e);
void verify_fini(struct verify_report *r);

#endif
