/* RUN/report.html and the results table; see report.h. One function per section, each
 * taking the parsed run and appending to the page; a section whose numbers are absent adds
 * nothing. */
#include "launcher/report.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "launcher/report_internal.h"
#include "launcher/svg.h"

enum { SUMMARY_LIMIT = 64 << 20, STAGES_MAX = 32 };

struct column {
    const char *key, *head;
    int percent, ordinal, lower_is_better;
};

static const struct column columns[] = {
    {"accuracy", "accuracy %", 1, 0, 0},
    {"macro_f1", "macro-F1 %", 1, 0, 0},
    {"mcc", "MCC %", 1, 0, 0},
    {"ece", "ECE %", 1, 0, 1},
    {"nll", "NLL", 0, 0, 1},
    {"mae", "MAE", 0, 1, 1},
    {"qwk", "QWK", 0, 1, 0},
};
enum { COLUMNS = sizeof columns / sizeof *columns };

static int shown(const struct run *r, const struct column *c)
{
    return !c->ordinal || r->ordinal;
}

static int load(struct run *r, const char *dir, struct err *e)
{
    char path[FILE_PATH_MAX];
    const json_t *labels;
    int rc;

    memset(r, 0, sizeof *r);
    r->dir = dir;
    if ((rc = file_join(path, sizeof path, dir, "summary.json", e)))
        return rc;
    if (!file_exists(path)) {
        err_set(e, ERR_CONFIG, "report on %s: there is no summary.json", dir);
        return err_mend(e, "give the folder of a run (runs/<name>-<n>)");
    }
    if ((rc = json_read(path, SUMMARY_LIMIT, &r->summary, e)))
        return err_wrap(e, "report on %s", dir);
    labels = json_object_get(r->summary, "labels");
    for (size_t i = 0; i < json_array_size(labels) && i < LABELS_MAX; i++) {
        const char *s = json_string_value(json_array_get(labels, i));

        r->label[r->K++] = s ? s : "?";
    }
    r->ordinal = json_is_true(json_object_get(r->summary, "ordinal"));
    r->seeds = json_integer_value(json_object_get(r->summary, "seeds"));
    r->done = json_object_get(r->summary, "seeds_done");
    r->n_done = r->done ? (long)json_array_size(r->done) : r->seeds;
    return 0;
}

static void close_run(struct run *r)
{
    json_decref(r->summary);
    r->summary = NULL;
}

/* One cell: "58.8 ± 1.7", and for a difference a sign. */
static void cell(char *buf, size_t n, const struct column *c, double v, double se, int sign)
{
    double scale = c->percent ? 100 : 1;
    int digits = c->percent ? 1 : 3, used;

    if (!isfinite(v)) {
        snprintf(buf, n, "-");
        return;
    }
    used = snprintf(buf, n, sign ? "%+.*f" : "%.*f", digits, v * scale);
    if (isfinite(se) && used > 0 && (size_t)used < n)
        snprintf(buf + used, n - (size_t)used, " ± %.*f", digits, se * scale);
}

