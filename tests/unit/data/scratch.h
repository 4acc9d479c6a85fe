/* A scratch folder, a data section given as YAML, and loads that must succeed or fail. */
#ifndef TESTS_UNIT_DATA_SCRATCH_H
#define TESTS_UNIT_DATA_SCRATCH_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/node.h"
#include "worker/data/dataset.h"

static char folder[64] = "/tmp/hone-data-XXXXXX";
static const char *const five[] = {"very negative", "negative", "neutral", "positive",
                                   "very positive"};

static inline void put_bytes(const char *name, const char *text, size_t n)
{
    char path[256];
    struct err e;

    snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_int_equal(file_write_atomic(path, text, n, &e), 0);
}

static inline void put(const char *name, const char *text)
{
    put_bytes(name, text, strlen(text));
}

/* The section as the job file's reader makes it; problems stay in *p. */
static inline void read_section(struct data_spec *d, const char *yaml, struct arena *a,
                                struct problems *p)
{
    char *text = arena_printf(a, "# data\n%s", yaml); /* '{' first would be JSON */
    struct node *n;
    struct err e;

    problems_init(p, "job.yaml");
    if (node_parse(a, "job.yaml", text, strlen(text), &n, &e))
        fail_msg("%s", e.msg);
    opt_defaults(data_options, d);
    opt_apply(data_options, d, n, folder, NULL, a, p);
    data_resolve(d, n, 0, a, p);
}

static inline int load(struct dataset *d, const char *yaml, enum split split,
                       const char *const *labels, size_t n_labels, struct problems *p,
                       struct err *e)
{
    struct arena a = {0};
    struct data_spec spec;
    int rc;

    memset(d, 0, sizeof *d);
    read_section(&spec, yaml, &a, p);
    rc = problems_result(p, e);
    if (!rc)
        rc = dataset_load(d, &spec, split, labels, n_labels, p, e);
    arena_fini(&a);
    return rc;
}

static inline void loads(struct dataset *d, const char *yaml, enum split split)
{
    struct problems p;
    struct err e;

    if (load(d, yaml, split, five, 5, &p, &e))
        fail_msg("%s", e.msg);
    problems_fini(&p);
}

/* Does any problem, or the error, say this? */
static inline int says(const struct problems *p, const struct err *e, const char *what)
{
    int found = e->code && strstr(e->msg, what);

    for (int i = 0; i < p->n; i++) {
        char line[2048];

        snprintf(line, sizeof line, "%s: %s", p->item[i].where, p->item[i].message);
        found |= strstr(line, what) != NULL;
    }
    return found;
}

static inline void refuses(const char *yaml, enum split split, const char *what)
{
    struct dataset d;
    struct problems p;
    struct err e = {0};
    int rc = load(&d, yaml, split, five, 5, &p, &e);

    if (!rc || !says(&p, &e, what))
        fail_msg("want \"%s\", got %d \"%s\"", what, rc, e.msg);
    assert_int_equal(err_exit_status(rc), 2);
    problems_fini(&p);
    dataset_fini(&d);
}

/* Row i; its texts stay for a few more calls. */
static struct store_buf row_buf[4];

static inline struct row row_at(const struct dataset *d, size_t i)
{
    static unsigned calls;
    struct row row;
    struct err e;

    assert_true(i < d->n);
    if (dataset_get(d, i, &row_buf[calls++ % 4], &row, &e))
        fail_msg("%s", e.msg);
    return row;
}

static inline int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static inline int remove_folder(void **state)
{
    struct err e;

    (void)state;
    for (int i = 0; i < 4; i++)
        store_buf_fini(&row_buf[i]);
    return file_remove_tree(folder, &e);
}

#endif
