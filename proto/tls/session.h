/* What the files of the TLS module share. */
#ifndef PROTO_TLS_SESSION_H
#define PROTO_TLS_SESSION_H

#include "proto/tls.h"

/* Say what OpenSSL has to say and forget it: "<what>: certificate has expired". */
int session_fail(struct err *e, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

int issue_certificate(const struct tls_issue *what, char fingerprint[TLS_FINGERPRINT],
                      struct err *e);

#endif
