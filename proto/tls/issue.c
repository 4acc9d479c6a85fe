/* The TLS module: new keys and certificates (P-256, signed with SHA-256). A certificate
 * without an issuer is an authority that may sign others but no further authorities; one
 * with hosts serves, one without is a client's. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/str.h"
#include "proto/tls/session.h"

enum { SECONDS_PER_DAY = 86400, CLOCK_SKEW = 3600 };

static int add_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509_EXTENSION *x;
    int ok;

    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    x = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    ok = x && X509_add_ext(cert, x, -1);
    X509_EXTENSION_free(x);
    return ok;
}

/* "DNS:a,IP:1.2.3.4"; the caller has checked that names hold no comma. */
static void list_hosts(const char *const *hosts, struct str *out)
{
    unsigned char address[16];

    for (size_t i = 0; hosts[i]; i++) {
        int ip = inet_pton(AF_INET, hosts[i], address) == 1 ||
                 inet_pton(AF_INET6, hosts[i], address) == 1;

        str_addf(out, "%s%s:%s", i ? "," : "", ip ? "IP" : "DNS", hosts[i]);
    }
}

static int is_listed(const char *const *hosts, const char *name)
{
    while (*hosts && strcmp(*hosts, name) != 0)
        hosts++;
    return *hosts != NULL;
}

/* One name of an older certificate; what could not be dialled is left out. */
static void keep_host(const GENERAL_NAME *g, const char *const *hosts, struct str *out)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "0123456789.-_*";
    char name[256] = "";
    const ASN1_STRING *s = g->type == GEN_DNS     ? g->d.dNSName
                           : g->type == GEN_IPADD ? g->d.iPAddress
                                                  : NULL;
    size_t n = s ? (size_t)ASN1_STRING_length(s) : 0;
    const unsigned char *p = s ? ASN1_STRING_get0_data(s) : NULL;

    if (g->type == GEN_DNS && n < sizeof name)
        memcpy(name, p, n);
    else if (g->type == GEN_IPADD && (n == 4 || n == 16))
        inet_ntop(n == 4 ? AF_INET : AF_INET6, p, name, sizeof name);
    if (!*name || strlen(name) != (g->type == GEN_DNS ? n : strlen(name)) ||
        (g->type == GEN_DNS && strspn(name, allowed) != n) || is_listed(hosts, name))
        return;
    str_addf(out, ",%s:%s", g->type == GEN_DNS ? "DNS" : "IP", name);
}

static void keep_hosts(const char *path, const char *const *hosts, struct str *out)
{
    FILE *f = fopen(path, "re");
    X509 *cert = f ? PEM_read_X509(f, NULL, NULL, NULL) : NULL;
    GENERAL_NAMES *names =
        cert ? X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL) : NULL;

    for (int i = 0; names && i < sk_GENERAL_NAME_num(names); i++)
        keep_host(sk_GENERAL_NAME_value(names, i), hosts, out);
    GENERAL_NAMES_free(names);
    X509_free(cert);
    if (f)
        fclose(f);
    ERR_clear_error();
}

static int add_extensions(X509 *cert, X509 *issuer, const struct tls_issue *what)
{
    int authority = issuer == cert, ok;
    struct str hosts = {0};

    ok = add_extension(cert, issuer, NID_basic_constraints,
                       authority ? "critical,CA:TRUE,pathlen:0" : "critical,CA:FALSE") &&
         add_extension(cert, issuer, NID_key_usage,
                       authority ? "critical,keyCertSign,cRLSign"
                                 : "critical,digitalSignature") &&
         add_extension(cert, issuer, NID_subject_key_identifier, "hash") &&
         add_extension(cert, issuer, NID_authority_key_identifier, "keyid");
    if (ok && !authority)
        ok = add_extension(cert, issuer, NID_ext_key_usage,
                           what->hosts ? "serverAuth" : "clientAuth");
    if (ok && what->hosts) {
        list_hosts(what->hosts, &hosts);
        if (what->renews)
            keep_hosts(what->renews, what->hosts, &hosts);
        ok = !str_failed(&hosts) &&
             add_extension(cert, issuer, NID_subject_alt_name, str_get(&hosts));
    }
    str_fini(&hosts);
    return ok;
}

