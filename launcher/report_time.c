/* The split of a step's time; see report_time.h.
 *
 *     mean = sum over lines of (steps of the line * its mean) / steps of all lines
 *
 * A line covers the steps since the training line before it. A key that a line lacks took
 * no time in it (a checkpoint is not saved in every interval). */
#include "launcher/report_time.h"

#include <math.h>
#include <stdio.h>

#include "base/json.h"

enum { PARTS = 6 };
static const char *const keys[PARTS] = {"time_data",   "time_forward",   "time_backward",
                                        "time_reduce", "time_optimizer", "time_checkpoint"};
static const char *const names[PARTS] = {"data",   "forward",   "backward",
                                         "reduce", "optimizer", "checkpoint"};

/* Seconds a step, by part; 0: no line has any. */
static int means(const struct series_file *f, double mean[PARTS])
{
    double before = 0, total = 0;
    int found = 0;

    for (int k = 0; k < PARTS; k++)
        mean[k] = 0;
    for (size_t i = 0; i < f->n; i++) {
        const struct series_point *p = &f->point[i];
        double steps = p->step - before;

        if (p->validation || !(steps > 0))
            continue;
        before = p->step;
        total += steps;
        for (int k = 0; k < PARTS; k++) {
            const json_t *v = json_object_get(p->values, keys[k]);
            double x = json_is_number(v) ? json_number_value(v) : 0;

            found |= json_is_number(v);
            mean[k] += isfinite(x) && x > 0 ? steps * x : 0;
        }
    }
    for (int k = 0; k < PARTS && total > 0; k++)
        mean[k] /= total;
    return found;
}

void report_time(const struct series_file *f, const char *stage, struct str *out)
{
    double mean[PARTS], sum = 0;
    char title[160];

    if (!means(f, mean))
        return;
    for (int k = 0; k < PARTS; k++)
        sum += mean[k];
    if (!(sum > 0))
        return;
    snprintf(title, sizeof title, "%s: where a step's %.3g ms go", stage, 1e3 * sum);
    str_add(out, "<div class=\"card\">");
    svg_stack(out, title, names, mean, PARTS);
    str_add(out, "<table><tr><th>part</th><th>ms a step</th><th>share</th></tr>");
    for (int k = 0; k < PARTS; k++)
        str_addf(out, "<tr><td>%s</td><td>%.3g</td><td>%.1f %%</td></tr>", names[k],
                 1e3 * mean[k], 100 * mean[k] / sum);
    str_add(out, "</table></div>");
}
