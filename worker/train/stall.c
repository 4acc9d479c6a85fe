/* A loss that does not fall: see stall.h. */
#include "worker/train/stall.h"

#include <math.h>
#include <string.h>

enum { LEAST = 100, PARTS = 5 };

void stall_init(struct stall *s, long asked, long total)
{
    long fifth = total / PARTS;

    memset(s, 0, sizeof *s);
    s->window = asked < 0 ? 0 : asked > 0 ? asked : fifth > LEAST ? fifth : LEAST;
}

int stall_step(struct stall *s, double loss, long left)
{
    double n = (double)s->window, mean, variance;
    int stalled;

    if (!s->window || s->told || !isfinite(loss))
        return 0;
    s->sum += loss;
    s->square += loss * loss;
    if (++s->n < s->window)
        return 0;
    mean = s->sum / n;
    variance = fmax(s->square / n - mean * mean, 0);
    stalled = s->windows++ && left >= s->window &&
              s->mean - mean <= 2 * sqrt((s->variance + variance) / n);
    s->mean = mean;
    s->variance = variance;
    s->sum = s->square = 0;
    s->n = 0;
    s->told = stalled;
    return stalled;
}
