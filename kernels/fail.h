/* How an operator says why it failed: one message per thread, read by backend->error().
 *
 * Invariant: an operator that returns non-zero has called op_fail() on the calling thread.
 * Messages are cut, never overrun. */
#ifndef KERNELS_FAIL_H
#define KERNELS_FAIL_H

#include "base/err.h"

#ifdef __cplusplus
extern "C" {
#endif

int op_fail(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
const char *op_error(void);

#ifdef __cplusplus
}
#endif

#endif
