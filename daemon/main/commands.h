/* What honed does besides being a daemon: `honed token`, `cert`, `backup`, `verify`. */
#ifndef DAEMON_MAIN_COMMANDS_H
#define DAEMON_MAIN_COMMANDS_H

#include "base/args.h"
#include "base/err.h"

/* argv[0] is the word itself; 0, ARGS_HELP or an error. */
int token_main(int argc, char **argv, struct err *e);
int cert_main(int argc, char **argv, struct err *e);
int backup_main(int argc, char **argv, struct err *e);
int verify_main(int argc, char **argv, struct err *e);

/* The folder of the daemon's state: `state`, or the default where it is NULL. */
int state_folder(const char *state, char *out, size_t n, struct err *e);

#endif
