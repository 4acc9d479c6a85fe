/* Keep a worker inside the folders that honed's owner allows: `honed --root DIR`, which
 * reaches us as HONE_CONFINE=DIR:DIR.
 *
 * The kernel holds us to it (Landlock): the folders may be read and written; the system's
 * libraries, our own programs and what the C library needs of /etc, /proc, /sys and /dev
 * may be read; nothing else of the file system exists for this process and its children,
 * whatever a job file, a link or a model's folder names. Temporary files go to
 * DIR/.hone-tmp of the first folder. Without Landlock (Linux before 5.13) nothing is run:
 * ERR_UNSUPPORTED. */
#ifndef WORKER_LINK_CONFINE_H
#define WORKER_LINK_CONFINE_H

#include "base/err.h"

/* Does nothing where HONE_CONFINE is not set. To be called before there are threads. */
int confine(struct err *e);

#endif
