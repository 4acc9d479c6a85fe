/* Verbs of hone-worker that answer and end: no MPI, one process.
 *
 * A verb prints its result to stdout, its errors to stderr as "hone: ...", and returns the
 * exit status of interface.md section 1. argv[0] is the verb; flags are read by
 * base/args.h. To add one: a file worker/verb/<name>.c, a line here, a row in verb.c. */
#ifndef WORKER_VERB_VERB_H
#define WORKER_VERB_VERB_H

#include "base/err.h"

struct verb {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
};
extern const struct verb verbs[]; /* ends with name NULL */

const struct verb *verb_find(const char *name); /* NULL: none */

/* Print *e and give the exit status for `rc`: the last line of every verb. */
int verb_result(int rc, const struct err *e);

int verb_check(int argc, char **argv);
int verb_data(int argc, char **argv);
int verb_doctor(int argc, char **argv);
int verb_eval(int argc, char **argv);
int verb_predict(int argc, char **argv);
int verb_tokenize(int argc, char **argv);
int verb_verify(int argc, char **argv);

/* hone-worker --describe: every stage, option, family and back end as one JSON document. */
int verb_describe(void);

#endif
