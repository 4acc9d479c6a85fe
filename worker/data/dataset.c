/* Loading a split: files → records → cleaned, labelled rows → duplicates, split, order.
 *
 * Invariant: what a row is depends on the row alone (and, for duplicates, on rows with the
 * same key); its split depends on its key alone. So every split can be loaded by itself
 * and the three never overlap. Bad rows are collected, ROWS_MAX of them by name, and the
 * load then fails: nothing is trained on half a file. */
#include "worker/data/dataset.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "worker/data/inflate.h"
#include "worker/data/record.h"
#include "worker/data/text.h"

enum { BAD_ROWS_MAX = 20 };

/* A row as it is collected, with what only loading needs. */
struct entry {
    struct row row;
    unsigned char key[TEXT_KEY];
    size_t number; /* place in the files */
};

struct loader {
    struct dataset *d;
    const struct data_spec *spec;
    enum split split;
    const char *const *labels;
    size_t n_labels;
    struct problems *p;
    struct reader *reader;
    uint32_t file;
    struct entry *entry;
    size_t n, cap;
    size_t *slot; /* open addressing over keys: entry + 1; 0: empty */
    size_t n_slots;
    long bad_rows;
    int told; /* the failure is among the problems */
    struct str text[2], work;
};

/* ---- problems ------------------------------------------------------------------------ */

static void bad_row(struct loader *l, long row, const char *mend, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

static void bad_row(struct loader *l, long row, const char *mend, const char *fmt, ...)
{
    char where[FILE_PATH_MAX + 32], what[512];
    va_list ap;

    if (++l->bad_rows > BAD_ROWS_MAX)
        return;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    snprintf(where, sizeof where, "%s: row %ld", l->d->file[l->file], row);
    problems_add_at(l->p, where, mend, "%s", what);
}

static int no_memory(struct err *e)
{
    return err_set(e, ERR_NOMEM, "rows: out of memory");
}

/* ---- labels -------------------------------------------------------------------------- */

static void unknown_label(struct loader *l, long row, const struct field *f)
{
    char mend[160] = "";
    const char **names = mem_array(l->n_labels + 1, sizeof *names), *near;

    for (size_t i = 0; names && i < l->n_labels; i++)
        names[i] = l->labels[i];
    near = names && f->kind == VALUE_TEXT ? str_nearest(f->s, names) : NULL;
    if (near)
        snprintf(mend, sizeof mend, "did you mean \"%.100s\"?", near);
    else
        snprintf(mend, sizeof mend, "a name from task.labels, or a number from 0 to %zu",
                 l->n_labels - 1);
    bad_row(l, row, mend, "unknown label \"%.*s\"", (int)(f->n < 80 ? f->n : 80), f->s);
    mem_free(names);
}

static int bin_label(struct loader *l, long row, const char *text, int *label)
{
    double x;

    if (str_to_double(text, &x)) {
        bad_row(l, row, "data.label.bins want numbers", "label \"%.80s\" is no number",
                text);
        return -1;
    }
    *label = 0;
    for (size_t i = 0; i < l->spec->bins.n; i++)
        *label += x > l->spec->bins.number[i];
    return 0;
}

/* Text is a name first, then a number; a JSON number is an id. */
static int read_label(struct loader *l, long row, const struct field *f, int *label)
{
    char text[128];
    long id;

    *label = -1;
    if (f->kind == VALUE_ABSENT || f->kind == VALUE_OTHER || !f->n) {
        bad_row(l, row, NULL,
                f->kind == VALUE_OTHER ? "the label must be a name or a number"
                                       : "the label is missing");
        return -1;
    }
    snprintf(text, sizeof text, "%.*s", (int)(f->n < 127 ? f->n : 127), f->s);
    if (l->spec->bins.n)
        return bin_label(l, row, text, label);
    for (size_t i = 0; f->kind == VALUE_TEXT && i < l->n_labels; i++)
        if (strlen(l->labels[i]) == f->n && !memcmp(l->labels[i], f->s, f->n)) {
            *label = (int)i;
            return 0;
        }
    if (f->n >= sizeof text || str_to_long(text, &id)) {
        unknown_label(l, row, &(struct field){f->kind, text, strlen(text)});
        return -1;
    }
    if (id < 0 || (size_t)id >= l->n_labels) {
        bad_row(l, row, NULL,
                id < 0 ? "label %ld is below 0" : "label %ld is not below %zu", id,
                l->n_labels);
        return -1;
    }
    *label = (int)id;
    return 0;
}

/* ---- rows ---------------------------------------------------------------------------- */

static void clean_text(const struct data_spec *spec, const struct field *f,
                       struct str *work, struct str *out)
{
    const char *s = f->s;
    size_t n = f->n;

    str_clear(out);
    if (spec->clean_html) {
        str_clear(work);
        text_unescape(s, n, work);
        s = str_get(work);
        n = work->len;
    }
    if (spec->clean_space)
        text_squeeze(s, n, out);
    else
        str_add_bytes(out, s, n);
}

static enum split split_of(const struct data_spec *spec, const unsigned char *key)
{
    double u = text_share(key);

    if (u < spec->validation_share)
        return SPLIT_VALIDATION;
    return u < spec->validation_share + spec->test_share ? SPLIT_TEST : SPLIT_TRAIN;
}

static size_t slot_of(const struct loader *l, const unsigned char *key)
{
    uint64_t h;
    size_t at;

    memcpy(&h, key, sizeof h);
    for (at = (size_t)h & (l->n_slots - 1); l->slot[at]; at = (at + 1) & (l->n_slots - 1))
        if (!memcmp(l->entry[l->slot[at] - 1].key, key, TEXT_KEY))
            break;
    return at;
}

static int grow(struct loader *l, struct err *e)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 1024;
        struct entry *p = mem_resize(l->entry, cap, sizeof *p);

        if (!p)
            return no_memory(e);
        l->entry = p;
        l->cap = cap;
    }
    if (2 * (l->n + 1) > l->n_slots) {
        mem_free(l->slot);
        l->n_slots = l->n_slots ? l->n_slots * 2 : 4096;
        l->slot = mem_array(l->n_slots, sizeof *l->slot);
        if (!l->slot)
            return no_memory(e);
        for (size_t i = 0; i < l->n; i++) {
            size_t at = slot_of(l, l->entry[i].key);

            if (!l->slot[at])
                l->slot[at] = i + 1;
        }
    }
    return 0;
}

