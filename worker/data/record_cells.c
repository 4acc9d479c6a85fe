/* TSV and CSV records; see record.h.
 *
 * TSV has no quoting: a double quote is a double quote. CSV follows RFC 4180: cells in
 * double quotes may hold commas, line ends and doubled quotes; a quote anywhere else is an
 * error. Every record has as many cells as the first. */
#include <stdio.h>
#include <string.h>

#include "worker/data/record_internal.h"

static int too_many(struct reader *r)
{
    return record_bad(r, NULL, "more than %d columns", RECORD_COLUMNS_MAX);
}

static int split_tabs(struct reader *r, size_t *count)
{
    const char *s, *tab;
    size_t n, k = 0;
    int rc;

    do
        if (!record_line(r, &s, &n))
            return RECORD_END;
    while (!n);
    rc = record_check(r, s, n);
    if (rc != RECORD_OK)
        return rc;
    do {
        size_t len;

        if (k == RECORD_COLUMNS_MAX)
            return too_many(r);
        tab = memchr(s, '\t', n);
        len = tab ? (size_t)(tab - s) : n;
        r->cell[k++] = (struct field){VALUE_TEXT, s, len};
        s += len + (tab != NULL);
        n -= len + (tab != NULL);
    } while (tab);
    *count = k;
    return RECORD_OK;
}

/* Is the reader at the end of a record? Eats the line end. */
static int at_end(struct reader *r)
{
    size_t i = r->i;

    if (i < r->n && r->s[i] == '\r' && i + 1 < r->n && r->s[i + 1] == '\n')
        i++;
    if (i < r->n && r->s[i] != '\n')
        return 0;
    r->i = i < r->n ? i + 1 : i;
    r->line++;
    return 1;
}

/* A bad record: go on at the next line. */
static int skip_line(struct reader *r)
{
    const char *end = memchr(r->s + r->i, '\n', r->n - r->i);

    r->i = end ? (size_t)(end - r->s) + 1 : r->n;
    r->line++;
    return RECORD_BAD;
}

/* The inside of a quoted cell, its quotes undone, appended to `work`. */
static int quoted_cell(struct reader *r, size_t begin)
{
    for (r->i++;; r->i++) {
        const char *quote = memchr(r->s + r->i, '"', r->n - r->i);
        size_t len = quote ? (size_t)(quote - r->s) - r->i : r->n - r->i;

        if (!quote || r->i + len - begin > RECORD_LINE_MAX) {
            record_bad(r, "close the quote, or double the quotes within the cell",
                       quote ? "longer than %d MiB" : "a quoted cell does not end",
                       RECORD_LINE_MAX >> 20);
            r->i = begin;
            return RECORD_BAD;
        }
        for (size_t k = 0; k < len; k++)
            r->line += r->s[r->i + k] == '\n';
        str_add_bytes(&r->work, r->s + r->i, len);
        r->i += len + 1;
        if (r->i >= r->n || r->s[r->i] != '"')
            return RECORD_OK;
        str_add_char(&r->work, '"');
    }
}

static int plain_cell(struct reader *r)
{
    size_t from = r->i;

    while (r->i < r->n && r->s[r->i] != ',' && r->s[r->i] != '\n' && r->s[r->i] != '"' &&
           !(r->s[r->i] == '\r' && r->i + 1 < r->n && r->s[r->i + 1] == '\n'))
        r->i++;
    if (r->i < r->n && r->s[r->i] == '"')
        return record_bad(r, "put the cell in double quotes and double those within",
                          "a double quote within a cell that is not quoted");
    str_add_bytes(&r->work, r->s + from, r->i - from);
    return RECORD_OK;
}

/* Cells go into `work` one after another; their places are offsets until all are there. */
static int split_commas(struct reader *r, size_t *count, struct err *e)
{
    size_t begin, k = 0, at = 0;
    int rc = RECORD_OK;

    while (r->i < r->n && at_end(r)) /* empty lines */
        ;
    if (r->i >= r->n)
        return RECORD_END;
    begin = r->i;
    r->row = r->line;
    str_clear(&r->work);
    for (;;) {
        if (k == RECORD_COLUMNS_MAX) {
            too_many(r);
            return skip_line(r);
        }
        rc = r->i < r->n && r->s[r->i] == '"' ? quoted_cell(r, begin) : plain_cell(r);
        if (rc != RECORD_OK) {
            r->line = r->row;
            return skip_line(r);
        }
        r->cell[k++] = (struct field){VALUE_TEXT, NULL, r->work.len - at};
        at = r->work.len;
        if (r->i < r->n && r->s[r->i] == ',') {
            r->i++;
            continue;
        }
        if (at_end(r))
            break;
        record_bad(r, NULL, "text behind a closing quote");
        return skip_line(r);
    }
    if (str_failed(&r->work))
        return err_set(e, ERR_NOMEM, "%s: out of memory", r->name);
    at = 0;
    for (size_t i = 0; i < k; i++) {
        r->cell[i].s = str_get(&r->work) + at;
        at += r->cell[i].n;
    }
    *count = k;
    return record_check(r, r->s + begin, r->i - begin);
}

