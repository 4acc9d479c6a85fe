/* Files of what was measured on this machine: $XDG_CACHE_HOME/hone (~/.cache/hone). */
#ifndef WORKER_TRAIN_CACHE_H
#define WORKER_TRAIN_CACHE_H

#include "base/err.h"
#include "base/file.h"

/* Where <kind>-<hash of key>.json lies; make: so does its folder, for its owner alone. */
int cache_path(char out[FILE_PATH_MAX], const char *kind, const char *key, int make,
               struct err *e);

#endif
