/* Modules: parts of Hone that are loaded when they are first asked for, so that programs
 * that do not need them start without their libraries (OpenSSL and GnuTLS take 1 to 2 ms
 * each to load).
 *
 * A module is ../lib/hone/<name>.so as seen from the program's folder. It exports one table
 * whose first members are those of struct module. Invariant: a table that module_find()
 * returns was built with our number and size. A module is never unloaded. Modules are
 * trusted: they come from the programs' own installation and from nowhere else. */
#ifndef BASE_MODULE_H
#define BASE_MODULE_H

#include <stddef.h>

#include "base/err.h"

struct module {
    unsigned abi;
    size_t size;
};

/* The table `symbol` of module `name`, compared with *want: 0 and *out, or ERR_UNSUPPORTED
 * with the mend. */
int module_find(const char *name, const char *symbol, const struct module *want,
                const void **out, struct err *e);

#endif
