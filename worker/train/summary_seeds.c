/* RUN/summary.json over the runs of several seeds; see summary.h.
 *
 * Trees of the same shape are merged: numbers to {"mean", "se", "values"}, where se is the
 * standard error of the mean over seeds. In the comparison, which people read, means and
 * standard errors stand apart, as they do for a single run. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

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

/* The figures of the n runs that are done. */
static void merge_runs(json_t *o, json_t *const *run, size_t n)
{
    static const char *const same[] = {"model", "labels", "ordinal"};
    json_t **stages = mem_array(n, sizeof(json_t *));

    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        json_object_set(o, same[i], json_object_get(run[0], same[i]));
    if (stages) {
        members(run, n, "stages", stages);
        json_object_set_new(o, "stages", merge(stages, n));
        json_object_set_new(o, "comparison", merge_comparison(run, n));
    }
    mem_free(stages);
}

struct seeds {
    size_t n;     /* of the job */
    json_t **run; /* summaries of those that are done */
    size_t n_done;
    size_t missing, failed, stopped;
    json_t *numbers; /* of those that are done */
};

/* Its summary, when it is done; else how it stands. */
static int read_seed(struct seeds *s, const char *run, size_t k, struct err *e)
{
    char path[FILE_PATH_MAX];
    const char *state;
    json_t *o = NULL;
    int r;

    if (snprintf(path, sizeof path, "%s/seed-%zu/summary.json", run, k) >= (int)sizeof path)
        return err_set(e, ERR_CONFIG, "path is too long: %s", run);
    if (!file_exists(path)) {
        s->missing++;
        return 0;
    }
    r = json_read(path, SUMMARY_BYTES_MAX, &o, e);
    if (!r)
        r = json_get_string(o, "state", 1, &state, e);
    if (r) {
        json_decref(o);
        return r;
    }
    if (!strcmp(state, "done")) {
        s->run[s->n_done++] = o;
        return json_array_append_new(s->numbers, json_integer((json_int_t)k))
                   ? err_set(e, ERR_NOMEM, "out of memory")
                   : 0;
    }
    s->failed += !strcmp(state, "failed");
    s->stopped += !strcmp(state, "stopped");
    s->missing += strcmp(state, "failed") && strcmp(state, "stopped");
    json_decref(o);
    return 0;
}

static json_t *over_all(const struct seeds *s, const struct spec *spec, double started,
                        double seconds)
{
    json_t *o = json_object();
    char iso[32];

    summary_set_string(o, "name", spec->name);
    summary_set_string(o, "state",
                       s->missing   ? "running"
                       : s->failed  ? "failed"
                       : s->stopped ? "stopped"
                                    : "done");
    summary_set_string(o, "started", clock_iso(iso, sizeof iso, started));
    summary_set_number(o, "started_unix", started);
    summary_set_number(o, "seconds", seconds);
    summary_set_number(o, "seeds", (double)s->n);
    if (s->n_done < s->n)
        json_object_set(o, "seeds_done", s->numbers);
    if (s->n_done)
        merge_runs(o, s->run, s->n_done);
    else
        json_object_set_new(o, "stages", json_object());
    return o;
}

int summary_write_seeds(const char *run, const struct spec *spec, double started,
                        double seconds, struct err *e)
{
    struct seeds s = {.n = (size_t)spec->seeds, .numbers = json_array()};
    int fd, r = summary_lock(run, &fd, e);

    s.run = mem_array(s.n, sizeof(json_t *));
    if (!r && (!s.run || !s.numbers))
        r = err_set(e, ERR_NOMEM, "out of memory");
    for (size_t k = 1; !r && k <= s.n; k++)
        r = read_seed(&s, run, k, e);
    if (!r && seconds <= 0) {
        started = summary_started(run, started);
        seconds = clock_wall() - started;
    }
    if (!r)
        r = summary_write(run, "summary.json", over_all(&s, spec, started, seconds), e);
    for (size_t i = 0; i < s.n_done; i++)
        json_decref(s.run[i]);
    mem_free(s.run);
    json_decref(s.numbers);
    if (fd >= 0)
        close(fd); /* gives the lock back */
    return r ? err_wrap(e, "summary of %s", run) : 0;
}
