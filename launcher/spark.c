/* Sparklines: see spark.h. */
#include "launcher/spark.h"

#include <math.h>

void spark_add(struct spark *s, double x)
{
    if (!isfinite(x))
        return;
    if (!s->each)
        s->each = 1;
    s->sum += x;
    if (++s->in < s->each)
        return;
    if (s->n == SPARK_WIDTH) { /* half as many, each of twice as many points */
        for (int i = 0; i < SPARK_WIDTH / 2; i++)
            s->mean[i] = (s->mean[2 * i] + s->mean[2 * i + 1]) / 2;
        s->n = SPARK_WIDTH / 2;
        s->each *= 2;
        if (s->in < s->each)
            return;
    }
    s->mean[s->n++] = s->sum / s->in;
    s->sum = s->in = 0;
}

void spark_write(const struct spark *s, struct str *out)
{
    static const char *const level[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    double least = INFINITY, most = -INFINITY;

    if (s->n < 2)
        return;
    for (int i = 0; i < s->n; i++) {
        least = fmin(least, s->mean[i]);
        most = fmax(most, s->mean[i]);
    }
    for (int i = 0; i < s->n; i++)
        str_add(
            out,
            level[most > least ? (int)((s->mean[i] - least) / (most - least) * 7.999) : 0]);
}
