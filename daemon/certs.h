/* The certificate that honed shows: STATE/tls/, or what its owner has put there. A renewed
 * one is taken up without a restart: at the next connection, or at SIGHUP. */
#ifndef DAEMON_CERTS_H
#define DAEMON_CERTS_H

#include <stdint.h>

#include "base/err.h"
#include "base/file.h"
#include "proto/tls.h"

enum { CERTS_FILES = 3 };

struct certs {
    const struct tls_api *api;
    struct tls_context *context;
    char path[CERTS_FILES][FILE_PATH_MAX]; /* authority (may be absent), certificate, key */
    struct certs_stamp {
        uint64_t inode, size;
        int64_t seconds, nanoseconds;
    } stamp[CERTS_FILES]; /* of what was tried last, good or bad */
};

/* ERR_CONFIG, with the mend, where there is none. */
int certs_open(struct certs *c, const char *state, struct err *e);
void certs_close(struct certs *c); /* total; connections keep what they have */

/* What new connections use: read again when a file has changed. A pair that does not fit
 * (half of a renewal) leaves the old one in place, with a warning. */
struct tls_context *certs_now(struct certs *c);

#endif
