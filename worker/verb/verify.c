/* hone verify: a table of the largest differences from recorded numbers. Exit 1 when one
 * is out of tolerance; what the file holds and we do not know is listed. */
#include "worker/verb/verify.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/args.h"
#include "base/json.h"
#include "base/str.h"
#include "worker/verb/verb.h"

static int worst_first(const void *a, const void *b)
{
    const struct verify_row *x = a, *y = b;

    return (x->share < y->share) - (x->share > y->share);
}

enum { TABLE_ROWS = 12 };

static void print_table(const struct verify_report *r)
{
    size_t shown = 0;

    printf("%-56s %9s %11s %13s %13s\n", "tensor (largest differences first)", "elements",
           "difference", "got", "want");
    for (size_t i = 0; i < r->n; i++) {
        const struct verify_row *row = &r->row[i];

        if (!row->n || (shown >= TABLE_ROWS && row->share <= 1))
            continue;
        printf("%-56s %9ld %11.3g %13.6g %13.6g%s\n", row->name, row->n, row->diff,
               row->got, row->want, row->share > 1 ? "  out of tolerance" : "");
        shown++;
    }
    if (shown < r->compared)
        printf("... and %zu more within tolerance\n", r->compared - shown);
    for (size_t i = 0; i < r->n; i++)
        if (!r->row[i].n)
            printf("not known here, not compared: %s\n", r->row[i].name);
    printf("%zu tensors compared, %zu out of tolerance (%g * max(1, |want|)), %zu not "
           "known\n",
           r->compared, r->failed, r->rtol, r->unknown);
}

static int print_json(const struct verify_report *r, struct err *e)
{
    struct str s = {0};
    const char *comma = "";
    int rc = 0;

    str_addf(&s, "{\"rtol\":%.9g,\"compared\":%zu,\"failed\":%zu,\"tensors\":[", r->rtol,
             r->compared, r->failed);
    for (size_t i = 0; i < r->n; i++) {
        const struct verify_row *row = &r->row[i];

        if (!row->n)
            continue;
        str_addf(&s, "%s{\"name\":", comma);
        str_add_json(&s, row->name, strlen(row->name));
        str_addf(&s, ",\"elements\":%ld,\"difference\":", row->n);
        json_number(&s, row->diff);
        str_add(&s, ",\"got\":");
        json_number(&s, row->got);
        str_add(&s, ",\"want\":");
        json_number(&s, row->want);
        str_addf(&s, ",\"ok\":%s}", row->share > 1 ? "false" : "true");
        comma = ",";
    }
    str_add(&s, "],\"unknown\":[");
    comma = "";
    for (size_t i = 0; i < r->n; i++) {
        if (r->row[i].n)
            continue;
        str_add(&s, comma);
        str_add_json(&s, r->row[i].name, strlen(r->row[i].name));
        comma = ",";
    }
    str_add(&s, "]}");
    if (str_failed(&s))
        rc = err_set(e, ERR_NOMEM, "out of memory");
    else
        puts(str_get(&s));
    str_fini(&s);
    return rc;
}

struct verify_args {
    const char *model, *golden, *rtol, *backend;
    int json;
};

static int verify(int argc, char **argv, struct err *e)
{
    static const struct arg_flag flags[] = {
        ARG_VALUE("--model", "DIR", "folder of the checkpoint", struct verify_args, model),
        ARG_VALUE("--golden", "FILE", "numbers recorded by tests/golden/record.py",
                  struct verify_args, golden),
        ARG_VALUE("--rtol", "R", "tolerance R * max(1, |want|); default 5e-5",
                  struct verify_args, rtol),
        ARG_VALUE("--device", "cpu|cuda|ref", "what computes (cpu)", struct verify_args,
                  backend),
        ARG_SWITCH("--json", "one JSON document on standard output", struct verify_args,
                   json),
        ARG_END};
    static const struct arg_spec spec = {
        "hone verify",
        "--model DIR --golden FILE.safetensors [--rtol R] [--json]",
        "Run a checkpoint on recorded inputs and compare every tensor with PyTorch's.",
        flags,
        0,
        0,
        0};
    struct verify_args a = {.backend = "cpu"};
    struct verify_report r;
    struct verify_options o = {.rtol = VERIFY_RTOL};
    int rc = args_parse(&spec, argc, argv, &a, e);

    if (rc)
        return rc;
    if (!a.model || !a.golden)
        return err_set(e, ERR_USAGE, "verify: %s is missing",
                       a.model ? "--golden FILE" : "--model DIR");
    if (args_double("--rtol", a.rtol, 0, 1, &o.rtol, e))
        return e->code;
    o.backend = a.backend;
    rc = verify_run(a.model, a.golden, &o, &r, e);
    if (!rc) {
        qsort(r.row, r.n, sizeof *r.row, worst_first);
        if (a.json)
            rc = print_json(&r, e);
        else
            print_table(&r);
        if (!rc && r.failed)
            rc = err_set(e, ERR_FAILED, "%s: %zu of %zu tensors are out of tolerance",
                         a.golden, r.failed, r.compared);
    }
    verify_fini(&r);
    return rc;
}

int verb_verify(int argc, char **argv)
{
    struct err e;

    return verb_result(verify(argc, argv, &e), &e);
}
