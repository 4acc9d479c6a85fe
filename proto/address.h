/* Addresses: where a daemon listens and a client dials.
 *
 *     unix:PATH          a Unix socket; the path has at most 107 bytes
 *     tcp:HOST:PORT      frames over TCP, always inside TLS 1.3
 *     https:HOST:PORT    the same service as JSON over HTTP, inside the same TLS
 *     http:HOST:PORT     the same without TLS: this machine's loopback alone
 *
 * HOST is a name, an IPv4 address or an IPv6 address in brackets. A client may leave out
 * "tcp:". Fails with ERR_CONFIG (ERR_UNSUPPORTED: an unknown kind) and the mend. */
#ifndef PROTO_ADDRESS_H
#define PROTO_ADDRESS_H

#include "base/err.h"

enum { ADDRESS_PATH_MAX = 107, ADDRESS_HOST_MAX = 253 };

enum address_kind { ADDRESS_UNIX, ADDRESS_TCP, ADDRESS_HTTPS, ADDRESS_HTTP };

struct address {
    enum address_kind kind;
    char path[ADDRESS_PATH_MAX + 1]; /* ADDRESS_UNIX */
    char host[ADDRESS_HOST_MAX + 1]; /* without brackets */
    char port[6];                    /* 0 ... 65535 */
};

int address_parse(const char *text, struct address *a, struct err *e);
/* "tcp:", "https:", ... */
const char *address_prefix(enum address_kind kind);

#endif
