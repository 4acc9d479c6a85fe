/* The TLS module: connections, see proto/tls.h. OpenSSL works on two memory buffers per
 * connection, one for each direction. TLS 1.3 alone; no tickets and no early data, so that
 * nothing is replayed and a revoked certificate does not come back through a resumption. */
#include "proto/tls/session.h"

#include <arpa/inet.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

struct tls_context {
    SSL_CTX *ctx;
    int server;
};

struct tls {
    SSL *ssl;
    BIO *in, *out; /* owned by ssl */
};

int session_fail(struct err *e, int code, const char *fmt, ...)
{
    unsigned long first = ERR_peek_error();
    char what[512];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    if (ERR_GET_REASON(first) == ERR_R_MALLOC_FAILURE)
        code = ERR_NOMEM;
    if (first)
        err_set(e, code, "%s: %s", what,
                ERR_SYSTEM_ERROR(first) ? strerror(ERR_GET_REASON(first))
                                        : ERR_reason_error_string(first));
    else
        err_set(e, code, "%s", what);
    ERR_clear_error();
    return e->code;
}

/* ---- certificates ---- */

static int load_files(SSL_CTX *ctx, const struct tls_files *f, int server, struct err *e)
{
    if (f->certificate) {
        if (SSL_CTX_use_certificate_chain_file(ctx, f->certificate) != 1)
            return session_fail(e, ERR_CONFIG, "certificate %s", f->certificate);
        if (SSL_CTX_use_PrivateKey_file(ctx, f->key, SSL_FILETYPE_PEM) != 1)
            return session_fail(e, ERR_CONFIG, "key %s", f->key);
        if (SSL_CTX_check_private_key(ctx) != 1)
            return session_fail(e, ERR_CONFIG, "%s does not belong to %s", f->key,
                                f->certificate);
    }
    if (f->authority) {
        if (SSL_CTX_load_verify_file(ctx, f->authority) != 1)
            return session_fail(e, ERR_CONFIG, "authority %s", f->authority);
        if (server) /* says to clients which certificates would do */
            SSL_CTX_set_client_CA_list(ctx, SSL_load_client_CA_file(f->authority));
    } else if (!server && SSL_CTX_set_default_verify_paths(ctx) != 1) {
        return session_fail(e, ERR_CONFIG, "the system's authorities");
    }
    return 0;
}

static void context_close(struct tls_context *c)
{
    if (!c)
        return;
    SSL_CTX_free(c->ctx);
    mem_free(c);
}

static int context_open(struct tls_context **out, const struct tls_files *files, int server,
                        struct err *e)
{
    struct tls_context *c = mem_alloc(sizeof *c);
    int rc;

    *out = NULL;
    if (!c)
        return err_set(e, ERR_NOMEM, "TLS: out of memory");
    ERR_clear_error();
    c->server = server;
    c->ctx = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
    if (!c->ctx) {
        mem_free(c);
        return session_fail(e, ERR_NOMEM, "TLS");
    }
    SSL_CTX_set_min_proto_version(c->ctx, TLS1_3_VERSION);
    SSL_CTX_set_options(c->ctx, SSL_OP_NO_TICKET);
    SSL_CTX_set_num_tickets(c->ctx, 0);
    SSL_CTX_set_session_cache_mode(c->ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(c->ctx, SSL_MODE_RELEASE_BUFFERS);
    rc = load_files(c->ctx, files, server, e);
    if (!server || files->authority)
        SSL_CTX_set_verify(c->ctx, SSL_VERIFY_PEER, NULL);
    if (rc) {
        context_close(c);
        return rc;
    }
    *out = c;
    return 0;
}

/* ---- connections ---- */

static void close_session(struct tls *t)
{
    if (!t)
        return;
    SSL_free(t->ssl);
    mem_free(t);
}

static int expect_host(SSL *ssl, const char *host)
{
    unsigned char address[16];

    if (inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1)
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1;
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set1_host(ssl, host) == 1 && SSL_set_tlsext_host_name(ssl, host) == 1;
}

static int open_session(struct tls **out, struct tls_context *c, const char *host,
                        struct err *e)
{
    struct tls *t = mem_alloc(sizeof *t);