/* What to do about a row whose key is there already: 1 = leave it out. */
static int is_duplicate(struct loader *l, const unsigned char *key, long row)
{
    size_t found = l->slot[slot_of(l, key)];
    const struct row *first;

    if (!found || l->spec->duplicates == DUPLICATES_KEEP)
        return 0;
    first = &l->entry[found - 1].row;
    if (l->spec->duplicates == DUPLICATES_FAIL)
        bad_row(l, row, "data.duplicates: drop", "the same text as %s: row %u",
                l->d->file[first->file], first->line);
    l->d->dropped_duplicates++;
    return 1;
}

static int store_row(struct loader *l, long row, int label, const unsigned char *key,
                     struct err *e)
{
    struct entry *x;
    size_t at;
    int rc = grow(l, e);

    if (rc)
        return rc;
    if (is_duplicate(l, key, row))
        return 0;
    at = slot_of(l, key);
    x = &l->entry[l->n];
    memset(x, 0, sizeof *x);
    for (int k = 0; k <= l->d->pairs; k++) {
        x->row.text[k] = arena_strndup(&l->d->arena, str_get(&l->text[k]), l->text[k].len);
        x->row.len[k] = l->text[k].len;
        if (!x->row.text[k])
            return no_memory(e);
    }
    x->row.label = label;
    x->row.file = l->file;
    x->row.line = (uint32_t)(row < UINT32_MAX ? row : UINT32_MAX);
    memcpy(x->row.key, key, sizeof x->row.key);
    memcpy(x->key, key, sizeof x->key);
    x->number = l->n++;
    if (!l->slot[at])
        l->slot[at] = l->n;
    return 0;
}

static int take_record(struct loader *l, struct err *e)
{
    const struct reader *r = l->reader;
    unsigned char key[TEXT_KEY];
    const char *text[2] = {NULL, NULL};
    size_t len[2] = {0, 0};
    int label = -1;

    for (int k = 0; k <= l->d->pairs; k++) {
        clean_text(l->spec, &r->field[k], &l->work, &l->text[k]);
        text[k] = str_get(&l->text[k]);
        len[k] = l->text[k].len;
        if (str_failed(&l->text[k]) || str_failed(&l->work))
            return no_memory(e);
    }
    if (l->n_labels && read_label(l, r->row, &r->field[FIELD_LABEL], &label))
        return 0;
    if (!len[0] && !len[1]) {
        l->d->dropped_empty++;
        return 0;
    }
    if (text_key(text, len, &l->work, key))
        return no_memory(e);
    if (l->spec->file.n && l->spec->split && split_of(l->spec, key) != l->split)
        return 0;
    return store_row(l, r->row, label, key, e);
}

