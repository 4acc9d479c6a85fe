/* Addresses, private folders and peers on Unix sockets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "proto/channel.h"
#include "proto/transport.h"

static void test_addresses(void **state)
{
    char address[300];
    struct err e;
    int fd;

    (void)state;
    assert_int_equal(transport_listen("tcp:1.2.3.4:5", &fd, &e), ERR_UNSUPPORTED);
    assert_int_equal(transport_connect("http:127.0.0.1:5", &fd, &e), ERR_UNSUPPORTED);
    assert_int_equal(transport_listen("unix:", &fd, &e), ERR_CONFIG);
    memset(address, 'x', sizeof address);
    memcpy(address, "unix:/", 6);
    address[5 + TRANSPORT_PATH_MAX + 1] = '\0';
    assert_int_equal(transport_connect(address, &fd, &e), ERR_CONFIG);
    assert_non_null(strstr(e.msg, "108 bytes"));
    assert_int_equal(transport_connect("unix:/nowhere/socket", &fd, &e), ERR_UNREACHABLE);
    assert_int_equal(fd, -1);
}

static void test_private_folder(void **state)
{
    char base[32] = "/tmp/hone-test-XXXXXX", deep[128], dir[256], address[300];
    struct stat st;
    struct err e;
    int fd, peer;

    (void)state;
    assert_non_null(mkdtemp(base));
    memset(deep, 'd', sizeof deep);
    memcpy(deep, base, strlen(base));
    deep[strlen(base)] = '/';
    deep[sizeof deep - 1] = '\0';
    assert_int_equal(mkdir(deep, 0700), 0);

    /* The first is too long for a socket's path, the second serves. */
    setenv("XDG_RUNTIME_DIR", deep, 1);
    setenv("TMPDIR", base, 1);
    assert_int_equal(transport_private_dir(dir, sizeof dir, &e), 0);
    assert_int_equal(strncmp(dir, base, strlen(base)), 0);
    assert_int_equal(stat(dir, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);

    snprintf(address, sizeof address, "unix:%s/socket", dir);
    assert_int_equal(transport_listen(address, &fd, &e), 0);
    assert_int_equal(stat(address + 5, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(transport_connect(address, &peer, &e), 0);
    assert_int_equal(transport_peer_allowed(peer, &e), 0);
    close(peer);
    close(fd);

    /* A socket that nobody serves is no obstacle; a file of another kind is. */
    assert_int_equal(transport_connect(address, &peer, &e), ERR_UNREACHABLE);
    assert_int_equal(transport_listen(address, &fd, &e), 0);
    close(fd);
    transport_unlink(address);
    assert_int_equal(file_write_atomic(address + 5, "x", 1, &e), 0);
    assert_int_equal(transport_listen(address, &fd, &e), ERR_IO);
    file_remove_tree(base, &e);
}

/* Somebody listens, and says nothing: who greets does not wait for ever. */
static void test_silence(void **state)
{
    char dir[] = "/tmp/hone-test-XXXXXX", address[64];
    struct channel_target to = {.address = address};
    struct channel c = {.fd = -1};
    struct err e;
    int fd;

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(address, sizeof address, "unix:%s/socket", dir);
    assert_int_equal(transport_listen(address, &fd, &e), 0);
    assert_int_equal(channel_open(&c, &to, 1, &e), 0);
    assert_int_equal(channel_greet(&c, "test", NULL, 0.05, &e), ERR_UNREACHABLE);
    assert_string_equal(e.msg, "the daemon does not answer");
    channel_close(&c);
    channel_close(&c);
    close(fd);
    file_remove_tree(dir, &e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_private_folder),
        cmocka_unit_test(test_silence),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
