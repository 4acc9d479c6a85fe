/* Fuzzer: data files. The first byte chooses the kind and the mapping, the rest is the
 * file. Whatever comes out is valid UTF-8 without NUL, also after cleaning. */
#include <stdint.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "worker/data/record.h"
#include "worker/data/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const char *s, size_t n)
{
    invariant(str_utf8_valid(s, n) == n && !(n && memchr(s, 0, n)));
}

static void clean(const struct field *f)
{
    struct str one = {0}, two = {0};
    const char *text[2] = {f->s, NULL};
    size_t len[2] = {f->n, 0};
    unsigned char key[TEXT_KEY];

    check(f->s, f->n);
    text_unescape(f->s, f->n, &one);
    text_squeeze(str_get(&one), one.len, &two);
    check(str_get(&one), one.len);
    check(str_get(&two), two.len);
    invariant(!text_key(text, len, &one, key));
    check(str_get(&one), one.len);
    str_fini(&one);
    str_fini(&two);
}

/* The short way through JSONL and jansson's agree about every line. */
static void compare(const struct data_spec *spec, const char *s, size_t n)
{
    struct reader *a = mem_alloc(sizeof *a), *b = mem_alloc(sizeof *b);
    struct err e = {0};
    int x = 1, y;

    invariant(a && b && !record_open(a, spec, "f", DATA_JSONL, s, n, 1, &e) &&
              !record_open(b, spec, "f", DATA_JSONL, s, n, 1, &e));
    b->careful = 1;
    while (x > 0) {
        x = record_next(a, &e);
        y = record_next(b, &e);
        invariant(x == y);
        invariant(x != RECORD_BAD || !strcmp(a->what, b->what));
        for (int k = 0; k < FIELDS && x == RECORD_OK; k++) {
            const struct field *f = &a->field[k], *g = &b->field[k];

            invariant(f->kind == g->kind && f->n == g->n && !memcmp(f->s, g->s, f->n));
        }
    }
    record_close(a);
    record_close(b);
    mem_free(a);
    mem_free(b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *s = (const char *)data + 1;
    struct data_spec spec = {.header = 1};
    struct reader *r = mem_alloc(sizeof *r);
    struct arena a = {0};
    struct row row;
    struct err e = {0};
    int kind, rc;
    long last = 0;

    if (!size || !r) {
        mem_free(r);
        return 0;
    }
    kind = DATA_JSONL + data[0] % 3;
    spec.header = !(data[0] & 4);
    if (!spec.header) {
        spec.text[0] = kind == DATA_JSONL ? "text" : "2";
        spec.label_column = kind == DATA_JSONL ? "label" : "1";
    }
    rc = record_open(r, &spec, "f", kind, s, size - 1, 1, &e);
    while (!rc && (rc = record_next(r, &e)) > 0) {
        invariant(r->row > last);
        last = r->row;
        for (int k = 0; k < FIELDS && rc == RECORD_OK; k++)
            if (r->field[k].kind == VALUE_TEXT)
                clean(&r->field[k]);
        rc = 0;
    }
    record_close(r);
    mem_free(r);
    if (kind == DATA_JSONL)
        compare(&spec, s, size - 1);
    if (!dataset_parse_line(&a, s, size - 1, "f", 1, &row, &e))
        check(row.text[0], row.len[0]);
    arena_fini(&a);
    return 0;
}
