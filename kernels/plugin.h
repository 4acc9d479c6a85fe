/* Back ends that come as a file: a shared object beside the programs that exports one
 * function, PLUGIN_SYMBOL, which returns the back end's table.
 *
 * Invariant: a table that plugin_find() returns has exactly the ABI number and the size
 * this program was built with, a name, and no NULL operator. A plug-in is never unloaded:
 * its runtime keeps threads and handlers of its own. It is trusted code: it comes from the
 * programs' own folder, or from the path that the user's environment names. */
#ifndef KERNELS_PLUGIN_H
#define KERNELS_PLUGIN_H

#include <stddef.h>

#include "kernels/backend.h"

#define PLUGIN_SYMBOL "hone_backend"
typedef const struct backend *plugin_function(void);

/* The table of ../lib/hone/<file> as seen from the program's folder, or of the path in the
 * environment variable `variable`. NULL: why says why not, in one line. */
const struct backend *plugin_find(const char *file, const char *variable, char *why,
                                  size_t n);

/* The same, for one path. */
const struct backend *plugin_load(const char *path, char *why, size_t n);

#endif
