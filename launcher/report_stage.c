/* The report's sections on stages: time, throughput and memory, results, curves.
 *
 * Of a run over several seeds every figure stands as its mean and standard error, results
 * seed by seed beside them, and a curve has one line a seed. */
#include <string.h>

#include "base/file.h"
#include "launcher/report_internal.h"
#include "launcher/report_time.h"

enum { SEEDS_SHOWN = 6, LINES_MAX = 12 };

/* Which figures of metrics.jsonl belong together in one chart. */
static const struct {
    const char *title, *key[4];
} charts[] = {
    {"loss", {"loss"}},
    {"validation: accuracy and macro-F1", {"accuracy", "macro_f1", "mcc"}},
    {"validation: ECE", {"ece"}},
    {"reward model: top-1 and strict order", {"top1_accuracy", "ordered_accuracy"}},
    {"reward", {"reward"}},
    {"KL to the reference", {"kl"}},
    {"KL coefficient β", {"beta"}},
    {"share of clipped ratios", {"clip_fraction"}},
    {"value loss", {"value_loss"}},
    {"gradient norm before clipping", {"grad_norm"}},
};

/* A stage's metrics.jsonl, of seed k (from 1) or of the one run (0); absent: empty. */
static int read_series(const struct run *r, long k, const char *stage,
                       struct series_file *out, struct err *e)
{
    char folder[FILE_PATH_MAX], path[FILE_PATH_MAX], seed[32] = ".";
    int rc;

    if (k)
        snprintf(seed, sizeof seed, "seed-%ld", k);
    if ((rc = file_join(folder, sizeof folder, r->dir, seed, e)) ||
        (rc = file_join(path, sizeof path, folder, stage, e)) ||
        (rc = file_join(folder, sizeof folder, path, "metrics.jsonl", e)))
        return rc;
    return file_exists(folder) ? series_read(out, folder, e) : 0;
}

/* Of every seed its first line of the chart that is not faint: evaluations where there are
 * some, else the running mean. */
static size_t seed_lines(const struct run *r, struct series_file *file, long seeds,
                         const char *const *key, struct svg_series *out)
{
    size_t made = 0;

    for (int k = 0; k < seeds; k++) {
        struct svg_series line[LINES_MAX], *best = NULL;
        size_t n = series_lines(&file[k], key, 1, line, LINES_MAX);

        for (size_t i = 0; i < n; i++)
            if (!line[i].faint && (!best || line[i].dots))
                best = &line[i];
        if (!best)
            continue;
        best->name = arena_printf(&file[k].arena, "seed %ld", report_seed(r, k));
        if (!best->name)
            continue;
        best->color = k;
        out[made++] = *best;
    }
    return made;
}

static void draw(const struct run *r, struct series_file *file, long seeds,
                 const char *stage, struct str *out)
{
    str_add(out, "<div class=\"grid\">");
    report_time(&file[0], stage, out);
    for (size_t c = 0; c < sizeof charts / sizeof *charts; c++) {
        struct svg_series line[LINES_MAX];
        size_t n = seeds ? seed_lines(r, file, seeds, charts[c].key, line)
                         : series_lines(file, charts[c].key, 4, line, LINES_MAX);
        char title[160];

        if (!n)
            continue;
        snprintf(title, sizeof title, "%s: %s", stage,
                 seeds && charts[c].key[1] ? charts[c].key[0] : charts[c].title);
        str_add(out, "<div class=\"card\">");
        svg_curves(out, title, "step", line, n);
        str_add(out, "</div>");
    }
    str_add(out, "</div>");
}

static int curves(const struct run *r, const char *stage, struct str *out, struct err *e)
{
    struct series_file file[SEEDS_SHOWN] = {{.n = 0}};
    long seeds = r->seeds > 1 ? r->n_done : 0;
    int rc = 0;

    seeds = seeds > SEEDS_SHOWN ? SEEDS_SHOWN : seeds;
    for (long k = 0; !rc && k < (seeds ? seeds : 1); k++)
        rc = read_series(r, seeds ? report_seed(r, k) : 0, stage, &file[k], e);
    if (!rc)
        draw(r, file, seeds, stage, out);
    for (int k = 0; k < SEEDS_SHOWN; k++)
        series_fini(&file[k]);
    return rc;
}

/* ---- figures ------------------------------------------------------------------------- */

/* A number, or the mean over seeds. */
static double mean_of(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);

    return json_is_object(v) ? member(v, "mean") : member(o, key);
}

