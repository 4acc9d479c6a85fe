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
 * ERR_USAGE. Shells and the makers of man pages ask instead of users:
 *
 *     VERB --complete WORDS...     args_complete(): what may stand for the last word
 *     VERB --help-man              args_print_man(): the page of the verb */
int args_parse(const struct arg_spec *spec, int argc, char **argv, void *out,
               struct err *e);
void args_print_help(const struct arg_spec *spec);

/* What may stand where the last of words[n] begins (n > 0), one a line: the word, and a tab
 * and what it is where that is known. Flags and their values come from the table, plain
 * words from the usage: what is in small letters there stands for itself. ":files" and
 * ":folders" alone in a line leave it to the shell. */
void args_complete(const struct arg_spec *spec, int n, char **words);
/* `PROGRAM --complete VERB WORDS...` is a question to the verb: `VERB --complete WORDS...`
 */
void args_swap_complete(int argc, char **argv, int is_verb);
/* A candidate, if it begins with `prefix`; help NULL: none. */
void args_candidate(const char *prefix, const char *word, const char *help);
/* How a program lists what only it knows: `what` as in the usage ("JOB"), `before` the
 * words so far. NULL: not at all. */
extern void (*args_candidates)(const char *what, const char *prefix, int n, char **before);

/* The page as roff(7): the same texts as args_print_help(). `rest` NULL or more of it. */
void args_print_man(const struct arg_spec *spec, const char *rest);
/* Text in roff, on standard output: no line of it is taken for a request. */
void args_print_roff(const char *text);

/* A flag's value as a whole number within [min, max]; value NULL leaves *out alone. */
int args_long(const char *flag, const char *value, long min, long max, long *out,
              struct err *e);
int args_double(const char *flag, const char *value, double min, double max, double *out,
                struct err *e);

#endif
