/* See series.h. */
#include "launcher/series.h"

#include <math.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"

enum { FILE_LIMIT = 1 << 30 };

static int add(struct series_file *f, json_t *line)
{
    const json_t *split = json_object_get(line, "split");
    const char *name = json_is_string(split) ? json_string_value(split) : "";
    struct series_point *p;

    if (!json_is_number(json_object_get(line, "step")) || !strcmp(name, "test"))
        return 1;
    if (f->n == f->cap) {
        p = mem_resize(f->point, f->cap ? 2 * f->cap : 256, sizeof *p);
        if (!p)
            return -1;
        f->point = p;
        f->cap = f->cap ? 2 * f->cap : 256;
    }
    p = &f->point[f->n++];
    p->step = json_number_value(json_object_get(line, "step"));
    p->validation = !strcmp(name, "validation");
    p->values = line;
    return 0;
}

int series_read(struct series_file *f, const char *path, struct err *e)
{
    char *text, *line, *end;
    size_t len;
    int rc = file_read(path, FILE_LIMIT, &text, &len, e);

    if (rc)
        return rc;
    for (line = text; line < text + len && rc >= 0; line = end + 1) {
        struct err ignored;
        json_t *v = NULL;

        end = memchr(line, '\n', (size_t)(text + len - line));
        if (!end)
            end = text + len;
        rc = 0;
        if (json_parse(path, line, (size_t)(end - line), &v, &ignored) ||
            !json_is_object(v) || (rc = add(f, v)))
            json_decref(v);
    }
    mem_free(text);
    if (rc < 0) {
        series_fini(f);
        return err_set(e, ERR_NOMEM, "read %s: out of memory", path);
    }
    return 0;
}

void series_fini(struct series_file *f)
{
    for (size_t i = 0; i < f->n; i++)
        json_decref(f->point[i].values);
    mem_free(f->point);
    arena_fini(&f->arena);
    memset(f, 0, sizeof *f);
}

static size_t collect(struct series_file *f, const char *key, int validation, double *x,
                      double *y)
{
    size_t n = 0;

    for (size_t i = 0; i < f->n; i++) {
        const json_t *v = json_object_get(f->point[i].values, key);

        if (f->point[i].validation != validation || !json_is_number(v))
            continue;
        x[n] = f->point[i].step;
        y[n++] = json_number_value(v);
    }
    return n;
}

static void smooth(const double *y, size_t n, double *out)
{
    size_t window = 1 + n / 40;

    for (size_t i = 0; i < n; i++) {
        size_t from = i > window ? i - window : 0, to = i + window < n ? i + window : n - 1;
        double sum = 0;

        for (size_t j = from; j <= to; j++)
            sum += y[j];
        out[i] = sum / (double)(to - from + 1);
    }
}

size_t series_lines(struct series_file *f, const char *const *key, size_t n,
                    struct svg_series *out, size_t most)
{
    size_t made = 0;
    int color = 0;

    for (size_t k = 0; k < n && key[k]; k++) {
        for (int validation = 0; validation < 2; validation++) {
            double *x = arena_array(&f->arena, f->n + 1, sizeof *x);
            double *y = arena_array(&f->arena, f->n + 1, sizeof *y);
            double *mean = arena_array(&f->arena, f->n + 1, sizeof *mean);
            size_t points = x && y && mean ? collect(f, key[k], validation, x, y) : 0;
            char *name;

            if (!points || made + 2 > most)
                continue;
            name = arena_printf(&f->arena, "%s%s", validation ? "val. " : "", key[k]);
            if (!name)
                continue;
            if (!validation) {
                smooth(y, points, mean);
                out[made++] = (struct svg_series){name, x, y, points, 0, 1, color};
                y = mean;
            }
            out[made++] = (struct svg_series){name, x, y, points, validation, 0, color++};
        }
    }
    return made;
}
