/* Rows of the elementwise operators: activations, their gradients, gated units, and the
 * epilogue of matrix products. Element by element, so neither length nor place matters:
 * a tail is a vector whose other lanes are thrown away. */
#ifndef KERNELS_CPU_ROWS_ACT_H
#define KERNELS_CPU_ROWS_ACT_H

#include "kernels/cpu/loops.h"
#include "kernels/cpu/math.h"

static void loop_act(enum op_act which, const float *x, float *y, long n)
{
#define BODY(act)                                                                          \
    for (long i = 0; i < n; i += VW)                                                       \
    vf_store_up_to(y + i, vf_act(act, vf_load_up_to(x + i, n - i)), n - i)
    ACT_SWITCH(which, BODY)
#undef BODY
}

static void loop_act_slope(enum op_act which, const float *x, const float *dy, float *dx,
                           long n)
{
#define BODY(act)                                                                          \
    for (long i = 0; i < n; i += VW)                                                       \
    vf_store_up_to(dx + i,                                                                 \
                   vf_load_up_to(dy + i, n - i) *                                          \
                       vf_act_slope(act, vf_load_up_to(x + i, n - i)),                     \
                   n - i)
    ACT_SWITCH(which, BODY)
#undef BODY
}

static void loop_glu(enum op_act which, const float *gate, const float *up, float *y,
                     long n)
{
#define BODY(act)                                                                          \
    for (long i = 0; i < n; i += VW)                                                       \
    vf_store_up_to(                                                                        \
        y + i, vf_act(act, vf_load_up_to(gate + i, n - i)) * vf_load_up_to(up + i, n - i), \
        n - i)
    ACT_SWITCH(which, BODY)
#undef BODY
}

static void loop_glu_slope(enum op_act which, const float *gate, const float *up,
                           const float *dy, float *dgate, float *dup, long n)
{
#define BODY(act)                                                                          \
    for (long i = 0; i < n; i += VW) {                                                     \
        vf g = vf_load_up_to(gate + i, n - i), d = vf_load_up_to(dy + i, n - i);           \
        vf u = vf_load_up_to(up + i, n - i);                                               \
                                                                                           \
        vf_store_up_to(dgate + i, d * u * vf_act_slope(act, g), n - i);                    \
        vf_store_up_to(dup + i, d * vf_act(act, g), n - i);                                \
    }
    ACT_SWITCH(which, BODY)
#undef BODY
}

/* c = act(c + bias) on rows x n; pre receives c + bias. */
static inline __attribute__((always_inline)) void epilogue_rows(const struct epilogue *e,
                                                                const enum op_act act)
{
    for (int r = 0; r < e->rows; r++) {
        float *c = e->c + r * e->ldc, *pre = e->pre ? e->pre + r * e->ldc : NULL;

        for (long i = 0; i < e->n; i += VW) {
            vf x = vf_load_up_to(c + i, e->n - i);

            if (e->bias)
                x += vf_load_up_to(e->bias + i, e->n - i);
            if (pre)
                vf_store_up_to(pre + i, x, e->n - i);
            vf_store_up_to(c + i, vf_act(act, x), e->n - i);
        }
    }
}

static void loop_epilogue(const struct epilogue *e)
{
#define BODY(act) epilogue_rows(e, act)
    ACT_SWITCH(e->act, BODY)
#undef BODY
}

/* y += x. */
static void loop_add(const float *x, float *y, long n)
{
    for (long i = 0; i < n; i += VW)
        vf_store_up_to(y + i, vf_load_up_to(y + i, n - i) + vf_load_up_to(x + i, n - i),
                       n - i);
}

/* y = f x. */
static void loop_scale(float f, const float *x, float *y, long n)
{
    vf s = vf_set1(f);

    for (long i = 0; i < n; i += VW)
        vf_store_up_to(y + i, vf_load_up_to(x + i, n - i) * s, n - i);
}

#endif
