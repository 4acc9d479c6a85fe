/* RUN/summary.json over the runs of several seeds; see summary.h.
 *
 * Trees of the same shape are merged: numbers to {"mean", "se", "values"}, where se is the
 * standard error of the mean over seeds. In the comparison, which people read, means and
 * standard errors stand apart, as they do for a single run. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "worker/train/summary_internal.h"

static void mean_and_se(json_t *const *x, size_t n, double *mean, double *se)
{
    double sum = 0, square = 0;

    for (size_t i = 0; i < n; i++)
        sum += json_number_value(x[i]) / (double)n;
    for (size_t i = 0; i < n; i++)
        square += pow(json_number_value(x[i]) - sum, 2);
    *mean = sum;
    *se = n > 1 ? sqrt(square / (double)(n - 1) / (double)n) : NAN;
}

static json_t *merge_number(json_t *const *x, size_t n)
{
    json_t *o = json_object(), *values = json_array();
    double mean, se;

    mean_and_se(x, n, &mean, &se);
    summary_set_number(o, "mean", mean);
    summary_set_number(o, "se", se);
    for (size_t i = 0; i < n; i++)
        json_array_append(values, x[i]);
    json_object_set_new(o, "values", values);
    return o;
}

/* Members of all n objects; what is neither number nor object is the first's, as long as
 * it is no list (those are per run: read them there). */
static json_t *merge(json_t *const *x, size_t n)
{
    json_t *o = json_object(), *value;
    json_t **part = mem_array(n, sizeof(json_t *));
    const char *key;

    json_object_foreach(x[0], key, value)
    {
        int numbers = 1, objects = 1;

        for (size_t i = 0; part && i < n; i++) {
            part[i] = json_object_get(x[i], key);
            numbers &= json_is_number(part[i]);
            objects &= json_is_object(part[i]);
        }
        if (part && numbers)
            json_object_set_new(o, key, merge_number(part, n));
        else if (part && objects)
            json_object_set_new(o, key, merge(part, n));
        else if (part && !json_is_array(value))
            json_object_set(o, key, value);
    }
    mem_free(part);
    return o;
}

/* Means of one object of metrics, and their standard errors over the seeds. */
static void merge_metrics(json_t *const *x, size_t n, json_t *out, const char *name,
                          const char *se_name)
{
    json_t *means = json_object(), *errors = json_object(), *all = merge(x, n), *value;
    const char *key;

    json_object_foreach(all, key, value)
    {
        json_object_set(means, key, json_object_get(value, "mean"));
        json_object_set(errors, key, json_object_get(value, "se"));
    }
    json_decref(all);
    json_object_set_new(out, name, means);
    json_object_set_new(out, se_name, errors);
}

static json_t *merge_confusion(json_t *const *x, size_t n)
{
    json_t *sum = json_deep_copy(x[0]), *row;
    size_t y;

    json_array_foreach(sum, y, row)
    {
        for (size_t k = 0; k < json_array_size(row); k++) {
            json_int_t c = 0;

            for (size_t i = 0; i < n; i++)
                c += json_integer_value(json_array_get(json_array_get(x[i], y), k));
            json_array_set_new(row, k, json_integer(c));
        }
    }
    return sum;
}

static json_t *merge_reliability(json_t *const *x, size_t n)
{
    json_t *all = json_array();

    for (size_t b = 0; b < json_array_size(x[0]); b++) {
        double rows = 0, confidence = 0, accuracy = 0;
        json_t *o = json_object();

        for (size_t i = 0; i < n; i++) {
            const json_t *bin = json_array_get(x[i], b);
            double in = json_number_value(json_object_get(bin, "n"));

            rows += in;
            confidence += in * json_number_value(json_object_get(bin, "confidence"));
            accuracy += in * json_number_value(json_object_get(bin, "accuracy"));
        }
        summary_set_number(o, "n", rows);
        summary_set_number(o, "confidence", rows > 0 ? confidence / rows : 0);
        summary_set_number(o, "accuracy", rows > 0 ? accuracy / rows : 0);
        json_array_append_new(all, o);
    }
    return all;
}

static void members(json_t *const *from, size_t n, const char *key, json_t **out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = json_object_get(from[i], key);
}

/* Row `number` of every seed's comparison. */
static json_t *merge_row(json_t *const *run, size_t n, size_t number, json_t **row,
                         json_t **part)
{
    json_t *o = json_object();

    for (size_t i = 0; i < n; i++)
        row[i] = json_array_get(json_object_get(run[i], "comparison"), number);
    json_object_set(o, "name", json_object_get(row[0], "name"));
    json_object_set(o, "stage", json_object_get(row[0], "stage"));
    members(row, n, "metrics", part);
    merge_metrics(part, n, o, "metrics", "se");
    members(row, n, "difference", part);
    if (part[0])
        merge_metrics(part, n, o, "difference", "difference_se");
    members(row, n, "confusion", part);
    json_object_set_new(o, "confusion", merge_confusion(part, n));
    members(row, n, "reliability", part);
    json_object_set_new(o, "reliability", merge_reliability(part, n));
    return o;
}

static json_t *merge_comparison(json_t *const *run, size_t n)
{
    size_t least = json_array_size(json_object_get(run[0], "comparison"));
    json_t **work = mem_array(2 * n, sizeof(json_t *)), *rows = json_array();

    for (size_t i = 1; i < n; i++) {
        size_t size = json_array_size(json_object_get(run[i], "comparison"));

        least = size < least ? size : least;
    }
    for (size_t r = 0; work && r < least; r++)
        json_array_append_new(rows, merge_row(run, n, r, work, work + n));
    mem_free(work);
    return rows;
}

static json_t *merge_runs(json_t *const *run, size_t n, double started, double seconds)
{
    static const char *const same[] = {"name", "state", "model", "labels", "ordinal"};
    json_t **stages = mem_array(n, sizeof(json_t *)), *o = json_object();
    char iso[32];

    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        json_object_set(o, same[i], json_object_get(run[0], same[i]));
    summary_set_string(o, "started", clock_iso(iso, sizeof iso, started));
    summary_set_number(o, "started_unix", started);
    summary_set_number(o, "seconds", seconds);
    summary_set_number(o, "seeds", (double)n);
    if (stages) {
        members(run, n, "stages", stages);
        json_object_set_new(o, "stages", merge(stages, n));
        json_object_set_new(o, "comparison", merge_comparison(run, n));
    }
    mem_free(stages);
    return o;
}

int summary_write_seeds(const char *run, const struct spec *spec, double started,
                        double seconds, struct err *e)
{
    size_t n = (size_t)spec->seeds;
    json_t **part = mem_array(n, sizeof(json_t *));
    char path[FILE_PATH_MAX];
    int r = part ? 0 : err_set(e, ERR_NOMEM, "out of memory");

    for (size_t i = 0; !r && i < n; i++) {
        if (snprintf(path, sizeof path, "%s/seed-%zu/summary.json", run, i + 1) >=
            (int)sizeof path)
            r = err_set(e, ERR_CONFIG, "path is too long: %s", run);
        else
            r = json_read(path, SUMMARY_BYTES_MAX, &part[i], e);
    }
    if (!r)
        r = summary_write(run, "summary.json", merge_runs(part, n, started, seconds), e);
    for (size_t i = 0; part && i < n; i++)
        json_decref(part[i]);
    mem_free(part);
    return r ? err_wrap(e, "summary of %s", run) : 0;
}
