/* Lines and JSONL, and what all kinds share; see record.h. Cells are in record_cells.c. */
#include "worker/data/record.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "worker/data/inflate.h"
#include "worker/data/record_internal.h"

static const char bom[] = "\xef\xbb\xbf";

int record_kind(const char *path)
{
    static const struct {
        const char *suffix;
        int kind;
    } kinds[] = {{".jsonl", DATA_JSONL},
                 {".ndjson", DATA_JSONL},
                 {".json", DATA_JSONL},
                 {".tsv", DATA_TSV},
                 {".csv", DATA_CSV}};
    size_t stem = inflate_stem(path);

    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        size_t n = strlen(kinds[i].suffix);

        if (stem >= n && !memcmp(path + stem - n, kinds[i].suffix, n))
            return kinds[i].kind;
    }
    return DATA_AUTO;
}

int record_bad(struct reader *r, const char *mend, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(r->what, sizeof r->what, fmt, ap);
    va_end(ap);
    snprintf(r->mend, sizeof r->mend, "%s", mend ? mend : "");
    return RECORD_BAD;
}

int record_check(struct reader *r, const char *s, size_t n)
{
    size_t valid;

    if (n > RECORD_LINE_MAX)
        return record_bad(r, NULL, "longer than %d MiB", RECORD_LINE_MAX >> 20);
    valid = str_utf8_valid(s, n);
    if (valid < n)
        return record_bad(r, "save the file as UTF-8", "not UTF-8 (byte %zu of the row)",
                          valid + 1);
    if (memchr(s, 0, n))
        return record_bad(r, NULL, "holds a NUL");
    return RECORD_OK;
}

int record_line(struct reader *r, const char **s, size_t *n)
{
    const char *end;

    if (r->i >= r->n)
        return 0;
    *s = r->s + r->i;
    end = memchr(*s, '\n', r->n - r->i);
    *n = end ? (size_t)(end - *s) : r->n - r->i;
    r->i += *n + (end != NULL);
    r->row = r->line++;
    if (*n && (*s)[*n - 1] == '\r')
        --*n;
    return 1;
}

static int is_blank(const char *s, size_t n)
{
    while (n && (*s == ' ' || *s == '\t' || *s == '\r')) {
        s++;
        n--;
    }
    return !n;
}

/* ---- JSONL --------------------------------------------------------------------------- */

static void set_field(struct reader *r, int which, const json_t *v)
{
    struct field *f = &r->field[which];

    *f = (struct field){VALUE_ABSENT, "", 0};
    if (!v || json_is_null(v))
        return;
    f->kind = VALUE_OTHER;
    if (json_is_string(v)) {
        *f = (struct field){VALUE_TEXT, json_string_value(v), json_string_length(v)};
    } else if (json_is_number(v)) {
        if (json_is_integer(v))
            snprintf(r->number, sizeof r->number, "%lld", (long long)json_integer_value(v));
        else
            snprintf(r->number, sizeof r->number, "%.17g", json_real_value(v));
        *f = (struct field){VALUE_NUMBER, r->number, strlen(r->number)};
    }
}

static int check_texts(struct reader *r)
{
    for (int k = 0; k < FIELDS; k++) {
        if (!r->column[k])
            continue;
        if (r->field[k].kind == VALUE_ABSENT && (k != FIELD_LABEL || r->want_label))
            return record_bad(r, NULL, "\"%s\" is missing", r->column[k]);
        if (k != FIELD_LABEL && r->field[k].kind != VALUE_TEXT)
            return record_bad(r, NULL, "\"%s\" must be a string", r->column[k]);
    }
    return RECORD_OK;
}

/* jansson's complaint, without the place it names: ours is the row. */
static int bad_json(struct reader *r, const struct err *e)
{
    const char *what = strstr(e->msg, ": ");

    return record_bad(r, "every line must be one JSON object", "%s",
                      what ? what + 2 : e->msg);
}

/* A line that was checked. */
static int parse_object(struct reader *r, const char *s, size_t n, struct err *e)
{
    int rc;

    json_decref(r->object);
    r->object = NULL;
    rc = json_parse("", s, n, &r->object, e);
    if (rc == ERR_NOMEM)
        return rc;
    if (rc)
        return bad_json(r, e);
    if (!json_is_object(r->object))
        return record_bad(r, "every line must be one JSON object", "no JSON object");
    return RECORD_OK;
}

static int next_json(struct reader *r, struct err *e)
{
    const char *s;
    size_t n;
    int rc;

    do
        if (!record_line(r, &s, &n))
            return RECORD_END;
    while (is_blank(s, n));
    rc = record_check(r, s, n);
    if (rc != RECORD_OK)
        return rc;
    if (!r->careful && record_flat_json(r, s, n))
        return check_texts(r);
    rc = parse_object(r, s, n, e);
    if (rc != RECORD_OK)
        return rc;
    for (int k = 0; k < FIELDS; k++)
        set_field(r, k, r->column[k] ? json_object_get(r->object, r->column[k]) : NULL);
    return check_texts(r);
}

const char *const record_names[RECORD_NAMES][2] = {
    {"text", NULL}, {"sentence", NULL}, {"text1", "text2"}, {"sentence1", "sentence2"}};

/* The first object that parses decides which keys hold the texts. */
static int open_json(struct reader *r, const struct data_spec *spec, struct err *e)
{
    size_t i = r->i;
    long line = r->line;
    const char *s;
    size_t n;
    int rc = RECORD_BAD;

    r->column[FIELD_TEXT] = spec->text[0];
    r->column[FIELD_SECOND] = spec->text[1];
    r->column[FIELD_LABEL] = spec->label_column ? spec->label_column : "label";
    while (!r->column[FIELD_TEXT] && rc == RECORD_BAD && record_line(r, &s, &n)) {
        rc = is_blank(s, n) ? RECORD_BAD : record_check(r, s, n);
        if (rc == RECORD_OK)
            rc = parse_object(r, s, n, e);
        for (int k = 0; rc == RECORD_OK && k < RECORD_NAMES; k++)
            if (json_object_get(r->object, record_names[k][0])) {
                r->column[FIELD_TEXT] = record_names[k][0];
                r->column[FIELD_SECOND] = record_names[k][1];
                break;
            }
    }
    if (rc == ERR_NOMEM)
        return rc;
    if (!r->column[FIELD_TEXT])
        r->column[FIELD_TEXT] = record_names[0][0];
    r->i = i;
    r->line = line;
    return 0;
}

/* ---- all kinds ----------------------------------------------------------------------- */

int record_open(struct reader *r, const struct data_spec *spec, const char *name, int kind,
                const char *bytes, size_t n, int want_label, struct err *e)
{
    memset(r, 0, offsetof(struct reader, cell));
    r->name = name;
    r->s = bytes;
    r->n = n;
    r->line = 1;
    r->kind = kind;
    r->header = spec->header;
    r->want_label = want_label;
    for (int k = 0; k < FIELDS; k++)
        r->index[k] = -1;
    if (n >= 3 && !memcmp(bytes, bom, 3))
        r->i = 3;
    return kind == DATA_JSONL ? open_json(r, spec, e) : record_open_cells(r, spec, e);
}

int record_next(struct reader *r, struct err *e)
{
    return r->kind == DATA_JSONL ? next_json(r, e) : record_next_cells(r, e);
}

void record_close(struct reader *r)
{
    json_decref(r->object);
    r->object = NULL;
    str_fini(&r->work);
}
