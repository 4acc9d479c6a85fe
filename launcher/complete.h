/* What only a daemon or the configuration knows, for the completion of command lines: jobs,
 * stages, names of daemons. Whatever goes wrong, there are no candidates. */
#ifndef LAUNCHER_COMPLETE_H
#define LAUNCHER_COMPLETE_H

/* For args_candidates (base/args.h). */
void complete_candidates(const char *what, const char *prefix, int n, char **before);

#endif
