/* hone: the command. Finds the verb and lets it run; everything else is in launcher/verb/.
 */
#include <stdio.h>
#include <string.h>

#include "base/args.h"
#include "base/err.h"
#include "base/standard.h"
#include "base/str.h"
#include "launcher/complete.h"
#include "launcher/verb.h"

enum { VERBS_MAX = 64 };

#define HELP "Trains classifiers through SFT, reward model and PPO, in C."
#define MORE                                                                               \
    "hone VERB --help says more; hone --version.\n"                                        \
    "exit status: 0 done, 1 the work failed, 2 wrong input, 3 stopped on request,\n"       \
    "             4 no daemon, 5 not allowed\n"

static void print_help(void)
{
    printf("usage: hone VERB [ARGUMENTS]\n\n" HELP "\n\nverbs:\n");
    for (const struct verb *const *v = verb_registry; *v; v++)
        printf("  %-10s %s\n", (*v)->name, (*v)->help);
    printf("\n" MORE);
}

/* `hone VERB --help-man` is the page of a verb. */
static void print_man(void)
{
    struct str rest = {0};
    const struct arg_flag flags[] = {
        {"--version", ARG_KIND_SWITCH, 0, NULL, "print the version"}, ARG_END};
    const struct arg_spec spec = {
        .program = "hone", .usage = "VERB [ARGUMENTS]", .help = HELP, .flags = flags};

    str_add(&rest, ".SH VERBS\n");
    for (const struct verb *const *v = verb_registry; *v; v++)
        str_addf(&rest, ".TP\n.BR hone\\-%s (1)\n%s\n", (*v)->name, (*v)->help);
    str_add(&rest, ".SH EXIT STATUS\n.nf\n" MORE ".fi\n");
    str_add(&rest, ".SH SEE ALSO\n.BR honed (1),\n.BR hone\\-worker (1)\n");
    args_print_man(&spec, str_get(&rest));
    str_fini(&rest);
}

static void complete_verb(const char *prefix)
{
    for (const struct verb *const *v = verb_registry; *v; v++)
        args_candidate(prefix, (*v)->name, (*v)->help);
    args_candidate(prefix, "--help", "all verbs");
    args_candidate(prefix, "--version", NULL);
}

static const struct verb *find(const char *name)
{
    for (const struct verb *const *v = verb_registry; *v; v++)
        if (!strcmp((*v)->name, name))
            return *v;
    return NULL;
}

static int unknown(const char *name)
{
    const char *names[VERBS_MAX + 1], *near;
    struct err e;
    int n = 0;

    for (const struct verb *const *v = verb_registry; *v && n < VERBS_MAX; v++)
        names[n++] = (*v)->name;
    names[n] = NULL;
    near = str_nearest(name, names);
    err_set(&e, ERR_USAGE, "unknown verb \"%.100s\"", name);
    if (near)
        err_mend(&e, "did you mean hone %s?", near);
    else
        err_mend(&e, "hone --help");
    err_print(&e, "hone");
    return err_exit_status(e.code);
}

static int run(int argc, char **argv)
{
    const struct verb *verb;

    if (argc < 2) {
        fprintf(stderr, "hone: what is to be done?\n  try: hone --help\n");
        return err_exit_status(ERR_USAGE);
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
        print_help();
        return 0;
    }
    if (!strcmp(argv[1], "--version")) {
        printf("hone %s\n", HONE_VERSION);
        return 0;
    }
    if (!strcmp(argv[1], "--help-man")) {
        print_man();
        return 0;
    }
    if (!strcmp(argv[1], "--complete") && argc == 3) {
        complete_verb(argv[2]);
        return 0;
    }
    args_swap_complete(argc, argv, argc > 2 && find(argv[2]));
    verb = find(argv[1]);
    return verb ? verb->run(argc - 1, argv + 1) : unknown(argv[1]);
}

int main(int argc, char **argv)
{
    standard_open();
    args_candidates = complete_candidates;
    return standard_close("hone", run(argc, argv));
}
