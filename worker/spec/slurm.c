/* resources.slurm: options of srun in Slurm's own words, "--partition=gpu". A job file may
 * come from somebody who may submit jobs and nothing more, so only names are taken that
 * say where and for how long to run; the rest (prologs, files, users) is refused. */
#include <stdio.h>
#include <string.h>

#include "base/str.h"
#include "worker/spec/internal.h"

static const char *const slurm_options[] = {
    "account",  "constraint",       "cpus-per-task", "exclude", "exclusive",
    "gpus",     "gpus-per-node",    "gpus-per-task", "gres",    "licenses",
    "mem",      "mem-per-cpu",      "mem-per-gpu",   "nice",    "nodelist",
    "nodes",    "ntasks-per-node",  "partition",     "qos",     "reservation",
    "switches", "threads-per-core", "time",          "wckey",   NULL};

static const char value_characters[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    "0123456789_.,:@=+*&|()[]/%-";

static int is_known(const char *name, size_t n)
{
    for (const char *const *o = slurm_options; *o; o++)
        if (strlen(*o) == n && !strncmp(*o, name, n))
            return 1;
    return 0;
}

static void unknown(struct reading *r, const struct node *at, const char *option,
                    const char *name, size_t n)
{
    char word[64];
    const char *near;

    snprintf(word, sizeof word, "%.*s", (int)n, name);
    near = str_nearest(word, slurm_options);
    if (near) {
        char mend[96];

        snprintf(mend, sizeof mend, "did you mean \"--%s\"?", near);
        problems_add(r->p, at, mend, "\"%.100s\" is no option of srun that a job may set",
                     option);
        return;
    }
    problems_add(r->p, at, "--partition=NAME, --nodes=N, --gpus-per-node=N, --time=H:MM:SS",
                 "\"%.100s\" is no option of srun that a job may set", option);
}

void spec_check_slurm(struct reading *r)
{
    const struct resources *o = &r->s->resources;
    const struct node *list = node_get(r->keys.resources, "slurm");
    const struct node *item = list && list->kind == NODE_LIST ? list->child : list;

    if (o->slurm.n && o->launcher != LAUNCHER_SLURM)
        problems_add(r->p, list, "launcher: slurm",
                     "\"slurm\" is given, and the launcher is not slurm");
    for (size_t i = 0; i < o->slurm.n; i++, item = item ? item->next : NULL) {
        const char *option = o->slurm.text[i], *name = option + 2;
        const struct node *at = item;
        size_t n = str_starts(option, "--") ? strcspn(name, "=") : 0;

        if (!n || !is_known(name, n))
            unknown(r, at, option, n ? name : option, n ? n : strlen(option));
        else if (name[n] && name[n + 1 + strspn(name + n + 1, value_characters)])
            problems_add(r->p, at, NULL, "\"%.100s\": a character that has no place there",
                         option);
        else if (name[n] ? !name[n + 1] : strcmp(name, "exclusive") != 0)
            problems_add(r->p, at, NULL, "\"%.100s\" has no value; write --NAME=VALUE",
                         option);
    }
}
