/* Man pages from the tables of base/args.h: the texts of `--help` with the macros of
 * man(7). Nothing in them can begin a request: backslashes, hyphens and leading dots are
 * escaped. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/args.h"

void args_print_roff(const char *text)
{
    for (const char *s = text; *s; s++) {
        if ((s == text || s[-1] == '\n') && (*s == '.' || *s == '\''))
            fputs("\\&", stdout);
        if (*s == '\\')
            fputs("\\e", stdout);
        else if (*s == '-')
            fputs("\\-", stdout);
        else
            putchar(*s);
    }
}

/* Lines of the help stay lines where they are indented (a table), else they are filled. */
static void print_help(const char *help)
{
    int table = 0, empty = 1;

    for (size_t n; *help; help += n + (help[n] == '\n')) {
        char line[512];

        n = strcspn(help, "\n");
        snprintf(line, sizeof line, "%.*s", (int)n, help);
        if (!n) {
            if (!empty && help[1])
                printf(table ? ".fi\n.PP\n" : ".PP\n");
            table = 0;
            empty = 1;
            continue;
        }
        if (*line == ' ' && !table)
            printf("%s.nf\n", empty ? "" : ".PP\n");
        else if (*line != ' ' && table)
            printf(".fi\n");
        table = *line == ' ';
        empty = 0;
        args_print_roff(line);
        putchar('\n');
    }
    if (table)
        printf(".fi\n");
}

/* Today, or what the maker of a package says it is. */
static void date(char *out, size_t n)
{
    const char *epoch = getenv("SOURCE_DATE_EPOCH");
    time_t t = epoch ? (time_t)strtoll(epoch, NULL, 10) : time(NULL);
    struct tm tm;

    if (!gmtime_r(&t, &tm) || !strftime(out, n, "%Y-%m-%d", &tm))
        snprintf(out, n, "1970-01-01");
}

void args_print_man(const struct arg_spec *spec, const char *rest)
{
    char name[64], title[64], day[16];
    size_t i = 0;

    for (; spec->program[i] && i + 1 < sizeof name; i++) {
        name[i] = spec->program[i] == ' ' ? '-' : spec->program[i];
        title[i] = (char)toupper((unsigned char)name[i]);
    }
    name[i] = title[i] = '\0';
    date(day, sizeof day);
    printf(".TH %s 1 %s \"hone %s\" \"Hone\"\n.SH NAME\n", title, day, HONE_VERSION);
    args_print_roff(name);
    printf(" \\- ");
    printf("%.*s", (int)strcspn(spec->help, ".:\n"), spec->help);
    printf("\n.SH SYNOPSIS\n.B ");
    args_print_roff(spec->program);
    putchar('\n');
    for (const char *s = spec->usage; *(s += strspn(s, " \n"));) {
        size_t n = strcspn(s, "\n");
        char line[512];

        snprintf(line, sizeof line, "%.*s", (int)n, s);
        args_print_roff(line);
        putchar('\n');
        s += n;
    }
    printf(".SH DESCRIPTION\n");
    print_help(spec->help);
    printf(".SH OPTIONS\n");
    for (const struct arg_flag *f = spec->flags; f && f->name; f++) {
        printf(".TP\n.B ");
        args_print_roff(f->name);
        if (f->what) {
            printf(" \\fI");
            args_print_roff(f->what);
            printf("\\fR");
        }
        putchar('\n');
        args_print_roff(f->help);
        putchar('\n');
    }
    printf(".TP\n.B \\-\\-help\nwhat it does and takes\n");
    if (rest)
        fputs(rest, stdout);
    else if (strchr(spec->program, ' '))
        printf(".SH SEE ALSO\n.BR %.*s (1)\n", (int)strcspn(spec->program, " "),
               spec->program);
}
