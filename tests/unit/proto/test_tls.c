/* TLS between two sessions in memory: certificates that are made, trusted and refused, and
 * bytes that arrive one at a time, or are not TLS. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "proto/tls.h"

static const struct tls_api *api;
static char dir[64];

static const char *in_dir(const char *name)
{
    static char path[8][128];
    static int next;
    char *out = path[next++ % 8];

    snprintf(out, sizeof path[0], "%s/%s", dir, name);
    return out;
}

static void issue(const char *name, const char *issuer, const char *const *hosts,
                  char fingerprint[TLS_FINGERPRINT])
{
    struct tls_issue what = {.name = name, .hosts = hosts, .days = 2};
    char file[64], key[64], ca[64], ca_key[64];
    struct err e;

    snprintf(file, sizeof file, "%s.crt", name);
    snprintf(key, sizeof key, "%s.key", name);
    what.certificate = in_dir(file);
    what.key = in_dir(key);
    if (issuer) {
        snprintf(ca, sizeof ca, "%s.crt", issuer);
        snprintf(ca_key, sizeof ca_key, "%s.key", issuer);
        what.issuer_certificate = in_dir(ca);
        what.issuer_key = in_dir(ca_key);
    }
    assert_int_equal(api->issue(&what, fingerprint, &e), 0);
}

static char server_print[TLS_FINGERPRINT], client_print[TLS_FINGERPRINT];

static int set_up(void **state)
{
    static const char *const hosts[] = {"localhost", "127.0.0.1", "::1", "head-1", NULL};
    char print[TLS_FINGERPRINT];
    struct err e;

    (void)state;
    snprintf(dir, sizeof dir, "/tmp/hone-test-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    if (tls_load(&api, &e)) {
        fprintf(stderr, "%s\n", e.msg);
        return -1;
    }
    issue("ca", NULL, NULL, print);
    issue("other", NULL, NULL, print);
    issue("server", "ca", hosts, server_print);
    issue("alice", "ca", NULL, client_print);
    issue("mallory", "other", NULL, print);
    return 0;
}

static int tear_down(void **state)
{
    struct err e;

    (void)state;
    return file_remove_tree(dir, &e);
}

/* Two ends, and what they said last. */
struct pair {
    struct tls_context *context[2]; /* server, client */
    struct tls *end[2];
    char got[2][1 << 18];
    size_t n_got[2];
    struct err e[2];
    int rc[2];
};

static struct pair *open_pair(const char *authority, const char *client, const char *host)
{
    struct pair *p = calloc(1, sizeof *p);
    char cert[64], key[64];
    struct tls_files server = {in_dir("ca.crt"), in_dir("server.crt"),
                               in_dir("server.key")},
                     files = {0};
    struct err e;

    assert_non_null(p);
    files.authority = in_dir(authority);
    if (client) {
        snprintf(cert, sizeof cert, "%s.crt", client);
        snprintf(key, sizeof key, "%s.key", client);
        files.certificate = in_dir(cert);
        files.key = in_dir(key);
    }
    assert_int_equal(api->context_open(&p->context[0], &server, 1, &e), 0);
    assert_int_equal(api->context_open(&p->context[1], &files, 0, &e), 0);
    assert_int_equal(api->open(&p->end[0], p->context[0], NULL, &e), 0);
    assert_int_equal(api->open(&p->end[1], p->context[1], host, &e), 0);
    return p;
}

static void close_pair(struct pair *p)
{
    for (int i = 0; i < 2; i++) {
        api->close(p->end[i]);
        api->context_close(p->context[i]);
    }
    free(p);
}

static void take(struct pair *p, int i)
{
    long n;

    while (!p->rc[i] && (n = api->read(p->end[i], p->got[i] + p->n_got[i],
                                       sizeof p->got[i] - p->n_got[i], &p->e[i])) != 0) {
        if (n < 0)
            p->rc[i] = (int)n;
        else
            p->n_got[i] += (size_t)n;
    }
}

/* Carry bytes to and fro, `step` at a time, until nobody has any. */
static void pump(struct pair *p, size_t step)
{
    char buf[4096];
    int busy = 1;

    take(p, 1);
    while (busy) {
        busy = 0;
        for (int i = 0; i < 2; i++) {
            size_t n = api->pull(p->end[i], buf, step);

            if (!n)
                continue;
            busy = 1;
            if (!p->rc[!i])
                assert_int_equal(api->feed(p->end[!i], buf, n, &p->e[!i]), 0);
            take(p, !i);
        }
    }
}

