/* Addresses: see address.h. */
#include "proto/address.h"

#include <stdio.h>
#include <string.h>

#include "base/str.h"

static const char *const prefix[] = {"unix:", "tcp:", "https:", "http:"};

const char *address_prefix(enum address_kind kind)
{
    return prefix[kind];
}

static int unknown(const char *text, struct err *e)
{
    err_set(e, ERR_UNSUPPORTED, "address %.200s: unknown kind", text);
    return err_mend(e, "unix:PATH, tcp:HOST:PORT, https:HOST:PORT or http:HOST:PORT");
}

static int parse_path(const char *text, const char *path, struct address *a, struct err *e)
{
    size_t n = strlen(path);

    if (n == 0 || n > ADDRESS_PATH_MAX)
        return err_set(e, ERR_CONFIG, "address %.200s: the path has %zu bytes, 1 to %d fit",
                       text, n, ADDRESS_PATH_MAX);
    memcpy(a->path, path, n + 1);
    return 0;
}

/* Letters, digits, '.', '-', '_'; inside brackets hexadecimal digits, ':', '.', '%'. */
static int host_is_fine(const char *host, size_t n, int brackets)
{
    static const char name[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                               "0123456789.-_";
    char copy[ADDRESS_HOST_MAX + 1];

    if (n == 0 || n > ADDRESS_HOST_MAX || host[0] == '-')
        return 0;
    memcpy(copy, host, n);
    copy[n] = '\0';
    if (brackets)
        return strchr(copy, ':') && strspn(copy, "0123456789abcdefABCDEF:.%") == n;
    return strspn(copy, name) == n;
}

static int parse_host(const char *text, const char *p, struct address *a, struct err *e)
{
    const char *end = p[0] == '[' ? strchr(p, ']') : strchr(p, ':'), *port;
    int brackets = p[0] == '[';
    long number;

    if (!end || (brackets && end[1] != ':')) {
        err_set(e, ERR_CONFIG, "address %.200s: no port", text);
        return err_mend(e, "%sHOST:PORT", prefix[a->kind]);
    }
    p += brackets;
    port = end + 1 + brackets;
    if (!host_is_fine(p, (size_t)(end - p), brackets)) {
        err_set(e, ERR_CONFIG, "address %.200s: wrong host", text);
        return err_mend(e, "a name, an IPv4 address, or an IPv6 address in brackets");
    }
    if (strspn(port, "0123456789") != strlen(port) || str_to_long(port, &number) ||
        number > 65535) {
        err_set(e, ERR_CONFIG, "address %.200s: wrong port \"%.20s\"", text, port);
        return err_mend(e, "a number up to 65535");
    }
    memcpy(a->host, p, (size_t)(end - p));
    a->host[end - p] = '\0';
    snprintf(a->port, sizeof a->port, "%u", (unsigned)number & 0xffff);
    return 0;
}

int address_parse(const char *text, struct address *a, struct err *e)
{
    memset(a, 0, sizeof *a);
    for (size_t i = 0; i < sizeof prefix / sizeof *prefix; i++) {
        const char *rest = text + strlen(prefix[i]);

        if (!str_starts(text, prefix[i]))
            continue;
        a->kind = (enum address_kind)i;
        return a->kind == ADDRESS_UNIX ? parse_path(text, rest, a, e)
                                       : parse_host(text, rest, a, e);
    }
    /* "HOST:PORT", but not "other:something:else" nor a path. */
    if (!strchr(text, ':') || strchr(text, '/') ||
        (text[0] != '[' && strchr(strchr(text, ':') + 1, ':')))
        return unknown(text, e);
    a->kind = ADDRESS_TCP;
    return parse_host(text, text, a, e);
}