/* Characters a terminal shows: UTF-8 continuation bytes take no room. */
static int columns_of(const char *s)
{
    int n = 0;

    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

static void pad(struct str *out, const char *s, int width, int right)
{
    int fill = width - columns_of(s);

    for (int i = 0; right && i < fill; i++)
        str_add_char(out, ' ');
    str_add(out, s);
    for (int i = 0; !right && i < fill; i++)
        str_add_char(out, ' ');
}

int report_table(const char *dir, struct str *out, struct err *e)
{
    enum { NAME = 19, CELL = 16 };
    const json_t *rows, *row;
    struct run r;
    char buf[64];
    size_t i;
    int rc = load(&r, dir, e);

    if (rc)
        return rc;
    rows = json_object_get(r.summary, "comparison");
    if (json_array_size(rows) > 0) {
        pad(out, "test split", NAME, 0);
        for (size_t c = 0; c < COLUMNS; c++)
            if (shown(&r, &columns[c]))
                pad(out, columns[c].head, CELL, 1);
        str_add_char(out, '\n');
    }
    json_array_foreach(rows, i, row)
    {
        pad(out, string(row, "name"), NAME, 0);
        for (size_t c = 0; c < COLUMNS; c++) {
            if (!shown(&r, &columns[c]))
                continue;
            cell(buf, sizeof buf, &columns[c],
                 member(json_object_get(row, "metrics"), columns[c].key),
                 member(json_object_get(row, "se"), columns[c].key), 0);
            pad(out, buf, CELL, 1);
        }
        str_add_char(out, '\n');
        if (!json_object_get(row, "difference"))
            continue;
        pad(out, "  against the first", NAME, 0);
        for (size_t c = 0; c < COLUMNS; c++) {
            if (!shown(&r, &columns[c]))
                continue;
            cell(buf, sizeof buf, &columns[c],
                 member(json_object_get(row, "difference"), columns[c].key),
                 member(json_object_get(row, "difference_se"), columns[c].key), 1);
            pad(out, buf, CELL, 1);
        }
        str_add_char(out, '\n');
    }
    close_run(&r);
    if (str_failed(out))
        return err_set(e, ERR_NOMEM, "results table: out of memory");
    return 0;
}

static void page_head(const struct run *r, struct str *out)
{
    char buf[64];

    str_add(
        out,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">"
        "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>");
    str_add_html(out, string(r->summary, "name"));
    str_add(
        out,
        " – Hone</title><style>"
        ":root{--fg:#1c2430;--dim:#64707f;--line:#dfe4ea;--bg:#fff;--card:#f7f9fb;"
        "--c0:#2f6fb3;--c1:#d1662b;--c2:#3b8f5a;--c3:#8b5fb0;--c4:#b2364b;--c5:#7a7a32}"
        "*{box-sizing:border-box}body{font:15px/1.5 system-ui,sans-serif;color:var(--fg);"
        "background:var(--bg);max-width:1180px;margin:0 auto;padding:28px 20px 60px}"
        "h1{font-size:26px;margin:0}h2{font-size:18px;margin:38px 0 10px;padding-top:14px;"
        "border-top:1px solid var(--line)}p{margin:6px 0}.dim{color:var(--dim)}"
        "table{border-collapse:collapse;font-variant-numeric:tabular-nums;margin:10px 0}"
        "th,td{padding:5px 12px;text-align:right;border-bottom:1px solid var(--line)}"
        "th:first-child,td:first-child{text-align:left}th{font-weight:600;color:var(--dim)}"
        "tr.diff td{color:var(--dim);font-size:13px;padding-top:0}tr.main "
        "td{border-bottom:0;"
        "padding-bottom:0}td.good{color:#2b7a4b!important}td.bad{color:#b2364b!important}"
        ".grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(350px,1fr));"
        "gap:16px}.card{background:var(--card);border:1px solid var(--line);"
        "border-radius:8px;padding:10px}svg{width:100%;height:auto;display:block}"
        "svg text{font:12px system-ui,sans-serif;fill:var(--dim)}svg text.t{font-size:14px;"
        "font-weight:600;fill:var(--fg)}svg text.num{fill:var(--fg)}svg text.inv{fill:#fff}"
        ".g{stroke:var(--line);fill:none}.l{fill:none;stroke-width:1.8}.faint{opacity:.28;"
        "stroke-width:1}.diagonal{stroke:var(--dim);stroke-dasharray:5 4;stroke-width:1.2}"
        ".h{fill:#1c2430;opacity:.22}.c{fill:var(--c0)}pre{background:var(--card);"
        "border:1px solid var(--line);border-radius:8px;padding:12px;overflow:auto;"
        "font-size:13px}");
    for (int i = 0; i < 6; i++)
        str_addf(out, ".l.s%d{stroke:var(--c%d)}.d.s%d,.b.s%d{fill:var(--c%d)}", i, i, i, i,
                 i);
    str_add(out, ".b{opacity:.82}</style></head><body><h1>");
    str_add_html(out, string(r->summary, "name"));
    str_add(out, "</h1><p class=\"dim\">");
    str_add_html(out, string(r->summary, "state"));
    if (r->seeds > 1)
        str_addf(out, ", %ld of %ld seeds", r->n_done, r->seeds);
    str_addf(out, " in %s", str_duration(buf, sizeof buf, member(r->summary, "seconds")));
    if (*string(r->summary, "started")) {
        str_add(out, ", started ");
        str_add_html(out, string(r->summary, "started"));
    }
    str_add(out, " · base model ");
    str_add_html(out, string(r->summary, "model"));
    str_add(out, "</p>");
}

static void results(const struct run *r, struct str *out)
{
    const json_t *rows = json_object_get(r->summary, "comparison"), *row;
    char buf[64];
    size_t i;

    if (!json_array_size(rows))
        return;
    section(out, "What each stage changed");
    str_add(out, "<table><tr><th>test split</th>");
    for (size_t c = 0; c < COLUMNS; c++)
        if (shown(r, &columns[c]))
            str_addf(out, "<th>%s %s</th>", columns[c].head,
                     columns[c].lower_is_better ? "↓" : "↑");
    str_add(out, "</tr>");
    json_array_foreach(rows, i, row)
    {
        const json_t *diff = json_object_get(row, "difference");

        str_addf(out, "<tr%s><td>", diff ? " class=\"main\"" : "");
        str_add_html(out, string(row, "name"));
        str_add(out, "</td>");
        for (size_t c = 0; c < COLUMNS; c++) {
            if (!shown(r, &columns[c]))
                continue;
            cell(buf, sizeof buf, &columns[c],
                 member(json_object_get(row, "metrics"), columns[c].key),
                 member(json_object_get(row, "se"), columns[c].key), 0);
            str_addf(out, "<td>%s</td>", buf);
        }
        str_add(out, "</tr>");
        if (!diff)
            continue;
        str_add(out, "<tr class=\"diff\"><td>against the first row</td>");
        for (size_t c = 0; c < COLUMNS; c++) {
            double d = member(diff, columns[c].key);
            double se = member(json_object_get(row, "difference_se"), columns[c].key);
            double better = columns[c].lower_is_better ? -d : d;

            if (!shown(r, &columns[c]))
                continue;
            cell(buf, sizeof buf, &columns[c], d, se, 1);
            str_addf(out, "<td%s>%s</td>",
                     !(fabs(d) > 2 * se) ? ""
                     : better > 0        ? " class=\"good\""
                                         : " class=\"bad\"",
                     buf);
        }
        str_add(out, "</tr>");
    }
    str_add(out, "</table><p class=\"dim\">± is one standard error");
    if (r->seeds > 1)
        str_addf(out, " of the mean over %ld seeds; differences are paired by seed",
                 r->n_done);
    else
        str_add(out, ": bootstrap over the test rows, 1,000 resamples, paired for "
                     "differences");
    str_add(out, ". Coloured: more than two standard errors from zero.</p>");
}

static size_t numbers(const json_t *array, double *out, size_t most)
{
    size_t n = json_array_size(array);

    n = n < most ? n : most;
    for (size_t i = 0; i < n; i++)
        out[i] = json_number_value(json_array_get(array, i));
    return n;
}

static void calibration(const struct run *r, struct str *out)
{
    enum { BINS = 100 };
    const json_t *rows = json_object_get(r->summary, "comparison"), *row;
    double accuracy[BINS], confidence[BINS], count[BINS];
    size_t i, found = 0;

    json_array_foreach(rows, i, row)
    {
        const json_t *bins = json_object_get(row, "reliability"), *bin;
        char title[160];
        size_t b;

        if (!json_array_size(bins) || json_array_size(bins) > BINS)
            continue;
        if (!found++) {
            section(out, "Calibration");
            str_add(out, "<p class=\"dim\">Bars: accuracy of the rows in each confidence "
                         "bin; dots: their mean confidence; grey: how many rows. On the "
                         "diagonal, confidence can be believed.</p><div class=\"grid\">");
        }
        json_array_foreach(bins, b, bin)
        {
            accuracy[b] = member(bin, "accuracy");
            confidence[b] = member(bin, "confidence");
            count[b] = member(bin, "n");
        }
        snprintf(title, sizeof title, "%s: ECE %.1f %%", string(row, "name"),
                 100 * member(json_object_get(row, "metrics"), "ece"));
        str_add(out, "<div class=\"card\">");
        svg_reliability(out, title, accuracy, confidence, count, json_array_size(bins));
        str_add(out, "</div>");
    }
    if (found)
        str_add(out, "</div>");
}

/* A temperature changes no prediction: its row repeats the one above. */
static int same_as_before(const json_t *rows, size_t i)
{
    return i > 0 && json_equal(json_object_get(json_array_get(rows, i), "confusion"),
                               json_object_get(json_array_get(rows, i - 1), "confusion"));
}

static int confusion(const struct run *r, struct str *out)
{
    const json_t *rows = json_object_get(r->summary, "comparison"), *row;
    double *count = mem_array(r->K * r->K + 1, sizeof *count);
    size_t i;

    if (!count)
        return -1;
    json_array_foreach(rows, i, row)
    {
        const json_t *matrix = json_object_get(row, "confusion");

        if (json_array_size(matrix) != r->K || !r->K || same_as_before(rows, i))
            continue;
        for (size_t y = 0; y < r->K; y++)
            numbers(json_array_get(matrix, y), count + y * r->K, r->K);
        str_add(out, "<div class=\"card\">");
        svg_confusion(out, string(row, "name"), count, r->label, r->K);
        str_add(out, "</div>");
    }
    mem_free(count);
    return 0;
}

/* Gold labels of the test split beside what each row of the comparison predicts. */
static int predictions(const struct run *r, struct str *out)
{
    enum { ROWS = 7 };
    const json_t *rows = json_object_get(r->summary, "comparison"), *row;
    const char *name[ROWS + 1] = {"gold"};
    double *value = mem_array((ROWS + 1) * (r->K + 1), sizeof *value);
    size_t i, n = 1;
    int rc = 0;

    if (!value)
        return -1;
    json_array_foreach(rows, i, row)
    {
        const json_t *matrix = json_object_get(row, "confusion");

        if (json_array_size(matrix) != r->K || !r->K || n > ROWS || same_as_before(rows, i))
            continue;
        for (size_t y = 0; y < r->K; y++)
            for (size_t p = 0; p < r->K; p++) {
                double c = json_number_value(json_array_get(json_array_get(matrix, y), p));

                if (n == 1)
                    value[y] += c;
                value[n * r->K + p] += c;
            }
        name[n++] = string(row, "name");
    }
    if (n > 1) {
        section(out, "Predictions on the test split");
        str_add(out, "<div class=\"grid\"><div class=\"card\">");
        svg_bars(out, "rows per label: gold and predicted", r->label, r->K, name, value, n);
        str_add(out, "</div>");
        if (confusion(r, out))
            rc = -1;
        str_add(out, "</div>");
    }
    mem_free(value);
    return rc;
}

static int settings(const struct run *r, struct str *out, struct err *e)
{
    char path[FILE_PATH_MAX], *text;
    size_t n;
    int rc = file_join(path, sizeof path, r->dir, "job.resolved.yaml", e);

    section(out, "Use the result");
    str_add(out, "<pre>hone predict --model ");
    str_add_html(out, r->dir);
    if (r->seeds > 1)
        str_addf(out, "/seed-%ld", report_seed(r, 0));
    str_add_char(out, '/');
    str_add_html(out, *string(r->summary, "output") ? string(r->summary, "output")
                                                    : "sft/final");
    str_add(out, "</pre>");
    if (*string(r->summary, "snippet")) {
        str_add(out, "<p>In Python, without Hone:</p><pre>");
        str_add_html(out, string(r->summary, "snippet"));
        str_add(out, "</pre>");
    }
    if (rc || !file_exists(path))
        return rc;
    if ((rc = file_read(path, 4 << 20, &text, &n, e)))
        return rc;
    section(out, "Settings");
    str_add(out, "<details><summary>job.resolved.yaml</summary><pre>");
    str_add_html(out, text);
    str_add(out, "</pre></details>");
    mem_free(text);
    return 0;
}

int report_write(const char *dir, char *path, size_t n, struct err *e)
{
    struct str page = {0};
    struct run r;
    int rc = load(&r, dir, e);

    if (rc)
        return rc;
    page_head(&r, &page);
    results(&r, &page);
    calibration(&r, &page);
    if (predictions(&r, &page)) {
        rc = err_set(e, ERR_NOMEM, "report on %s: out of memory", dir);
        goto out;
    }
    if ((rc = report_stages(&r, &page, e)) || (rc = settings(&r, &page, e)))
        goto out;
    str_add(&page, "<p class=\"dim\">Made by hone " HONE_VERSION ".</p></body></html>\n");
    if (str_failed(&page)) {
        rc = err_set(e, ERR_NOMEM, "report on %s: out of memory", dir);
        goto out;
    }
    if (!(rc = file_join(path, n, dir, "report.html", e)))
        rc = file_write_atomic(path, page.s, page.len, e);
out:
    str_fini(&page);
    close_run(&r);
    return rc;
}
