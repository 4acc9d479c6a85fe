/* hone report: RUN/report.html, and the table of results. */
#include "launcher/report.h"

#include <stdio.h>

#include "base/args.h"
#include "base/file.h"
#include "base/mem.h"
#include "launcher/verb.h"

struct options {
    struct arg_list run;
    int json;
};

/* What the table shows and more: the run's summary as it is. */
static int print_summary(const char *run, struct err *e)
{
    enum { SUMMARY_BYTES_MAX = 64 << 20 };
    char path[FILE_PATH_MAX], *text = NULL;
    size_t n = 0;
    int rc = file_join(path, sizeof path, run, "summary.json", e);

    if (!rc)
        rc = file_read(path, SUMMARY_BYTES_MAX, &text, &n, e);
    if (!rc)
        fwrite(text, 1, n, stdout);
    mem_free(text);
    return rc;
}

static int run_report(int argc, char **argv)
{
    static const struct arg_flag flags[] = {
        ARG_SWITCH("--json", "the run's summary in place of the table", struct options,
                   json),
        ARG_END};
    static const struct arg_spec spec = {
        "hone report",
        "RUN [--json]",
        "Writes RUN/report.html, one self-contained file, and prints the table of results.",
        flags,
        1,
        1,
        offsetof(struct options, run)};
    struct options o = {0};
    char path[FILE_PATH_MAX];
    struct str table = {0};
    struct err e;
    int rc = args_parse(&spec, argc, argv, &o, &e);

    if (rc == ARGS_HELP)
        return 0;
    if (!rc)
        rc = report_write(o.run.item[0], path, sizeof path, &e);
    if (!rc && o.json)
        rc = print_summary(o.run.item[0], &e);
    else if (!rc)
        rc = report_table(o.run.item[0], &table, &e);
    if (rc)
        err_print(&e, "hone");
    else if (!o.json)
        printf("%s%s%s\n", str_get(&table), table.len ? "\n" : "", path);
    str_fini(&table);
    return err_exit_status(rc);
}

const struct verb verb_report = {"report", "write RUN/report.html, print the results",
                                 run_report};