/* "12", or "12 ± 0.5" over seeds; counts are whole numbers. */
static void add_figure(struct str *out, const json_t *o, const char *key, int count)
{
    double mean = mean_of(o, key), se = member(json_object_get(o, key), "se");

    str_addf(out, count ? "%.0f" : "%.4g", mean);
    if (se > 0)
        str_addf(out, count && se >= 10 ? " ± %.0f" : " ± %.2g", se);
}

/* What the stage's result measures on the validation and test split. */
static void stage_metrics(const json_t *stage, struct str *out)
{
    static const char *const split[] = {"validation", "test"};
    json_t *all = json_object_get(stage, "metrics"), *value;
    json_t *first = json_object_get(all, "validation");
    const char *key;

    if (!json_object_size(first))
        first = json_object_get(all, "test");
    if (!json_object_size(first))
        return;
    str_add(out, "<table><tr><th>result on</th>");
    json_object_foreach(first, key, value)
    {
        str_add(out, "<th>");
        str_add_html(out, key);
        str_add(out, "</th>");
    }
    str_add(out, "</tr>");
    for (int s = 0; s < 2; s++) {
        if (!json_object_size(json_object_get(all, split[s])))
            continue;
        str_addf(out, "<tr><td>%s</td>", split[s]);
        json_object_foreach(first, key, value)
        {
            str_add(out, "<td>");
            add_figure(out, json_object_get(all, split[s]), key, 0);
            str_add(out, "</td>");
        }
        str_add(out, "</tr>");
    }
    str_add(out, "</table>");
}

/* The test split's figures (or the validation split's) seed by seed. */
static void seed_metrics(const struct run *r, const json_t *stage, struct str *out)
{
    json_t *all = json_object_get(stage, "metrics"), *value;
    json_t *of = json_object_get(all, "test");
    int test = json_object_size(of) > 0;
    const char *key;

    if (!test)
        of = json_object_get(all, "validation");
    if (!json_object_size(of))
        return;
    str_addf(out, "<details><summary>%s split, seed by seed</summary><table><tr><th></th>",
             test ? "test" : "validation");
    json_object_foreach(of, key, value)
    {
        str_add(out, "<th>");
        str_add_html(out, key);
        str_add(out, "</th>");
    }
    str_add(out, "</tr>");
    for (long k = 0; k < r->n_done; k++) {
        str_addf(out, "<tr><td>seed %ld</td>", report_seed(r, k));
        json_object_foreach(of, key, value)
        {
            const json_t *list = json_object_get(value, "values");
            const json_t *v = json_array_get(list, (size_t)k);

            str_addf(out, "<td>%.4g</td>", json_is_number(v) ? json_number_value(v) : NAN);
        }
        str_add(out, "</tr>");
    }
    str_add(out, "</table></details>");
}

static void stage_row(const char *name, const json_t *stage, struct str *out)
{
    static const char *const counts[] = {"steps", "tokens", "tokens_per_second"};
    char text[32];

    str_add(out, "<tr><td>");
    str_add_html(out, name);
    str_add(out, "</td><td>");
    str_add_html(out, string(stage, "state"));
    str_addf(out, "</td><td>%s",
             str_duration(text, sizeof text, mean_of(stage, "seconds")));
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        str_add(out, "</td><td>");
        add_figure(out, stage, counts[i], 1);
    }
    str_addf(out, "</td><td>%s</td><td>",
             str_bytes(text, sizeof text, mean_of(stage, "peak_bytes")));
    add_figure(out, stage, "best_step", 1);
    str_add(out, "</td></tr>");
}

int report_stages(const struct run *r, struct str *out, struct err *e)
{
    json_t *all = json_object_get(r->summary, "stages"), *stage;
    const char *name;
    int rc = 0;

    section(out, "Time and throughput");
    str_add(out,
            "<table><tr><th>stage</th><th>state</th><th>time</th><th>steps</th>"
            "<th>tokens</th><th>tokens/s</th><th>peak memory</th><th>best step</th></tr>");
    json_object_foreach(all, name, stage)
    {
        stage_row(name, stage, out);
    }
    str_add(out, "</table>");
    json_object_foreach(all, name, stage)
    {
        section(out, name);
        stage_metrics(stage, out);
        if (r->seeds > 1)
            seed_metrics(r, stage, out);
        if ((rc = curves(r, name, out, e)))
            return rc;
    }
    return 0;
}