    *out = NULL;
    if (!t)
        return err_set(e, ERR_NOMEM, "TLS: out of memory");
    ERR_clear_error();
    t->ssl = SSL_new(c->ctx);
    t->in = BIO_new(BIO_s_mem());
    t->out = BIO_new(BIO_s_mem());
    if (!t->ssl || !t->in || !t->out) {
        BIO_free(t->in);
        BIO_free(t->out);
        close_session(t);
        return session_fail(e, ERR_NOMEM, "TLS");
    }
    SSL_set_bio(t->ssl, t->in, t->out);
    if (c->server) {
        SSL_set_accept_state(t->ssl);
    } else {
        SSL_set_connect_state(t->ssl);
        if (!expect_host(t->ssl, host)) {
            close_session(t);
            return session_fail(e, ERR_CONFIG, "TLS: host %s", host);
        }
    }
    *out = t;
    return 0;
}

static int feed(struct tls *t, const void *p, size_t n, struct err *e)
{
    if (n > INT_MAX || (n && BIO_write(t->in, p, (int)n) != (int)n))
        return session_fail(e, ERR_NOMEM, "TLS: out of memory");
    return 0;
}

/* Why the library refuses to go on, in words that help whoever has to mend it. */
static int explain(struct tls *t, struct err *e)
{
    long verdict = SSL_get_verify_result(t->ssl);
    int reason = ERR_GET_REASON(ERR_peek_error());

    if (verdict != X509_V_OK && reason == SSL_R_CERTIFICATE_VERIFY_FAILED) {
        ERR_clear_error();
        err_set(e, ERR_DENIED, "the other end's certificate is not trusted: %s",
                X509_verify_cert_error_string(verdict));
        if (verdict == X509_V_ERR_HOSTNAME_MISMATCH ||
            verdict == X509_V_ERR_IP_ADDRESS_MISMATCH)
            return err_mend(e, "on the daemon's host: honed cert init --renew --host NAME");
        return err_mend(e, "copy tls/ca.crt from the daemon's state folder and name it "
                           "as this context's authority");
    }
    if (reason == SSL_R_WRONG_VERSION_NUMBER || reason == SSL_R_HTTP_REQUEST)
        return session_fail(e, ERR_CORRUPT, "the other end does not speak TLS");
    if (reason > SSL_AD_REASON_OFFSET) /* the other end says so in an alert */
        return session_fail(e, ERR_DENIED, "TLS is refused by the other end");
    return session_fail(e, ERR_CORRUPT, "TLS");
}

static long read_plain(struct tls *t, void *p, size_t n, struct err *e)
{
    size_t got = 0;

    ERR_clear_error();
    if (SSL_read_ex(t->ssl, p, n, &got) == 1)
        return (long)got;
    switch (SSL_get_error(t->ssl, 0)) {
    case SSL_ERROR_WANT_READ:
        return 0;
    case SSL_ERROR_ZERO_RETURN:
        return err_set(e, ERR_UNREACHABLE, "the other end has closed the connection");
    default:
        return explain(t, e);
    }
}

static int write_plain(struct tls *t, const void *p, size_t n, struct err *e)
{
    size_t done;

    ERR_clear_error();
    if (!n)
        return 0;
    if (SSL_is_init_finished(t->ssl) && SSL_write_ex(t->ssl, p, n, &done) == 1 && done == n)
        return 0;
    return session_fail(e, ERR_CORRUPT, "TLS: cannot send");
}

static size_t pull(struct tls *t, void *p, size_t n)
{
    int got = BIO_read(t->out, p, n < INT_MAX ? (int)n : INT_MAX);

    return got > 0 ? (size_t)got : 0;
}

static void say_goodbye(struct tls *t)
{
    if (SSL_is_init_finished(t->ssl))
        SSL_shutdown(t->ssl);
    ERR_clear_error();
}

static int established(const struct tls *t)
{
    return SSL_is_init_finished(t->ssl);
}

static void fingerprint(const struct tls *t, char out[TLS_FINGERPRINT])
{
    X509 *peer = SSL_get0_peer_certificate(t->ssl);
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned n = 0;

    out[0] = '\0';
    if (!peer || SSL_get_verify_result(t->ssl) != X509_V_OK ||
        X509_digest(peer, EVP_sha256(), digest, &n) != 1)
        return;
    for (unsigned i = 0; i < n && 2 * i + 2 < TLS_FINGERPRINT; i++)
        snprintf(out + 2 * i, 3, "%02x", digest[i]);
}

extern const struct tls_api hone_tls;
const struct tls_api hone_tls = {
    .context_open = context_open,
    .context_close = context_close,
    .open = open_session,
    .close = close_session,
    .feed = feed,
    .read = read_plain,
    .write = write_plain,
    .pull = pull,
    .shutdown = say_goodbye,
    .established = established,
    .fingerprint = fingerprint,
    .issue = issue_certificate,
    .module = {TLS_ABI, sizeof(struct tls_api)},
};
