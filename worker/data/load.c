/* Loading: files → records → cleaned, labelled rows → duplicates, split, order.
 *
 * Invariant: what a row is depends on the row alone (and, for duplicates, on rows with the
 * same key); its split depends on its key alone. So the splits of one file are filled in
 * one pass, and each comes out as if it had been loaded by itself. Keys (the first KEY
 * bytes of the SHA-256) exist only where they decide something. Bad rows are collected,
 * BAD_ROWS_MAX of them by name, and the load then fails: nothing is trained on half a file.
 */
#include "worker/data/load.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "worker/data/dataset.h"
#include "worker/data/inflate.h"
#include "worker/data/record.h"
#include "worker/data/text.h"

enum {
    BAD_ROWS_MAX = 20,
    KEY = 16,               /* equal keys are equal texts: 2^-128 */
    FORGET_BYTES = 4 << 20, /* of a file that is passed over stay in memory */
    BUCKETS = 1 << 16,
    FEW_ROWS = 1 << 16 /* are sorted at once */
};

/* A split that is being filled. */
struct part {
    enum split split;
    struct dataset *d;
    size_t cap;
    unsigned char (*key)[KEY];
    uint32_t *slot; /* open addressing over keys: row + 1; 0: empty */
    size_t n_slots;
};

struct loader {
    const struct data_spec *spec;
    const char *const *labels;
    size_t n_labels;
    struct problems *p;
    const struct opt_list *files;
    struct part part[SPLITS]; /* those that these files fill */
    int n_parts, pairs;
    int wants_keys, by_hash, in_order; /* by_hash: the key decides the split */
    struct reader *reader;
    uint32_t file;
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
    snprintf(where, sizeof where, "%s: row %ld", l->files->text[l->file], row);
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

static size_t slot_of(const struct part *t, const unsigned char *key)
{
    uint64_t h;
    size_t at;

    memcpy(&h, key, sizeof h);
    for (at = (size_t)h & (t->n_slots - 1); t->slot[at]; at = (at + 1) & (t->n_slots - 1))
        if (!memcmp(t->key[t->slot[at] - 1], key, KEY))
            break;
    return at;
}

static int grow_slots(struct part *t, struct err *e)
{
    mem_free(t->slot);
    t->n_slots = t->n_slots ? t->n_slots * 2 : 4096;
    t->slot = mem_array(t->n_slots, sizeof *t->slot);
    if (!t->slot)
        return no_memory(e);
    for (size_t i = 0; i < t->d->n; i++)
        t->slot[slot_of(t, t->key[i])] = (uint32_t)(i + 1);
    return 0;
}

static int resize(void *array, size_t n, size_t size, struct err *e)
{
    void *p = mem_resize(*(void **)array, n, size);

    if (!p)
        return no_memory(e);
    *(void **)array = p;
    return 0;
}

static int grow(struct loader *l, struct part *t, struct err *e)
{
    struct dataset *d = t->d;
    int rc = 0;

    if (d->n == UINT32_MAX - 1)
        return err_set(e, ERR_CONFIG, "more than %u rows", UINT32_MAX - 1);
    if (d->n == t->cap) {
        size_t cap = t->cap ? t->cap * 2 : 1024;

        rc = resize(&d->label, cap, sizeof *d->label, e);
        if (!rc)
            rc = resize(&d->at, cap, sizeof *d->at, e);
        if (!rc && l->wants_keys)
            rc = resize(&t->key, cap, sizeof *t->key, e);
        if (!rc)
            t->cap = cap;
    }
    if (!rc && l->spec->duplicates != DUPLICATES_KEEP && 2 * (d->n + 1) > t->n_slots)
        rc = grow_slots(t, e);
    return rc;
}

/* The text at row `found` stands here again, which the job forbids. */
static int refuse_duplicate(struct loader *l, struct part *t, size_t found, long row,
                            struct err *e)
{
    struct store_buf buf = {0};
    struct row first;
    int rc = store_flush(&t->d->text, e);