/* ---- files --------------------------------------------------------------------------- */

static int kind_of(const struct data_spec *spec, const char *path, int *kind, struct err *e)
{
    *kind = spec->kind != DATA_AUTO ? spec->kind : record_kind(path);
    if (*kind != DATA_AUTO)
        return 0;
    err_set(e, ERR_CONFIG, "%s: the name does not say what kind of file it is", path);
    return err_mend(e, "data.format: {kind: jsonl}, or tsv, or csv");
}

static int read_records(struct loader *l, struct err *e)
{
    int rc;

    while ((rc = record_next(l->reader, e)) > 0) {
        if (rc == RECORD_BAD) {
            bad_row(l, l->reader->row, l->reader->mend, "%s", l->reader->what);
            continue;
        }
        rc = take_record(l, e);
        if (rc)
            return rc;
    }
    return rc;
}

static int check_pairs(struct loader *l, size_t file, struct err *e)
{
    const struct reader *r = l->reader;
    int pairs = r->kind == DATA_JSONL ? r->column[FIELD_SECOND] != NULL
                                      : r->index[FIELD_SECOND] >= 0;

    if (file == 0)
        l->d->pairs = pairs;
    if (pairs != l->d->pairs)
        return err_set(e, ERR_CONFIG, "%s has %s, %s has not", l->d->file[pairs ? file : 0],
                       "pairs of texts", l->d->file[pairs ? 0 : file]);
    return 0;
}

static int read_file(struct loader *l, size_t file, struct err *e)
{
    const char *path = l->d->file[file];
    struct file_map m = {0};
    int kind, rc = kind_of(l->spec, path, &kind, e);

    if (!rc)
        rc = inflate_map(&m, path, e);
    if (rc)
        return rc;
    l->file = (uint32_t)file;
    if (!m.size)
        rc = err_set(e, ERR_CONFIG, "%s is empty", path);
    if (!rc)
        rc = record_open(l->reader, l->spec, path, kind, (const char *)m.bytes, m.size,
                         l->n_labels > 0, e);
    if (!rc)
        rc = check_pairs(l, file, e);
    if (!rc)
        rc = read_records(l, e);
    record_close(l->reader);
    file_map_close(&m);
    return rc;
}

/* ---- the split as a whole ------------------------------------------------------------ */

static int by_key(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    int order = memcmp(x->key, y->key, TEXT_KEY);

    return order ? order : x->number < y->number ? -1 : x->number > y->number;
}

static int finish(struct loader *l, struct err *e)
{
    struct dataset *d = l->d;
    size_t limit = l->split == SPLIT_TRAIN ? (size_t)l->spec->limit : 0;

    if ((limit || (l->spec->split && l->spec->file.n)) && l->n)
        qsort(l->entry, l->n, sizeof *l->entry, by_key);
    d->n = limit && limit < l->n ? limit : l->n;
    d->row = mem_array(d->n ? d->n : 1, sizeof *d->row);
    if (!d->row)
        return no_memory(e);
    for (size_t i = 0; i < d->n; i++)
        d->row[i] = l->entry[i].row;
    return 0;
}

static void warn(struct loader *l)
{
    struct dataset *d = l->d;
    size_t same = 1;

    if (d->dropped_empty)
        problems_warn(l->p, d->file[0], NULL, "%zu rows without text are left out",
                      d->dropped_empty);
    while (same < d->n && d->row[same].label == d->row[0].label)
        same++;
    if (l->split == SPLIT_TRAIN && l->n_labels > 1 && d->n > 1 && same == d->n)
        problems_warn(l->p, d->file[0], NULL, "all %zu training rows have the label \"%s\"",
                      d->n, l->labels[d->row[0].label]);
}

static const struct opt_list *source(const struct data_spec *spec, enum split split)
{
    const struct opt_list *own = split == SPLIT_TRAIN        ? &spec->train
                                 : split == SPLIT_VALIDATION ? &spec->validation
                                                             : &spec->test;
    int shared = split == SPLIT_TRAIN || (split == SPLIT_VALIDATION ? spec->validation_share
                                                                    : spec->test_share) > 0;

    return spec->file.n && shared && !own->n ? &spec->file : own;
}

static int check_bins(const struct loader *l, struct err *e)
{
    size_t n = l->spec->bins.n;

    if (!n || !l->n_labels || n + 1 == l->n_labels)
        return 0;
    err_set(e, ERR_CONFIG,
            "data.label.bins: %zu edges make %zu classes, but there are %zu "
            "labels",
            n, n + 1, l->n_labels);
    return err_mend(e, "give %zu edges", l->n_labels - 1);
}

