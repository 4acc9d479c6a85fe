/* Command lines: one table of flags per verb, from which come the parser, `--help` and
 * "did you mean". Shared by hone, honed and hone-worker.
 *
 *     static const struct arg_flag flags[] = {
 *         ARG_VALUE("--model", "DIR", "folder of the model", struct my_args, model),
 *         ARG_SWITCH("--json", "one JSON document on standard output", struct my_args,
 * json), ARG_LIST("--set", "KEY=VALUE", "override a key", struct my_args, set), ARG_END};
 *     static const struct arg_spec spec = {"hone predict", "--model DIR [--input FILE]",
 *         "labels for texts, as JSONL", flags, 0, 0};
 *     rc = args_parse(&spec, argc, argv, &args, &e);   (argv[0] is the verb itself)
 *
 * `--flag value` and `--flag=value` are the same; `--` ends the flags; flags and words may
 * mix. Fails with ERR_USAGE (exit 2). `--help` prints to stdout and returns ARGS_HELP. */
#ifndef BASE_ARGS_H
#define BASE_ARGS_H

#include <stddef.h>

#include "base/err.h"

enum arg_kind { ARG_KIND_END, ARG_KIND_SWITCH, ARG_KIND_VALUE, ARG_KIND_LIST };

struct arg_flag {
    const char *name; /* "--out" */
    enum arg_kind kind;
    size_t offset;    /* int (switch), const char * (value), struct arg_list (list) */
    const char *what; /* "DIR" in the help; NULL for switches */
    const char *help;
};

#define ARG_SWITCH(name, help, T, f)                                                       \
    {                                                                                      \
        name, ARG_KIND_SWITCH, offsetof(T, f), NULL, help                                  \
    }
#define ARG_VALUE(name, what, help, T, f)                                                  \
    {                                                                                      \
        name, ARG_KIND_VALUE, offsetof(T, f), what, help                                   \
    }
#define ARG_LIST(name, what, help, T, f)                                                   \
    {                                                                                      \
        name, ARG_KIND_LIST, offsetof(T, f), what, help                                    \
    }
#define ARG_END                                                                            \
    {                                                                                      \
        NULL, ARG_KIND_END, 0, NULL, NULL                                                  \
    }

enum { ARGS_LIST_MAX = 64, ARGS_HELP = 1 };

struct arg_list { /* NULL-terminated; borrowed from argv */
    const char *item[ARGS_LIST_MAX + 1];
    int n;
};

struct arg_spec {
    const char *program; /* "hone predict" */
    const char *usage;   /* what follows it: "--model DIR [--input FILE]" */
    const char *help;    /* one or more lines */
    const struct arg_flag *flags;
    int words_min, words_max; /* how many plain words */
    size_t words;             /* offset of a struct arg_list in `out` (words_max > 0) */
};

/* Fill `out` (zeroed here by the caller). 0, ARGS_HELP (help was printed: exit 0), or
 * ERR_USAGE. */
int args_parse(const struct arg_spec *spec, int argc, char **argv, void *out,
               struct err *e);
void args_print_help(const struct arg_spec *spec);

/* A flag's value as a whole number within [min, max]; value NULL leaves *out alone. */
int args_long(const char *flag, const char *value, long min, long max, long *out,
              struct err *e);
int args_double(const char *flag, const char *value, double min, double max, double *out,
                struct err *e);

#endif