    t->d->pairs = l->pairs;
    if (!rc)
        rc = dataset_get(t->d, found, &buf, &first, e);
    if (!rc)
        bad_row(l, row, "data.duplicates: drop", "the same text as %s: row %u",
                l->files->text[first.file], first.line);
    store_buf_fini(&buf);
    return rc;
}

static int store_record(struct loader *l, struct part *t, long row, struct err *e)
{
    struct store *s = &t->d->text;
    struct record_head h = {.file = l->file,
                            .line = (uint32_t)(row < UINT32_MAX ? row : UINT32_MAX)};
    int rc;

    for (int k = 0; k <= l->pairs; k++) {
        if (l->text[k].len > UINT32_MAX - 1)
            return err_set(e, ERR_CONFIG, "%s: row %ld: its text is too long",
                           l->files->text[l->file], row);
        h.len[k] = (uint32_t)l->text[k].len;
    }
    t->d->at[t->d->n] = s->size;
    rc = store_add(s, &h, sizeof h, e);
    for (int k = 0; !rc && k <= l->pairs; k++)
        rc = store_add(s, str_get(&l->text[k]), l->text[k].len + 1, e);
    return rc;
}

static int store_row(struct loader *l, struct part *t, long row, int label,
                     const unsigned char *key, struct err *e)
{
    struct dataset *d = t->d;
    int rc = grow(l, t, e);
    size_t slot;

    if (rc)
        return rc;
    if (l->spec->duplicates != DUPLICATES_KEEP) {
        slot = slot_of(t, key);
        if (t->slot[slot]) {
            d->dropped_duplicates++;
            return l->spec->duplicates == DUPLICATES_FAIL
                       ? refuse_duplicate(l, t, t->slot[slot] - 1, row, e)
                       : 0;
        }
        t->slot[slot] = (uint32_t)(d->n + 1);
    }
    rc = store_record(l, t, row, e);
    if (rc)
        return rc;
    if (l->wants_keys)
        memcpy(t->key[d->n], key, KEY);
    d->label[d->n++] = label;
    return 0;
}

static struct part *part_of(struct loader *l, const unsigned char *key)
{
    enum split split;