static int next_cells(struct reader *r, size_t *count, struct err *e)
{
    return r->kind == DATA_TSV ? split_tabs(r, count) : split_commas(r, count, e);
}

int record_next_cells(struct reader *r, struct err *e)
{
    size_t count = 0;
    int rc = next_cells(r, &count, e);

    if (rc != RECORD_OK)
        return rc;
    if (r->columns && count != r->columns)
        return record_bad(r, NULL, "%zu columns, but the first row has %zu", count,
                          r->columns);
    for (int k = 0; k < FIELDS; k++)
        r->field[k] = r->index[k] >= 0 && (size_t)r->index[k] < count
                          ? r->cell[r->index[k]]
                          : (struct field){VALUE_ABSENT, "", 0};
    return RECORD_OK;
}

/* The header's cell with this name, or -1. */
static long find(const struct reader *r, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (r->cell[i].n == strlen(name) && !memcmp(r->cell[i].s, name, r->cell[i].n))
            return (long)i;
    return -1;
}

static int no_column(const struct reader *r, size_t n, const char *name, struct err *e)
{
    struct str have = {0};
    int rc;

    for (size_t i = 0; i < n && i < 20; i++)
        str_addf(&have, "%s\"%.*s\"", i ? ", " : "",
                 (int)(r->cell[i].n < 60 ? r->cell[i].n : 60), r->cell[i].s);
    err_set(e, ERR_CONFIG, "%s: there is no column \"%.60s\"", r->name, name);
    rc = err_mend(e, "the header has %.250s", str_get(&have));
    str_fini(&have);
    return rc;
}

static int from_header(struct reader *r, const struct data_spec *spec, struct err *e)
{
    const char *label = spec->label_column ? spec->label_column : "label";
    size_t n = 0;
    int rc = next_cells(r, &n, e);

    if (rc < 0)
        return rc;
    if (rc == RECORD_BAD) {
        err_set(e, ERR_CONFIG, "%s: row %ld: %s", r->name, r->row, r->what);
        return err_mend(e, "%s", r->mend);
    }
    r->columns = n;
    for (int k = 0; k < 2 && spec->text[k]; k++) {
        r->index[k] = find(r, n, spec->text[k]);
        if (r->index[k] < 0)
            return no_column(r, n, spec->text[k], e);
    }
    for (int k = 0; k < RECORD_NAMES && r->index[FIELD_TEXT] < 0; k++) {
        r->index[FIELD_TEXT] = find(r, n, record_names[k][0]);
        if (r->index[FIELD_TEXT] >= 0 && record_names[k][1]) {
            r->index[FIELD_SECOND] = find(r, n, record_names[k][1]);
            if (r->index[FIELD_SECOND] < 0)
                return no_column(r, n, record_names[k][1], e);
        }
    }
    if (r->index[FIELD_TEXT] < 0)
        return no_column(r, n, "text", e);
    r->index[FIELD_LABEL] = find(r, n, label);
    if (r->index[FIELD_LABEL] < 0 && r->want_label)
        return no_column(r, n, label, e);
    return 0;
}

static int by_number(struct reader *r, int k, const char *text, struct err *e)
{
    long x;

    if (!text)
        return 0;
    if (str_to_long(text, &x) || x < 1 || x > RECORD_COLUMNS_MAX) {
        err_set(e, ERR_CONFIG, "%s: column \"%.60s\" is no number within 1 and %d", r->name,
                text, RECORD_COLUMNS_MAX);
        return err_mend(e, "files without a header have numbered columns; with one, set "
                           "data.format.header: true");
    }
    r->index[k] = x - 1;
    return 0;
}

/* The first record says how many columns there are. */
static int from_numbers(struct reader *r, const struct data_spec *spec, struct err *e)
{
    size_t i = r->i;
    long line = r->line;
    int rc = by_number(r, FIELD_TEXT, spec->text[0], e);

    if (!rc)
        rc = by_number(r, FIELD_SECOND, spec->text[1], e);
    if (!rc)
        rc = by_number(r, FIELD_LABEL, spec->label_column, e);
    if (rc)
        return rc;
    if (r->index[FIELD_TEXT] < 0 || (r->want_label && r->index[FIELD_LABEL] < 0)) {
        err_set(e, ERR_CONFIG, "%s has no header: which column is the %s?", r->name,
                r->index[FIELD_TEXT] < 0 ? "text" : "label");
        return err_mend(e, "data.columns: {text: 1, label: 2}");
    }
    do
        rc = next_cells(r, &r->columns, e);
    while (rc == RECORD_BAD);
    r->i = i;
    r->line = line;
    if (rc < 0)
        return rc;
    for (int k = 0; k < FIELDS && rc == RECORD_OK; k++)
        if (r->index[k] >= (long)r->columns)
            return err_set(e, ERR_CONFIG, "%s: column %ld: row %ld has %zu columns",
                           r->name, r->index[k] + 1, r->row, r->columns);
    return 0;
}

int record_open_cells(struct reader *r, const struct data_spec *spec, struct err *e)
{
    return r->header ? from_header(r, spec, e) : from_numbers(r, spec, e);
}
