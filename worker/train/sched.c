/* Learning-rate schedules; see sched.h for the formulas. */
#include "worker/train/sched.h"

#include <math.h>

void sched_init(struct sched *s, enum schedule kind, double share, long total)
{
    s->kind = kind;
    s->total = total;
    /* 0.1 * 30 is a little above 3 in binary; that is not a fourth step. */
    s->warmup = (long)ceil(share * (double)total - 1e-9);
    if (s->warmup > total)
        s->warmup = total;
}

double sched_factor(const struct sched *s, long step)
{
    double rest = (double)(s->total - s->warmup);

    if (step < s->warmup)
        return (double)step / (double)s->warmup;
    if (s->kind == SCHEDULE_CONSTANT)
        return 1;
    if (step >= s->total || rest < 1)
        return 0;
    if (s->kind == SCHEDULE_COSINE)
        return 0.5 * (1 + cos(M_PI * (double)(step - s->warmup) / rest));
    return (double)(s->total - step) / rest;
}
