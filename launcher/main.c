/* hone: the command. Finds the verb and lets it run; everything else is in launcher/verb/.
 */
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/standard.h"
#include "base/str.h"
#include "launcher/verb.h"

enum { VERBS_MAX = 64 };

static void print_help(void)
{
    printf("usage: hone VERB [ARGUMENTS]\n\n"
           "Trains classifiers through SFT, reward model and PPO, in C.\n\nverbs:\n");
    for (const struct verb *const *v = verb_registry; *v; v++)
        printf("  %-10s %s\n", (*v)->name, (*v)->help);
    printf("\nhone VERB --help says more; hone --version.\n"
           "exit status: 0 done, 1 the work failed, 2 wrong input, 3 stopped on request,\n"
           "             4 no daemon, 5 not allowed\n");
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
    for (const struct verb *const *v = verb_registry; *v; v++)
        if (!strcmp((*v)->name, argv[1]))
            return (*v)->run(argc - 1, argv + 1);
    return unknown(argv[1]);
}

int main(int argc, char **argv)
{
    standard_open();
    return standard_close("hone", run(argc, argv));
}
