/* TLS 1.3 as a filter between bytes on the wire and bytes of ours; it never touches a
 * socket, so that the event loop and the blocking client drive it alike.
 *
 *     wire -> tls_feed -> tls_read -> plain        plain -> tls_write -> tls_pull -> wire
 *
 * After every feed: read until 0, then pull until 0; the handshake happens inside read. The
 * library (OpenSSL) is in the module hone-tls, loaded by tls_load(); nothing of it is in
 * the programs. Certificates are files: PEM.
 *
 * A server's certificate is checked against the client's authority and the name or address
 * that was dialled. A client's certificate is asked for, not demanded: who brings none must
 * have a token (proto/auth.h). There is no resumption, so that every connection is checked.
 * Fails with ERR_DENIED where trust is the problem, ERR_CONFIG for files, ERR_CORRUPT for
 * what is no TLS. */
#ifndef PROTO_TLS_H
#define PROTO_TLS_H

#include <stddef.h>

#include "base/err.h"
#include "base/module.h"

enum { TLS_ABI = 2 };
enum { TLS_FINGERPRINT = 65 }; /* SHA-256 of a certificate in hexadecimal, and NUL */

struct tls_context; /* certificates, shared by connections */
struct tls;         /* one connection */

struct tls_files {         /* NULL: none */
    const char *authority; /* what peers' certificates are checked against */
    const char *certificate, *key;
};

/* A new certificate: self-signed where the issuer is NULL, for servers where there are
 * hosts, for clients otherwise. Files are 0600 (keys) and 0644, never overwritten. */
struct tls_issue {
    const char *name; /* common name */
    const char *issuer_certificate, *issuer_key;
    const char *const *hosts; /* names and addresses, NULL-terminated */
    const char *renews; /* a certificate whose names are kept as well, if it is there */
    int days;
    const char *certificate, *key; /* files to be written */
};

struct tls_api {
    struct module module;
    int (*context_open)(struct tls_context **out, const struct tls_files *files, int server,
                        struct err *e);
    void (*context_close)(struct tls_context *c);
    /* host: the name or address dialled (clients), NULL for servers. */
    int (*open)(struct tls **out, struct tls_context *c, const char *host, struct err *e);
    void (*close)(struct tls *t);

    int (*feed)(struct tls *t, const void *p, size_t n, struct err *e);
    /* Bytes read (up to n); 0: more must be fed; an error, ERR_UNREACHABLE at the end. */
    long (*read)(struct tls *t, void *p, size_t n, struct err *e);
    int (*write)(struct tls *t, const void *p, size_t n, struct err *e);
    size_t (*pull)(struct tls *t, void *p, size_t n); /* bytes for the wire; 0: none */
    void (*shutdown)(struct tls *t);                  /* say goodbye: then pull */
    int (*established)(const struct tls *t);
    /* The peer's certificate; "" when it brought none. */
    void (*fingerprint)(const struct tls *t, char out[TLS_FINGERPRINT]);

    int (*issue)(const struct tls_issue *what, char fingerprint[TLS_FINGERPRINT],
                 struct err *e);
};

/* Load the module once; *out stays valid. */
int tls_load(const struct tls_api **out, struct err *e);

#endif
