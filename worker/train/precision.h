/* Which precision a job's matrix products have: `resources.precision`.
 *
 *     f32, bf16, f16, tf32   as asked; where no instruction serves bf16 or f16 it is
 *             correct and slower, tf32 is f32 where there is no GPU for it
 *     auto    bf16, or f16 on a GPU that has no bf16, where a measurement of some
 *             milliseconds finds it faster by a quarter or more, else f32. The measurement
 *             is kept for each processor model in $XDG_CACHE_HOME/hone (~/.cache/hone); a
 *             cache that cannot be read, trusted or written is no failure
 *
 * Invariant: a stage keeps its precision for life: it is decided before its first step,
 * stands in its checkpoints, and a resume that asks for another is refused. */
#ifndef WORKER_TRAIN_PRECISION_H
#define WORKER_TRAIN_PRECISION_H

#include "base/err.h"
#include "kernels/backend.h"
#include "worker/spec/spec.h"

/* What multiplies numbers of that precision, for people; "rounding" where no unit does;
 * NULL: nothing worth a word. */
const char *precision_units(const struct backend *b, enum op_precision p);

/* What auto means on this machine. speedup (or NULL): time in f32 by time in the fastest
 * two-byte type; 0 where there is none, and nothing was measured. */
enum op_precision precision_auto(const struct backend *b, double *speedup);

/* Of a stage whose checkpoints lie in `dir`. resume 0: they do not count. ERR_CONFIG when
 * the job asks for another precision than they have. */
int precision_of_stage(const struct spec *spec, const struct backend *b, const char *dir,
                       int resume, enum op_precision *out, struct err *e);

#endif
