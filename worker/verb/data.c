/* hone data show | prefer | export JOB.yaml (interface.md, section 1).
 *
 * export: the rows as Hone sees them after mapping, binning and splitting, as JSONL.
 * prefer: preference lists as JSONL, texts with their prefix as the reward model sees
 * them, candidates in label order, `order` from best to worst. */
#include "worker/verb/data.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/args.h"
#include "worker/train/job.h"
#include "worker/verb/verb.h"

enum { FLUSH_BYTES = 1 << 16 };

struct data_args {
    const char *split;
    struct arg_list set, words;
    int json;
};

static const struct arg_flag flags[] = {
    ARG_VALUE("--split", "train|validation|test",
              "prefer: default train; export: default all", struct data_args, split),
    ARG_LIST("--set", "KEY=VALUE", "override a key, e.g. data.limit=100", struct data_args,
             set),
    ARG_SWITCH("--json", "show: one JSON document (the others are JSONL anyway)",
               struct data_args, json),
    ARG_END,
};
static const struct arg_spec usage = {
    "hone data",
    "show|prefer|export JOB.yaml [--split NAME] [--set KEY=VALUE]... [--json]",
    "show: rows, tokens, lengths, labels, duplicates, overlaps of splits\n"
    "prefer: preference lists of the label candidates, as JSONL\n"
    "export: the rows after mapping, binning and splitting, as JSONL",
    flags,
    2,
    2,
    offsetof(struct data_args, words)};

int data_flush(struct str *out, struct err *e)
{
    size_t n = out->len;

    if (str_failed(out))
        return err_set(e, ERR_NOMEM, "output: out of memory");
    if (n && (fwrite(out->s, 1, n, stdout) != n || fflush(stdout)))
        return err_errno(e, ERR_IO, errno, "write standard output");
    str_clear(out);
    return 0;
}

/* "text": "...", or both texts of a pair; each behind its prefix where there is one. */
static void add_texts(struct str *o, const struct spec *s, const struct row *row,
                      const char *prefix, struct str *work)
{
    static const char *const names[][2] = {{"\"text1\": ", ", \"text2\": "},
                                           {"\"prompt\": ", ", \"response\": "}};
    const char *const *pair_keys = names[s->task.kind == TASK_GENERATE];
    int pair = row->text[1] != NULL;

    for (int k = 0; k <= pair; k++) {
        str_clear(work);
        if (prefix && *prefix)
            str_addf(work, "%s: ", prefix);
        str_add_bytes(work, row->text[k], row->len[k]);
        str_add(o, pair ? pair_keys[k] : "\"text\": ");
        str_add_json(o, str_get(work), work->len);
        o->failed |= work->failed;
    }
}

static void export_row(struct str *o, const struct spec *s, const struct row *row,
                       enum split split, struct str *work)
{
    str_add_char(o, '{');
    add_texts(o, s, row, NULL, work);
    if (row->label >= 0) {
        const char *name = s->task.labels.text[row->label];

        str_addf(o, ", \"label\": %d, \"label_text\": ", row->label);
        str_add_json(o, name, strlen(name));
    }
    str_addf(o, ", \"split\": \"%s\"}\n", split_names[split]);
}

/* split < 0: all. */
static int data_export(const struct data_job *j, int split, struct err *e)
{
    struct str out = {0}, work = {0};
    struct store_buf buf = {0};
    struct row row;
    int rc = 0;

    for (int k = 0; k < SPLITS; k++) {
        const struct dataset *d = &j->split[k];

        for (size_t i = 0; i < d->n && !rc && (split < 0 || split == k); i++) {
            rc = dataset_get(d, i, &buf, &row, e);
            if (!rc)
                export_row(&out, &j->spec, &row, (enum split)k, &work);
            if (!rc && out.len > FLUSH_BYTES)
                rc = data_flush(&out, e);
        }
    }
    store_buf_fini(&buf);
    if (!rc)
        rc = data_flush(&out, e);
    str_fini(&out);
    str_fini(&work);
    return rc;
}

static void prefer_row(struct str *o, const struct job *j, const struct row *row,
                       struct str *work)
{
    const struct task_spec *t = &j->spec->task;