static void test_handshake_and_data(void **state)
{
    static const size_t steps[] = {1, 7, 4096};
    static char data[100000];

    (void)state;
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (char)(i * 31 + i / 251);
    for (size_t k = 0; k < 3; k++) {
        struct pair *p = open_pair("ca.crt", NULL, "127.0.0.1");
        char print[TLS_FINGERPRINT];
        struct err e;

        assert_false(api->established(p->end[0]));
        assert_int_not_equal(api->write(p->end[0], "x", 1, &e), 0); /* too early */
        pump(p, steps[k]);
        assert_true(api->established(p->end[0]) && api->established(p->end[1]));
        api->fingerprint(p->end[0], print);
        assert_string_equal(print, "");
        api->fingerprint(p->end[1], print);
        assert_string_equal(print, server_print);
        for (int i = 0; i < 2; i++)
            assert_int_equal(api->write(p->end[i], data, sizeof data, &e), 0);
        pump(p, steps[k]);
        for (int i = 0; i < 2; i++) {
            assert_int_equal(p->n_got[i], sizeof data);
            assert_memory_equal(p->got[i], data, sizeof data);
        }
        api->shutdown(p->end[0]);
        pump(p, steps[k]);
        assert_int_equal(p->rc[1], ERR_UNREACHABLE);
        close_pair(p);
    }
}

static void test_client_certificate(void **state)
{
    struct pair *p = open_pair("ca.crt", "alice", "head-1");
    char print[TLS_FINGERPRINT];

    (void)state;
    pump(p, 4096);
    assert_int_equal(p->rc[0], 0);
    api->fingerprint(p->end[0], print);
    assert_string_equal(print, client_print);
    assert_int_equal(strlen(print), TLS_FINGERPRINT - 1);
    close_pair(p);
}

static void test_strangers(void **state)
{
    struct pair *p = open_pair("ca.crt", "mallory", "localhost");
    char print[TLS_FINGERPRINT];

    (void)state;
    pump(p, 4096); /* a client's certificate of another authority */
    assert_int_equal(p->rc[0], ERR_DENIED);
    assert_int_equal(p->rc[1], ERR_DENIED);
    api->fingerprint(p->end[0], print);
    assert_string_equal(print, "");
    close_pair(p);
    p = open_pair("other.crt", NULL, "localhost"); /* a server's */
    pump(p, 4096);
    assert_int_equal(p->rc[1], ERR_DENIED);
    assert_non_null(strstr(p->e[1].mend, "ca.crt"));
    close_pair(p);
    p = open_pair("ca.crt", NULL, "elsewhere"); /* the wrong host */
    pump(p, 4096);
    assert_int_equal(p->rc[1], ERR_DENIED);
    assert_non_null(strstr(p->e[1].mend, "--host"));
    close_pair(p);
    p = open_pair("ca.crt", NULL, "127.0.0.2");
    pump(p, 4096);
    assert_int_equal(p->rc[1], ERR_DENIED);
    close_pair(p);
}

static void test_garbage(void **state)
{
    static const char *const said[] = {"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
                                       "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
                                       "\x17\x03\x03\xff\xff", "\x80\x2e\x01\x03\x01",
                                       "HONE\x01\x02\x03\x04\x05\x06\x07\x08"};

    (void)state;
    for (size_t i = 0; i < sizeof said / sizeof *said; i++) {
        struct pair *p = open_pair("ca.crt", NULL, "localhost");
        size_t n = i == 1 ? 11 : i == 2 ? 5 : strlen(said[i]);

        assert_int_equal(api->feed(p->end[0], said[i], n, &p->e[0]), 0);
        take(p, 0);
        assert_false(api->established(p->end[0]));
        if (i != 1 && i != 3) /* heads of a hello: more is awaited */
            assert_int_equal(p->rc[0], ERR_CORRUPT);
        close_pair(p);
    }
}

static void test_files(void **state)
{
    struct tls_issue what = {.name = "again", .days = 1};
    struct tls_files files = {NULL, in_dir("server.crt"), in_dir("alice.key")};
    struct tls_context *c;
    char print[TLS_FINGERPRINT];
    struct stat st;
    struct err e;

    (void)state;
    assert_int_equal(stat(in_dir("ca.key"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    what.certificate = in_dir("again.crt");
    what.key = in_dir("ca.key"); /* is there: stays as it is */
    assert_int_equal(api->issue(&what, print, &e), ERR_CONFIG);
    assert_false(file_exists(in_dir("again.crt")));
    assert_int_equal(api->context_open(&c, &files, 1, &e), ERR_CONFIG);
    files.certificate = in_dir("nothing.crt");
    assert_int_equal(api->context_open(&c, &files, 1, &e), ERR_CONFIG);
    assert_non_null(strstr(e.msg, "nothing.crt"));
    assert_null(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_handshake_and_data),
        cmocka_unit_test(test_client_certificate),
        cmocka_unit_test(test_strangers),
        cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_files),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