static int fill(X509 *cert, EVP_PKEY *key, X509 *issuer, const struct tls_issue *what)
{
    unsigned char serial[16];
    X509_NAME *name = X509_get_subject_name(cert);
    BIGNUM *n;
    int ok = RAND_bytes(serial, sizeof serial) == 1;

    serial[0] &= 0x7f;
    n = BN_bin2bn(serial, sizeof serial, NULL);
    ok = ok && n && BN_to_ASN1_INTEGER(n, X509_get_serialNumber(cert)) &&
         X509_set_version(cert, 2) &&
         X509_gmtime_adj(X509_getm_notBefore(cert), -CLOCK_SKEW) &&
         X509_time_adj_ex(X509_getm_notAfter(cert), what->days, 0, NULL) &&
         X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8,
                                    (const unsigned char *)what->name, -1, -1, 0) &&
         X509_set_issuer_name(cert, X509_get_subject_name(issuer)) &&
         X509_set_pubkey(cert, key) && add_extensions(cert, issuer, what);
    BN_free(n);
    return ok;
}

static FILE *open_file(const char *path, const char *mode, struct err *e)
{
    FILE *f = fopen(path, mode);

    if (!f)
        err_errno(e, ERR_CONFIG, errno, "open %s", path);
    return f;
}

static int read_issuer(const struct tls_issue *what, X509 **cert, EVP_PKEY **key,
                       struct err *e)
{
    FILE *f = open_file(what->issuer_certificate, "re", e);

    if (!f)
        return e->code;
    *cert = PEM_read_X509(f, NULL, NULL, NULL);
    fclose(f);
    if (!*cert)
        return session_fail(e, ERR_CORRUPT, "certificate %s", what->issuer_certificate);
    f = open_file(what->issuer_key, "re", e);
    if (!f)
        return e->code;
    *key = PEM_read_PrivateKey(f, NULL, NULL, NULL);
    fclose(f);
    if (!*key)
        return session_fail(e, ERR_CORRUPT, "key %s", what->issuer_key);
    if (X509_check_private_key(*cert, *key) != 1)
        return session_fail(e, ERR_CONFIG, "%s does not belong to %s", what->issuer_key,
                            what->issuer_certificate);
    return 0;
}

static FILE *create(const char *path, mode_t mode, struct err *e)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
    FILE *f = fd >= 0 ? fdopen(fd, "w") : NULL;

    if (!f) {
        err_errno(e, errno == EEXIST ? ERR_CONFIG : ERR_IO, errno, "create %s", path);
        if (fd >= 0)
            close(fd);
    }
    return f;
}

static int finish_file(FILE *f, int written, const char *path, struct err *e)
{
    int ok = written && !fflush(f) && !fsync(fileno(f));

    if (fclose(f) || !ok) {
        unlink(path);
        return session_fail(e, ERR_IO, "write %s", path);
    }
    return 0;
}

static int write_files(const struct tls_issue *what, X509 *cert, EVP_PKEY *key,
                       struct err *e)
{
    FILE *f = create(what->key, 0600, e);
    int rc;

    if (!f)
        return e->code;
    rc = finish_file(f, PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL) == 1,
                     what->key, e);
    if (rc)
        return rc;
    f = create(what->certificate, 0644, e);
    rc = f ? finish_file(f, PEM_write_X509(f, cert) == 1, what->certificate, e) : e->code;
    if (rc)
        unlink(what->key);
    return rc;
}

static int digest(X509 *cert, char out[TLS_FINGERPRINT], struct err *e)
{
    unsigned char bytes[EVP_MAX_MD_SIZE];
    unsigned n = 0;

    if (X509_digest(cert, EVP_sha256(), bytes, &n) != 1)
        return session_fail(e, ERR_FAILED, "certificate's fingerprint");
    for (unsigned i = 0; i < n && 2 * i + 2 < TLS_FINGERPRINT; i++)
        snprintf(out + 2 * i, 3, "%02x", bytes[i]);
    return 0;
}

int issue_certificate(const struct tls_issue *what, char fingerprint[TLS_FINGERPRINT],
                      struct err *e)
{
    EVP_PKEY *key = NULL, *issuer_key = NULL;
    X509 *cert = NULL, *issuer = NULL;
    int rc = 0;

    ERR_clear_error();
    if (what->issuer_certificate)
        rc = read_issuer(what, &issuer, &issuer_key, e);
    if (!rc) {
        key = EVP_EC_gen("P-256");
        cert = X509_new();
        if (!key || !cert || !fill(cert, key, issuer ? issuer : cert, what) ||
            !X509_sign(cert, issuer_key ? issuer_key : key, EVP_sha256()))
            rc = session_fail(e, ERR_FAILED, "make a certificate for %s", what->name);
    }
    if (!rc)
        rc = digest(cert, fingerprint, e);
    if (!rc)
        rc = write_files(what, cert, key, e);
    X509_free(cert);
    X509_free(issuer);
    EVP_PKEY_free(key);
    EVP_PKEY_free(issuer_key);
    return rc;
}