    str_add_char(o, '{');
    add_texts(o, j->spec, row, t->prefix, work);
    str_addf(o, ", \"label\": %d, \"candidates\": [", row->label);
    for (int i = 0; i < j->K; i++) {
        str_add(o, i ? ", " : "");
        str_add_json(o, t->candidate_text[i], strlen(t->candidate_text[i]));
    }
    str_add(o, "], \"order\": [");
    for (int i = 0; i < j->K; i++)
        str_addf(o, "%s%d", i ? ", " : "", j->order[row->label * j->K + i]);
    str_add(o, "]}\n");
}

/* The preference order may need the base model: job_open() has it. */
static int data_prefer(const struct spec *s, int split, struct err *e)
{
    struct str out = {0}, work = {0};
    struct store_buf buf = {0};
    struct row row;
    struct job j;
    int rc;

    if (s->task.kind != TASK_CLASSIFY)
        return err_set(e, ERR_CONFIG,
                       "%s: rows of a task of kind generate have no labels to prefer",
                       s->file);
    rc = job_open(&j, s, comm_self(), (int)s->resources.threads, e);

    for (size_t i = 0; !rc && i < j.data[split].n; i++) {
        rc = dataset_get(&j.data[split], i, &buf, &row, e);
        if (!rc)
            prefer_row(&out, &j, &row, &work);
        if (!rc && out.len > FLUSH_BYTES)
            rc = data_flush(&out, e);
    }
    store_buf_fini(&buf);
    if (!rc)
        rc = data_flush(&out, e);
    job_close(&j);
    str_fini(&out);
    str_fini(&work);
    return rc;
}

static int load_splits(struct data_job *j, struct err *e)
{
    int rc = dataset_load_all(j->split, &j->spec.data, j->spec.task.labels.text,
                              j->spec.task.labels.n, &j->problems, e);

    return rc && rc != ERR_NOMEM && rc != ERR_IO ? problems_result(&j->problems, e) : rc;
}

/* A list of problems is printed whole; a failure of another kind is the caller's line. */
static int report(const struct data_job *j, int rc, const struct err *e)
{
    if (rc == ERR_CONFIG && j->problems.errors) {
        problems_print(&j->problems, "hone");
        return err_exit_status(rc);
    }
    return verb_result(rc, e);
}

static int read_split(const char *name, int otherwise, int *split, struct err *e)
{
    const char *near;

    *split = otherwise;
    if (!name)
        return 0;
    for (*split = 0; *split < SPLITS; ++*split)
        if (!strcmp(name, split_names[*split]))
            return 0;
    err_set(e, ERR_USAGE, "hone data: --split %s is no split", name);
    near = str_nearest(name, split_names);
    return err_mend(e, near ? "did you mean %s?" : "train, validation or test%s",
                    near ? near : "");
}

static int run(struct data_job *j, const struct data_args *args, struct err *e)
{
    static const char *const actions[] = {"show", "prefer", "export", NULL};
    const char *action = args->words.item[0], *near;
    int prefer = !strcmp(action, "prefer"), show = !strcmp(action, "show"), split = 0, rc;

    if (!show && !prefer && strcmp(action, "export") != 0) {
        err_set(e, ERR_USAGE, "hone data: unknown action \"%s\"", action);
        near = str_nearest(action, actions);
        return err_mend(e, near ? "did you mean %s?" : "show, prefer or export%s",
                        near ? near : "");
    }
    rc = read_split(args->split, prefer ? SPLIT_TRAIN : -1, &split, e);
    if (!rc)
        rc = spec_read(&j->spec, args->words.item[1], args->set.item, &j->problems, e);
    if (rc)
        return rc;
    if (prefer)
        return data_prefer(&j->spec, split, e);
    rc = load_splits(j, e);
    if (rc)
        return rc;
    problems_print(&j->problems, "hone"); /* warnings */
    return show ? data_show(j, args->json, e) : data_export(j, split, e);
}

int verb_data(int argc, char **argv)
{
    struct data_args args = {0};
    struct data_job j = {0};
    struct err e = {0};
    int rc = args_parse(&usage, argc, argv, &args, &e);

    if (rc)
        return verb_result(rc, &e);
    problems_init(&j.problems, args.words.item[1]);
    rc = report(&j, run(&j, &args, &e), &e);
    for (int k = 0; k < SPLITS; k++)
        dataset_fini(&j.split[k]);
    spec_fini(&j.spec);
    problems_fini(&j.problems);
    return rc;
}
