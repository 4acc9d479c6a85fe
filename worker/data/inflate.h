/* Compressed data files (.gz, .zst): unpacked once into a nameless temporary file, which is
 * mapped like any other, so that memory stays bounded and a row keeps its place.
 *
 * The temporary file (file_temporary()) is gone with the map. Fails with
 * ERR_CORRUPT for damaged or cut files, ERR_IO when there is no room, ERR_CONFIG beyond
 * 64 GiB. */
#ifndef WORKER_DATA_INFLATE_H
#define WORKER_DATA_INFLATE_H

#include "base/err.h"
#include "base/file.h"

/* Length of the name without .gz or .zst; the whole length where it has neither. */
size_t inflate_stem(const char *path);

/* Map a data file, unpacked where its name says it is packed. file_map_close() ends it. */
int inflate_map(struct file_map *m, const char *path, struct err *e);

#endif
