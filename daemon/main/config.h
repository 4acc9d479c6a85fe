/* honed's configuration: its flags as a YAML file, so that a service needs no command line.
 *
 *     state: /var/lib/hone
 *     listen: [tcp:0.0.0.0:4663, https:0.0.0.0:8443]
 *     keep_jobs: 500
 *
 * A key is a flag's name without its dashes, its value what would follow the flag; folders
 * are relative to the file. What the command line says stands instead (also of lists: the
 * whole list). Unknown keys, other types and a second document are ERR_CONFIG with file,
 * line and column. Values are judged where those of flags are. */
#ifndef DAEMON_MAIN_CONFIG_H
#define DAEMON_MAIN_CONFIG_H

#include "base/arena.h"
#include "base/args.h"

/* Fill what the command line has left open in `out` (a struct of the spec's flags). path
 * NULL: the user's file, if there is one. Texts live in the arena. */
int config_read(const struct arg_spec *spec, const char *path, void *out, struct arena *a,
                struct err *e);

/* `state` of the user's file, for the commands that work on it. 1: it says one. */
int config_state(char *out, size_t n, struct err *e);

#endif
