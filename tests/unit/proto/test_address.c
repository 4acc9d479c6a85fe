/* Addresses: what is accepted, and what is refused with a mend. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "proto/address.h"
#include "proto/transport.h"

static void test_good(void **state)
{
    static const struct {
        const char *text, *host, *port;
        enum address_kind kind;
    } good[] = {
        {"tcp:localhost:4663", "localhost", "4663", ADDRESS_TCP},
        {"head-1.example.org:1", "head-1.example.org", "1", ADDRESS_TCP},
        {"[::1]:70", "::1", "70", ADDRESS_TCP},
        {"http:127.0.0.1:0", "127.0.0.1", "0", ADDRESS_HTTP},
        {"https:[fe80::1%eth0]:8443", NULL, NULL, ADDRESS_HTTPS},
        {"tcp:0.0.0.0:0065535", "0.0.0.0", "65535", ADDRESS_TCP},
    };
    struct address a;
    struct err e;

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        int rc = address_parse(good[i].text, &a, &e);

        if (!good[i].host) { /* names of interfaces are not ours to judge: hex alone */
            assert_int_equal(rc, ERR_CONFIG);
            continue;
        }
        assert_int_equal(rc, 0);
        assert_int_equal(a.kind, good[i].kind);
        assert_string_equal(a.host, good[i].host);
        assert_string_equal(a.port, good[i].port);
    }
    assert_int_equal(address_parse("unix:/a/b", &a, &e), 0);
    assert_string_equal(a.path, "/a/b");
}

static void test_bad(void **state)
{
    static const char *const bad[] = {
        "",         "host",      "tcp:host",  "tcp::1",    "host:",      "tcp:h:65536",
        "tcp:h:-1", "tcp:h: 1",  "tcp:h:1x",  "tcp:a b:1", "tcp:[::1]1", "tcp:[::1:1",
        "[]:1",     "ftp:h:1",   "/a/b:1",    "unix:",     "tcp:-h:1",   "tcp:a/b:1",
        "a:b:c",    "tcp:a,b:1", "tcp:[h]:1", "::1:70"};
    struct address a;
    struct err e;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (address_parse(bad[i], &a, &e) >= 0)
            fail_msg("\"%s\" was accepted", bad[i]);
}

static void test_loopback(void **state)
{
    static const struct {
        const char *text;
        int yes;
    } cases[] = {{"tcp:127.0.0.1:1", 1}, {"tcp:127.8.9.1:1", 1},      {"tcp:[::1]:1", 1},
                 {"tcp:0.0.0.0:1", 0},   {"tcp:[::]:1", 0},           {"tcp:10.0.0.1:1", 0},
                 {"tcp:128.0.0.1:1", 0}, {"tcp:[::ffff:7f00:1]:1", 1}};
    struct address a;
    struct err e;
    int yes;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(address_parse(cases[i].text, &a, &e), 0);
        assert_int_equal(transport_is_loopback(&a, &yes, &e), 0);
        if (yes != cases[i].yes)
            fail_msg("%s: %d", cases[i].text, yes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_loopback),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