    if (!l->by_hash)
        return &l->part[0];
    split = split_of(l->spec, key);
    for (int i = 0; i < l->n_parts; i++)
        if (l->part[i].split == split)
            return &l->part[i];
    return NULL;
}

static int take_record(struct loader *l, struct err *e)
{
    const struct reader *r = l->reader;
    unsigned char key[TEXT_KEY] = {0};
    const char *text[2] = {NULL, NULL};
    size_t len[2] = {0, 0};
    struct part *t;
    int label = -1;

    for (int k = 0; k <= l->pairs; k++) {
        clean_text(l->spec, &r->field[k], &l->work, &l->text[k]);
        text[k] = str_get(&l->text[k]);
        len[k] = l->text[k].len;
        if (str_failed(&l->text[k]) || str_failed(&l->work))
            return no_memory(e);
    }
    if (l->n_labels && read_label(l, r->row, &r->field[FIELD_LABEL], &label))
        return 0;
    if (!len[l->spec->answers] && !len[1]) {
        l->part[0].d->dropped_empty++;
        return 0;
    }
    if (l->wants_keys && text_key(text, len, &l->work, key))
        return no_memory(e);
    t = part_of(l, key);
    return t ? store_row(l, t, r->row, label, key, e) : 0;
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

static int read_records(struct loader *l, const struct file_map *m, struct err *e)
{
    size_t forgotten = 0;
    int rc;

    while ((rc = record_next(l->reader, e)) > 0) {
        if (l->reader->i - forgotten > FORGET_BYTES) {
            forgotten = l->reader->i;
            /* The record at hand may still point there: its pages come back. */
            file_map_forget(m, forgotten);
        }
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
        l->pairs = pairs;
    if (pairs != l->pairs)
        return err_set(e, ERR_CONFIG, "%s has %s, %s has not",
                       l->files->text[pairs ? file : 0], "pairs of texts",
                       l->files->text[pairs ? 0 : file]);
    return 0;
}

static int read_file(struct loader *l, size_t file, struct err *e)
{
    const char *path = l->files->text[file];
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
        rc = read_records(l, &m, e);
    record_close(l->reader);
    file_map_close(&m);
    return rc;
}

/* ---- hash order ---------------------------------------------------------------------- */

struct keyed {
    unsigned char key[KEY];
    uint32_t row;
};

static int by_key(const void *a, const void *b)
{
    const struct keyed *x = a, *y = b;
    int order = memcmp(x->key, y->key, KEY);

    return order ? order : x->row < y->row ? -1 : x->row > y->row;
}

static unsigned bucket_of(const struct part *t, size_t i, size_t n)
{
    return n <= FEW_ROWS ? 0 : (unsigned)t->key[i][0] << 8 | t->key[i][1];
}

/* The rows by key, those with equal keys by place: in buckets of the key's first two bytes,
 * so that little is held beside the numbers. */
static int sort_rows(const struct part *t, uint32_t *order, struct err *e)
{
    size_t n = t->d->n, most = 0, at = 0;
    uint32_t *end = mem_array(BUCKETS, sizeof *end);
    struct keyed *k = NULL;

    if (!end)
        return no_memory(e);
    for (size_t i = 0; i < n; i++)
        end[bucket_of(t, i, n)]++;
    for (size_t b = 0; b < BUCKETS; b++) {
        size_t rows = end[b];

        most = rows > most ? rows : most;
        end[b] = (uint32_t)at; /* its beginning, until it is filled */
        at += rows;
    }
    for (size_t i = 0; i < n; i++)
        order[end[bucket_of(t, i, n)]++] = (uint32_t)i;
    k = mem_array(most + 1, sizeof *k);
    for (size_t b = 0, from = 0; k && b < BUCKETS; from = end[b++]) {
        size_t rows = end[b] - from;

        for (size_t i = 0; i < rows; i++) {
            memcpy(k[i].key, t->key[order[from + i]], KEY);
            k[i].row = order[from + i];
        }
        qsort(k, rows, sizeof *k, by_key);
        for (size_t i = 0; i < rows; i++)
            order[from + i] = k[i].row;
    }
    mem_free(end);
    mem_free(k);
    return k ? 0 : no_memory(e);
}

/* Put labels and places of the first n rows of the order into new arrays. */
static int put_in_order(struct part *t, const uint32_t *order, size_t n, struct err *e)
{
    struct dataset *d = t->d;
    uint64_t *at = mem_array(n, sizeof *at);
    int *label = mem_array(n, sizeof *label);

    if (!at || !label) {
        mem_free(at);
        mem_free(label);
        return no_memory(e);
    }
    for (size_t i = 0; i < n; i++) {
        at[i] = d->at[order[i]];
        label[i] = d->label[order[i]];
    }
    mem_free(d->at);
    mem_free(d->label);
    d->at = at;
    d->label = label;
    d->n = n;
    return 0;
}

/* ---- a split as a whole -------------------------------------------------------------- */

static int finish(struct loader *l, struct part *t, struct err *e)
{
    struct dataset *d = t->d;
    size_t limit = t->split == SPLIT_TRAIN ? (size_t)l->spec->limit : 0;
    size_t n = limit && limit < d->n ? limit : d->n;
    uint32_t *order;
    int rc = store_flush(&d->text, e);

    d->pairs = l->pairs;
    mem_free(t->slot);
    t->slot = NULL;
    if (rc || !(limit || l->in_order))
        return rc;
    order = mem_array(d->n, sizeof *order);
    if (!order)
        return no_memory(e);
    rc = sort_rows(t, order, e);
    mem_free(t->key);
    t->key = NULL;
    if (!rc)
        rc = put_in_order(t, order, n, e);
    mem_free(order);
    return rc;
}

static void warn(struct loader *l, struct part *t)
{
    struct dataset *d = t->d;
    size_t same = 1;

    if (d->dropped_empty)
        problems_warn(l->p, d->file[0], NULL, "%zu rows without text are left out",
                      d->dropped_empty);
    while (same < d->n && d->label[same] == d->label[0])
        same++;
    if (t->split == SPLIT_TRAIN && l->n_labels > 1 && d->n > 1 && same == d->n)
        problems_warn(l->p, d->file[0], NULL, "all %zu training rows have the label \"%s\"",
                      d->n, l->labels[d->label[0]]);
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

static int name_files(struct loader *l, struct dataset *d, struct err *e)
{
    d->file = arena_array(&d->arena, l->files->n, sizeof *d->file);
    for (size_t i = 0; d->file && i < l->files->n; i++) {
        d->file[i] = arena_strdup(&d->arena, l->files->text[i]);
        if (!d->file[i])
            return no_memory(e);
        d->n_files = i + 1;
    }
    return d->file ? 0 : no_memory(e);
}

static int open_loader(struct loader *l, struct err *e)
{
    const struct data_spec *spec = l->spec;
    int rc = check_bins(l, e), limit = 0;

    for (int i = 0; !rc && i < l->n_parts; i++) {
        limit |= l->part[i].split == SPLIT_TRAIN && spec->limit;
        rc = name_files(l, l->part[i].d, e);
    }
    l->in_order = spec->split && spec->file.n;
    l->by_hash = l->in_order && l->files == &spec->file;
    l->wants_keys = l->in_order || limit || spec->duplicates != DUPLICATES_KEEP;
    l->reader = mem_alloc(sizeof *l->reader);
    return rc || l->reader ? rc : no_memory(e);
}

static int no_rows(const struct loader *l, const struct part *t, struct err *e)
{
    err_set(e, ERR_CONFIG, "%s: no rows for %s", t->d->file[0], split_names[t->split]);
    if (l->files == &l->spec->file && t->split != SPLIT_TRAIN)
        err_mend(e, "raise data.split.%s", split_names[t->split]);
    return e->code;
}

static int read_all(struct loader *l, struct err *e)
{
    int rc = open_loader(l, e);

    for (size_t i = 0; !rc && i < l->files->n; i++)
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
    for (int i = 0; !rc && i < l->n_parts; i++)
        rc = l->part[i].d->n ? finish(l, &l->part[i], e) : no_rows(l, &l->part[i], e);
    for (int i = 0; !rc && i < l->n_parts; i++)
        warn(l, &l->part[i]);
    return rc;
}

/* Fill the splits among `wanted` that come from the same files as `first`. */
static int load_group(struct dataset *const d[SPLITS], int wanted, enum split first,
                      struct loader *l, struct err *e)
{
    int rc;

    l->files = source(l->spec, first);
    for (int i = first; i < SPLITS; i++)
        if (wanted >> i & 1 && source(l->spec, (enum split)i) == l->files)
            l->part[l->n_parts++] = (struct part){.split = (enum split)i, .d = d[i]};
    rc = read_all(l, e);
    if (rc && !l->told && rc != ERR_NOMEM && rc != ERR_IO)
        problems_add_at(l->p, "", e->mend, "%s", e->msg);
    for (int i = 0; i < l->n_parts; i++) {
        mem_free(l->part[i].key);
        mem_free(l->part[i].slot);
    }
    mem_free(l->reader);
    str_fini(&l->text[0]);
    str_fini(&l->text[1]);
    str_fini(&l->work);
    return rc;
}

static int load(struct dataset *const d[SPLITS], int wanted, const struct data_spec *spec,
                const char *const *labels, size_t n_labels, struct problems *p,
                struct err *e)
{
    int failed = 0;

    for (int i = 0; i < SPLITS; i++)
        if (wanted >> i & 1)
            memset(d[i], 0, sizeof *d[i]);
    for (int i = 0; i < SPLITS && failed != ERR_NOMEM && failed != ERR_IO; i++) {
        struct loader l = {.spec = spec, .labels = labels, .n_labels = n_labels, .p = p};
        struct err one;
        int rc, earlier = 0;

        for (int k = 0; k < i; k++)
            earlier |= wanted >> k & 1 &&
                       source(spec, (enum split)k) == source(spec, (enum split)i);
        if (!(wanted >> i & 1) || earlier || !source(spec, (enum split)i)->n)
            continue;
        rc = load_group(d, wanted, (enum split)i, &l, &one);
        if (rc && (!failed || rc == ERR_NOMEM || rc == ERR_IO)) {
            failed = rc;
            *e = one;
        }
    }
    for (int i = 0; failed && i < SPLITS; i++)
        if (wanted >> i & 1)
            dataset_fini(d[i]);
    return failed;
}

int dataset_load_all(struct dataset d[SPLITS], const struct data_spec *spec,
                     const char *const *labels, size_t n_labels, struct problems *p,
                     struct err *e)
{
    struct dataset *const all[SPLITS] = {&d[0], &d[1], &d[2]};

    return load(all, (1 << SPLITS) - 1, spec, labels, n_labels, p, e);
}

int dataset_load(struct dataset *d, const struct data_spec *spec, enum split split,
                 const char *const *labels, size_t n_labels, struct problems *p,
                 struct err *e)
{
    struct dataset *const one[SPLITS] = {d, d, d};

    return load(one, 1 << split, spec, labels, n_labels, p, e);
}
