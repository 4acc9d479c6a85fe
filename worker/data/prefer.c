/* Preference lists; see prefer.h. A matrix file is JSON (a list of K lists of K numbers) or
 * K lines of K numbers apart by blanks or commas; distances are finite and not negative. */
#include "worker/data/prefer.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/str.h"

enum { MATRIX_LIMIT = 64 << 20 };

/* Does candidate a come before b when the gold label is y? */
static int before(const double *distance, int K, enum prefer_ties ties, int y, int a, int b)
{
    double da = distance ? distance[y * K + a] : abs(a - y);
    double db = distance ? distance[y * K + b] : abs(b - y);

    if (a == y || b == y)
        return a == y;
    if (da != db)
        return da < db;
    return ties == TIES_HIGH ? a > b : a < b;
}

void prefer_order(int K, const double *distance, enum prefer_ties ties, int *order)
{
    for (int y = 0; y < K; y++) {
        int *list = order + (size_t)y * (size_t)K;

        for (int i = 0; i < K; i++) {
            int at = i;

            for (; at > 0 && before(distance, K, ties, y, i, list[at - 1]); at--)
                list[at] = list[at - 1];
            list[at] = i;
        }
    }
}

static int check_distance(const char *path, int y, int i, double x, struct err *e)
{
    if (isfinite(x) && x >= 0)
        return 0;
    return err_set(e, ERR_CONFIG, "%s: row %d, column %d: %g is no distance", path, y + 1,
                   i + 1, x);
}

static int read_json(const char *path, int K, const char *text, size_t len,
                     double *distance, struct err *e)
{
    json_t *matrix = NULL;
    int r = json_parse(path, text, len, &matrix, e);

    if (!r && json_array_size(matrix) != (size_t)K)
        r = err_set(e, ERR_CONFIG, "%s: %zu rows, but the task has %d labels", path,
                    json_array_size(matrix), K);
    for (int y = 0; !r && y < K; y++) {
        const json_t *row = json_array_get(matrix, (size_t)y);

        if (json_array_size(row) != (size_t)K)
            r = err_set(e, ERR_CONFIG, "%s: row %d: want a list of %d numbers", path, y + 1,
                        K);
        for (int i = 0; !r && i < K; i++) {
            const json_t *x = json_array_get(row, (size_t)i);

            distance[y * K + i] = json_is_number(x) ? json_number_value(x) : NAN;
            r = check_distance(path, y, i, distance[y * K + i], e);
        }
    }
    json_decref(matrix);
    return r;
}

static int read_rows(const char *path, int K, char *text, double *distance, struct err *e)
{
    char *line, *lines = text;
    int y = 0, r;

    while ((line = strsep(&lines, "\n"))) {
        char *word, *words = line;
        int i = 0;

        while ((word = strsep(&words, " \t,\r"))) {
            if (!*word)
                continue;
            if (y >= K || i >= K)
                return err_set(e, ERR_CONFIG, "%s: more than %d rows of %d numbers", path,
                               K, K);
            if (str_to_double(word, &distance[y * K + i]))
                return err_set(e, ERR_CONFIG, "%s: row %d: \"%.40s\" is no number", path,
                               y + 1, word);
            if ((r = check_distance(path, y, i, distance[y * K + i], e)))
                return r;
            i++;
        }
        if (i && i != K)
            return err_set(e, ERR_CONFIG,
                           "%s: row %d: %d numbers, but the task has %d labels", path,
                           y + 1, i, K);
        y += i > 0;
    }
    if (y != K)
        return err_set(e, ERR_CONFIG, "%s: %d rows, but the task has %d labels", path, y,
                       K);
    return 0;
}

int prefer_read_matrix(const char *path, int K, double *distance, struct err *e)
{
    char *text, *p;
    size_t len;
    int r = file_read(path, MATRIX_LIMIT, &text, &len, e);

    if (r)
        return err_wrap(e, "order matrix");
    for (p = text; isspace((unsigned char)*p); p++)
        ;
    r = *p == '[' ? read_json(path, K, text, len, distance, e)
                  : read_rows(path, K, text, distance, e);
    mem_free(text);
    return r ? err_wrap(e, "order matrix") : 0;
}

void prefer_cosine(int K, int D, const float *embedding, double *distance)
{
    for (int a = 0; a < K; a++) {
        for (int b = 0; b < K; b++) {
            double dot = 0, aa = 0, bb = 0;

            for (int i = 0; i < D; i++) {
                double x = embedding[(size_t)a * (size_t)D + (size_t)i];
                double y = embedding[(size_t)b * (size_t)D + (size_t)i];

                dot += x * y;
                aa += x * x;
                bb += y * y;
            }
            distance[a * K + b] = aa > 0 && bb > 0 ? 1 - dot / sqrt(aa * bb) : 1;
        }
    }
}