static int load(struct loader *l, const struct opt_list *files, struct err *e)
{
    int rc = check_bins(l, e);

    l->d->file = arena_array(&l->d->arena, files->n, sizeof *l->d->file);
    l->reader = mem_alloc(sizeof *l->reader);
    if (!rc && (!l->d->file || !l->reader))
        rc = no_memory(e);
    for (size_t i = 0; !rc && i < files->n; i++) {
        l->d->file[i] = arena_strdup(&l->d->arena, files->text[i]);
        if (!l->d->file[i])
            rc = no_memory(e);
        l->d->n_files = i + 1;
    }
    for (size_t i = 0; !rc && i < files->n; i++)
        rc = read_file(l, i, e);
    if (rc)
        return rc;
    if (l->bad_rows > BAD_ROWS_MAX)
        problems_add_at(l->p, "", NULL, "and %ld more bad rows",
                        l->bad_rows - BAD_ROWS_MAX);
    if (l->bad_rows) {
        l->told = 1;
        return problems_result(l->p, e);
    }
    if (!l->n) {
        err_set(e, ERR_CONFIG, "%s: no rows for %s", l->d->file[0], split_names[l->split]);
        if (files == &l->spec->file && l->split != SPLIT_TRAIN)
            err_mend(e, "raise data.split.%s", split_names[l->split]);
        return e->code;
    }
    rc = finish(l, e);
    if (!rc)
        warn(l);
    return rc;
}

int dataset_load(struct dataset *d, const struct data_spec *spec, enum split split,
                 const char *const *labels, size_t n_labels, struct problems *p,
                 struct err *e)
{
    struct loader l = {.d = d,
                       .spec = spec,
                       .split = split,
                       .labels = labels,
                       .n_labels = n_labels,
                       .p = p};
    const struct opt_list *files = source(spec, split);
    int rc;

    memset(d, 0, sizeof *d);
    if (!files->n)
        return 0;
    rc = load(&l, files, e);
    if (rc && !l.told && rc != ERR_NOMEM && rc != ERR_IO)
        problems_add_at(p, "", e->mend, "%s", e->msg);
    mem_free(l.entry);
    mem_free(l.slot);
    mem_free(l.reader);
    str_fini(&l.text[0]);
    str_fini(&l.text[1]);
    str_fini(&l.work);
    if (rc)
        dataset_fini(d);
    return rc;
}

void dataset_fini(struct dataset *d)
{
    mem_free(d->row);
    arena_fini(&d->arena);
    memset(d, 0, sizeof *d);
}

/* ---- predict ------------------------------------------------------------------------- */

static int bad_line(const char *name, long number, const char *what, struct err *e)
{
    return err_set(e, ERR_CORRUPT, "%s: row %ld: %s", name, number, what);
}

static int copy_text(struct arena *a, const char *s, size_t n, struct row *out, int which,
                     struct err *e)
{
    out->text[which] = arena_strndup(a, s, n);
    out->len[which] = n;
    return out->text[which] ? 0 : no_memory(e);
}

int dataset_parse_line(struct arena *a, const char *line, size_t len, const char *name,
                       long number, struct row *out, struct err *e)
{
    struct data_spec spec = {.kind = DATA_JSONL, .header = 1};
    struct reader *r;
    size_t blank = 0;
    int rc;

    memset(out, 0, sizeof *out);
    out->label = -1;
    out->line = (uint32_t)number;
    while (len && (line[len - 1] == '\n' || line[len - 1] == '\r'))
        len--;
    while (blank < len && (line[blank] == ' ' || line[blank] == '\t'))
        blank++;
    r = mem_alloc(sizeof *r);
    if (!r)
        return no_memory(e);
    if (blank == len || line[blank] != '{') {
        rc = record_check(r, line, len);
        rc = rc == RECORD_OK ? copy_text(a, line, len, out, 0, e)
                             : bad_line(name, number, r->what, e);
        goto done;
    }
    rc = record_open(r, &spec, name, DATA_JSONL, line, len, 0, e);
    if (!rc)
        rc = record_next(r, e);
    if (rc == RECORD_OK) {
        rc = 0;
        for (int k = 0; !rc && k < 2 && r->column[k]; k++)
            rc = copy_text(a, r->field[k].s, r->field[k].n, out, k, e);
    } else if (rc == RECORD_BAD) {
        rc = bad_line(name, number, r->what, e);
    }
    record_close(r);
done:
    mem_free(r);
    return rc;
}
