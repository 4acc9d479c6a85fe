/* Lists of named metrics (worker/stage/stage.h). A list that is full is a bug. */
#include <math.h>
#include <string.h>

#include "worker/stage/stage.h"

void metric_add(struct metric_list *m, const char *name, double value)
{
    invariant(m->n < METRICS_MAX);
    m->name[m->n] = name;
    m->value[m->n++] = value;
}

double metric_get(const struct metric_list *m, const char *name)
{
    for (int i = 0; i < m->n; i++)
        if (!strcmp(m->name[i], name))
            return m->value[i];
    return NAN;
}
