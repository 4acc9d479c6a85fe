/* Data sets once they are loaded, and single lines for predict; see dataset.h. Loading is
 * in load.c. */
#include "worker/data/dataset.h"

#include <string.h>

#include "base/mem.h"
#include "worker/data/load.h"
#include "worker/data/record.h"

enum { READ_BYTES = 1024 }; /* most rows are read at once */

static int no_memory(struct err *e)
{
    return err_set(e, ERR_NOMEM, "rows: out of memory");
}

static size_t record_bytes(const struct record_head *h, int pairs)
{
    return sizeof *h + h->len[0] + 1 + (pairs ? (size_t)h->len[1] + 1 : 0);
}

int dataset_get(const struct dataset *d, size_t i, struct store_buf *buf, struct row *out,
                struct err *e)
{
    size_t at = d->at[i], left = d->text.size - at;
    size_t have = left < READ_BYTES ? left : READ_BYTES, want;
    const char *p = store_get(&d->text, at, have, buf, e);
    struct record_head h;

    if (!p)
        return e->code;
    memcpy(&h, p, sizeof h);
    want = record_bytes(&h, d->pairs);
    if (want > have)
        p = store_get(&d->text, at, want, buf, e);
    if (!p)
        return e->code;
    p += sizeof h;
    *out = (struct row){.text = {p, d->pairs ? p + h.len[0] + 1 : NULL},
                        .len = {h.len[0], h.len[1]},
                        .label = d->label[i],
                        .file = h.file,
                        .line = h.line};
    return 0;
}

size_t dataset_bytes(const struct dataset *d)
{
    return d->n * (sizeof *d->label + sizeof *d->at) + d->text.cap + d->arena.total;
}

void dataset_fini(struct dataset *d)
{
    mem_free(d->label);
    mem_free(d->at);
    store_fini(&d->text);
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
