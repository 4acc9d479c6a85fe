/* Command lines. Every message names the flag; unknown ones get the nearest known one. */
#include "base/args.h"

#include <stdio.h>
#include <string.h>

#include "base/str.h"

enum { FLAGS_MAX = 64 };

static const struct arg_flag *find(const struct arg_spec *spec, const char *name, size_t n)
{
    for (const struct arg_flag *f = spec->flags; f && f->name; f++)
        if (strlen(f->name) == n && !memcmp(f->name, name, n))
            return f;
    return NULL;
}

static int unknown(const struct arg_spec *spec, const char *arg, size_t n, struct err *e)
{
    const char *names[FLAGS_MAX + 2], *near;
    char name[128];
    int k = 0;

    for (const struct arg_flag *f = spec->flags; f && f->name && k < FLAGS_MAX; f++)
        names[k++] = f->name;
    names[k++] = "--help";
    names[k] = NULL;
    snprintf(name, sizeof name, "%.*s", n < 100 ? (int)n : 100, arg);
    err_set(e, ERR_USAGE, "%s: unknown option %s", spec->program, name);
    near = str_nearest(name, names);
    if (near)
        return err_mend(e, "did you mean %s?", near);
    return err_mend(e, "%s --help", spec->program);
}

/* The usage on one line, in at most as many words as a mend holds. */
static int mend_usage(const struct arg_spec *spec, struct err *e)
{
    char line[ERR_MEND_MAX];
    size_t n = 0;

    for (const char *s = spec->usage; *s && n + 1 < sizeof line; s++)
        if (*s != '\n' && !(*s == ' ' && n && line[n - 1] == ' '))
            line[n++] = *s;
        else if (*s == '\n')
            line[n++] = ' ';
    line[n] = '\0';
    return err_mend(e, "%s %s", spec->program, line);
}

static int push(const struct arg_spec *spec, struct arg_list *list, const char *value,
                struct err *e)
{
    if (list->n == ARGS_LIST_MAX)
        return err_set(e, ERR_USAGE, "%s: more than %d values", spec->program,
                       ARGS_LIST_MAX);
    list->item[list->n++] = value;
    list->item[list->n] = NULL;
    return 0;
}

static int word(const struct arg_spec *spec, void *out, const char *arg, int *n,
                struct err *e)
{
    if (*n == spec->words_max) {
        err_set(e, ERR_USAGE, "%s: \"%s\" is one argument too many", spec->program, arg);
        return mend_usage(spec, e);
    }
    ++*n;
    return push(spec, (struct arg_list *)((char *)out + spec->words), arg, e);
}

/* One flag at argv[*i]; advances *i over a separate value. */
static int flag(const struct arg_spec *spec, int argc, char **argv, int *i, void *out,
                struct err *e)
{
    const char *arg = argv[*i], *eq = strchr(arg, '='), *value;
    size_t n = eq ? (size_t)(eq - arg) : strlen(arg);
    const struct arg_flag *f = find(spec, arg, n);

    if (!f)
        return unknown(spec, arg, n, e);
    if (f->kind == ARG_KIND_SWITCH) {
        if (eq)
            return err_set(e, ERR_USAGE, "%s: %s takes no value", spec->program, f->name);
        *(int *)((char *)out + f->offset) = 1;
        return 0;
    }
    if (eq) {
        value = eq + 1;
    } else if (*i + 1 < argc && !str_starts(argv[*i + 1], "--")) {
        value = argv[++*i];
    } else {
        err_set(e, ERR_USAGE, "%s: %s needs a value", spec->program, f->name);
        return err_mend(e, "%s %s", f->name, f->what);
    }
    if (f->kind == ARG_KIND_LIST)
        return push(spec, (struct arg_list *)((char *)out + f->offset), value, e);
    *(const char **)((char *)out + f->offset) = value;
    return 0;
}

int args_parse(const struct arg_spec *spec, int argc, char **argv, void *out, struct err *e)
{
    int words = 0, plain = 0, rc;

    if (argc > 1 && !strcmp(argv[1], "--complete")) {
        args_complete(spec, argc - 2, argv + 2);
        return ARGS_HELP;
    }
    if (argc > 1 && !strcmp(argv[1], "--help-man")) {
        args_print_man(spec, NULL);
        return ARGS_HELP;
    }
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];

        if (!plain && !strcmp(arg, "--")) {
            plain = 1;
            continue;
        }
        if (!plain && (!strcmp(arg, "--help") || !strcmp(arg, "-h"))) {
            args_print_help(spec);
            return ARGS_HELP;
        }
        if (plain || arg[0] != '-' || !arg[1])
            rc = word(spec, out, arg, &words, e);
        else
            rc = flag(spec, argc, argv, &i, out, e);
        if (rc)
            return rc;
    }
    if (words < spec->words_min) {
        err_set(e, ERR_USAGE, "%s: an argument is missing", spec->program);
        return mend_usage(spec, e);
    }
    return 0;
}

void args_print_help(const struct arg_spec *spec)
{
    printf("usage: %s%s%s\n\n%s\n", spec->program, *spec->usage ? " " : "", spec->usage,
           spec->help);
    printf("\noptions:\n");
    for (const struct arg_flag *f = spec->flags; f && f->name; f++) {
        char left[64];

        snprintf(left, sizeof left, "%s%s%s", f->name, f->what ? " " : "",
                 f->what ? f->what : "");
        if (strlen(left) > 24)
            printf("  %s\n  %-24s %s\n", left, "", f->help);
        else
            printf("  %-24s %s\n", left, f->help);
    }
    printf("  %-24s %s\n", "--help", "this text");
}

int args_long(const char *name, const char *value, long min, long max, long *out,
              struct err *e)
{
    long x;

    if (!value)
        return 0;
    if (str_to_long(value, &x))
        return err_set(e, ERR_USAGE, "%s: \"%s\" is not a whole number", name, value);
    if (x < min || x > max)
        return err_set(e, ERR_USAGE, "%s: %ld is not within %ld and %ld", name, x, min,
                       max);
    *out = x;
    return 0;
}

int args_double(const char *name, const char *value, double min, double max, double *out,
                struct err *e)
{
    double x;

    if (!value)
        return 0;
    if (str_to_double(value, &x))
        return err_set(e, ERR_USAGE, "%s: \"%s\" is not a number", name, value);
    if (x < min || x > max)
        return err_set(e, ERR_USAGE, "%s: %g is not within %g and %g", name, x, min, max);
    *out = x;
    return 0;
}
