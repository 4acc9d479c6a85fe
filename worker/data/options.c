/* The data section of a job: its option table, and what its nodes mean. */
#include <string.h>

#include "worker/data/dataset.h"

const char *const split_names[] = {"train", "validation", "test", NULL};

static const char *const kind_names[] = {"auto", "jsonl", "tsv", "csv", NULL};
static const char *const duplicate_names[] = {"keep", "drop", "fail", NULL};
static const char *const clean_names[] = {"html", "space", NULL};
static const char *const by_names[] = {"hash", NULL};

const struct opt data_options[] = {
    OPT_PATHS(struct data_spec, train, "training rows: a file or a list of files"),
    OPT_PATHS(struct data_spec, validation, "validation rows"),
    OPT_PATHS(struct data_spec, test, "test rows"),
    OPT_PATHS(struct data_spec, file, "one set of rows, divided by `split`"),
    OPT_NODE(struct data_spec, format, "{kind: auto | jsonl | tsv | csv, header: true}"),
    OPT_NODE(
        struct data_spec, columns,
        "{text, label}, {text1, text2, label} or {prompt, response}: names, or numbers "
        "from 1"),
    OPT_NODE(struct data_spec, label,
             "{bins: [edges]}: a number's class is the count of edges strictly below it"),
    OPT_NODE(struct data_spec, split,
             "{validation: share, test: share, by: hash}: rule to divide `file`"),
    OPT_STRINGS(struct data_spec, clean,
                "html (undo character references), space (runs of white space to a blank)"),
    OPT_ENUM(
        struct data_spec, duplicates, DUPLICATES_KEEP, duplicate_names,
        "texts equal but for case: keep, drop (the first stays; default with `split`), "
        "fail"),
    OPT_INT(struct data_spec, limit, 0, 0, 1e15,
            "the first N training rows in hash order; 0: all"),
    OPT_INT(struct data_spec, max_tokens, 400, 4, 1 << 20,
            "longest sequence, special tokens included; longer texts are cut"),
    OPT_END,
};

struct format_keys {
    int kind, header;
};
static const struct opt format_options[] = {
    OPT_ENUM(struct format_keys, kind, DATA_AUTO, kind_names, "auto: by the file's name"),
    OPT_BOOL(struct format_keys, header, 1, "the first row names the columns (TSV, CSV)"),
    OPT_END,
};

struct column_keys {
    const char *text, *text1, *text2, *label, *prompt, *response;
};
static const struct opt column_options[] = {
    OPT_STRING(struct column_keys, text, NULL, "the text"),
    OPT_STRING(struct column_keys, text1, NULL, "the first text of a pair"),
    OPT_STRING(struct column_keys, text2, NULL, "the second text of a pair"),
    OPT_STRING(struct column_keys, label, NULL, "the label"),
    OPT_STRING(struct column_keys, prompt, NULL, "generate: what is asked"),
    OPT_STRING(struct column_keys, response, NULL, "generate: the answer to learn"),
    OPT_END,
};

struct label_keys {
    struct opt_list bins;
};
static const struct opt label_options[] = {
    OPT_FLOATS(struct label_keys, bins, "edges between classes, ascending"),
    OPT_END,
};

struct split_keys {
    double validation, test;
    int by;
};
static const struct opt split_options[] = {
    OPT_FLOAT(struct split_keys, validation, 0, 0, 1, "share of the validation rows"),
    OPT_FLOAT(struct split_keys, test, 0, 0, 1, "share of the test rows"),
    OPT_ENUM(struct split_keys, by, 0, by_names, "hash: of the text"),
    OPT_END,
};

/* A sub-map read by its table, all defaults where it is not there. */
static void read_map(const struct opt *table, void *keys, const struct node *map,
                     struct arena *a, struct problems *p)
{
    opt_defaults(table, keys);
    opt_apply(table, keys, map, "", NULL, a, p);
}

static void resolve_columns(struct data_spec *d, struct arena *a, struct problems *p)
{
    struct column_keys keys;

    read_map(column_options, &keys, d->columns, a, p);
    if (d->answers && (keys.text || keys.text1 || keys.text2 || keys.label))
        problems_add(p, d->columns, "columns: {prompt: NAME, response: NAME}",
                     "rows of a task of kind generate have a prompt and a response");
    if (!d->answers && (keys.prompt || keys.response))
        problems_add(p, d->columns, "task: {kind: generate}",
                     "prompts and responses are for a task of kind generate");
    if (d->answers) {
        d->text[0] = keys.prompt ? keys.prompt : "prompt";
        d->text[1] = keys.response ? keys.response : "response";
        return;
    }
    if (keys.text && (keys.text1 || keys.text2))
        problems_add(p, d->columns, "give text, or text1 and text2",
                     "data.columns has both text and a pair");
    else if (!keys.text1 != !keys.text2)
        problems_add(p, d->columns, "give text1 and text2",
                     "data.columns has one text of a pair");
    d->text[0] = keys.text ? keys.text : keys.text1;
    d->text[1] = keys.text ? NULL : keys.text2;
    d->label_column = keys.label;
}

static void resolve_bins(struct data_spec *d, struct arena *a, struct problems *p)
{
    struct label_keys keys;

    read_map(label_options, &keys, d->label, a, p);
    d->bins = keys.bins;
    for (size_t i = 1; i < d->bins.n; i++)
        if (!(d->bins.number[i] > d->bins.number[i - 1])) {
            problems_add(p, d->label, "list the edges from low to high",
                         "data.label.bins: %g does not lie above %g", d->bins.number[i],
                         d->bins.number[i - 1]);
            return;
        }
}

static void resolve_split(struct data_spec *d, struct arena *a, struct problems *p)
{
    struct split_keys keys;

    read_map(split_options, &keys, d->split, a, p);
    d->validation_share = keys.validation;
    d->test_share = keys.test;
    if (keys.validation + keys.test >= 1)
        problems_add(p, d->split, "validation and test together below 1",
                     "data.split leaves nothing to train on");
    if (d->split && !d->file.n)
        problems_add(p, d->split, "data: {file: FILE, split: ...}",
                     "data.split divides data.file, which is not given");
    if (d->split && keys.validation > 0 && d->validation.n)
        problems_add(p, d->split, "give one of them",
                     "both data.validation and data.split.validation");
    if (d->split && keys.test > 0 && d->test.n)
        problems_add(p, d->split, "give one of them", "both data.test and data.split.test");
}

void data_resolve(struct data_spec *d, const struct node *section, int answers,
                  struct arena *a, struct problems *p)
{
    struct format_keys format;

    read_map(format_options, &format, d->format, a, p);
    d->kind = format.kind;
    d->header = format.header;
    d->answers = answers;
    resolve_columns(d, a, p);
    resolve_bins(d, a, p);
    resolve_split(d, a, p);
    if (d->split && !opt_given(section, "duplicates"))
        d->duplicates = DUPLICATES_DROP;
    if (d->file.n && d->train.n)
        problems_add(p, section, "give one of them", "both data.file and data.train");
    d->clean_html = d->clean_space = 0;
    for (size_t i = 0; i < d->clean.n; i++) {
        const char *near;

        d->clean_html |= !strcmp(d->clean.text[i], "html");
        d->clean_space |= !strcmp(d->clean.text[i], "space");
        if (!strcmp(d->clean.text[i], "html") || !strcmp(d->clean.text[i], "space"))
            continue;
        near = str_nearest(d->clean.text[i], clean_names);
        problems_add(p, node_get(section, "clean"), near ? near : "html, space",
                     "data.clean: \"%.60s\" is neither html nor space", d->clean.text[i]);
    }
}
