/* Verbs of the hone command: launcher/verb/<name>.c defines `const struct verb verb_<name>`
 * and is thereby in `hone --help`. */
#ifndef LAUNCHER_VERB_H
#define LAUNCHER_VERB_H

struct verb {
    const char *name;
    const char *help; /* one line */
    /* argv[0] is the verb; returns the exit status of interface.md section 1. */
    int (*run)(int argc, char **argv);
};

extern const struct verb *const verb_registry[]; /* NULL-terminated */

/* Verbs that hone-worker carries out: the same arguments, the same exit status. */
int verb_exec_worker(int argc, char **argv);

#endif
