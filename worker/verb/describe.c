/* hone-worker --describe: what this build knows, as one JSON document made from the same
 * tables that read job files. */
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "kernels/backend.h"
#include "worker/family/family.h"
#include "worker/spec/spec.h"
#include "worker/stage/stage.h"
#include "worker/verb/verb.h"

static void section(struct str *out, const char *name, const struct opt *table)
{
    str_addf(out, "  \"%s\": ", name);
    opt_describe_json(table, out);
    str_add(out, ",\n");
}

static void write_stages(struct str *out)
{
    str_add(out, "  \"stages\": [");
    for (const struct stage *const *s = stage_registry; *s; s++) {
        str_addf(out, "%s\n    {\"name\": \"%s\", \"task\": \"%s\", \"help\": ",
                 s == stage_registry ? "" : ",", (*s)->name, task_kind_names[(*s)->kind]);
        str_add_json(out, (*s)->help, strlen((*s)->help));
        str_add(out, ", \"lr\": ");
        json_number(out, (*s)->default_lr);
        str_add(out, ", \"epochs\": ");
        json_number(out, (*s)->default_epochs);
        str_addf(out, ", \"metric\": \"%s\", \"options\": ",
                 (*s)->default_metric ? (*s)->default_metric : "");
        opt_describe_json((*s)->options, out);
        str_add_char(out, '}');
    }
    str_add(out, "],\n");
}

static void write_backends(struct str *out)
{
    static const char *const names[] = {"cpu", "ref", "cuda"};
    const char *comma = "";

    str_add(out, "  \"backends\": [");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const struct backend *b = backend_find(names[i]);
        char line[256];

        if (!b)
            continue;
        b->describe(line, sizeof line);
        str_addf(out,
                 "%s\n    {\"name\": \"%s\", \"devices\": %d, \"threads\": %d, "
                 "\"description\": ",
                 comma, b->name, b->devices(), b->threads());
        str_add_json(out, line, strlen(line));
        str_add_char(out, '}');
        comma = ",";
    }
    str_add(out, "]\n");
}

int verb_describe(void)
{
    struct str out = {0};
    struct err e = {0};
    int rc = 0;

    str_add(&out, "{\n  \"version\": \"" HONE_VERSION "\",\n");
    section(&out, "job", job_options);
    section(&out, "task", task_options);
    section(&out, "data", data_options);
    section(&out, "resources", resource_options);
    section(&out, "save", save_options);
    section(&out, "common", common_options);
    write_stages(&out);
    str_add(&out, "  \"families\": [");
    for (const struct family *const *f = family_registry; *f; f++)
        str_addf(&out, "%s\"%s\"", f == family_registry ? "" : ", ", (*f)->model_type);
    str_add(&out, "],\n");
    write_backends(&out);
    str_add(&out, "}\n");
    if (str_failed(&out))
        rc = err_set(&e, ERR_NOMEM, "describe: out of memory");
    else if (fputs(str_get(&out), stdout) == EOF || fflush(stdout))
        rc = err_set(&e, ERR_IO, "describe: standard output is closed");
    str_fini(&out);
    return verb_result(rc, &e);
}
