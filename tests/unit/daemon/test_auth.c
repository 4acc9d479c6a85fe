/* Who may do what: the file of credentials, and every method of the service tried with
 * every kind of credential. */
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "daemon/admit.h"
#include "daemon/auth.h"
#include "daemon/daemon.h"
#include "daemon/rpc.h"
#include "tests/unit/daemon/quiet_talk.h"

static char dir[64];

static int set_up(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/hone-test-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int tear_down(void **state)
{
    struct err e;

    (void)state;
    return file_remove_tree(dir, &e);
}

static const char print_a[] =
    "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
static const char print_b[] =
    "ff112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/* ---- the file ---- */

static void test_tokens(void **state)
{
    char one[AUTH_TOKEN_SIZE], two[AUTH_TOKEN_SIZE], path[128], *text;
    struct access who, other;
    struct auth *a;
    struct stat st;
    struct err e;
    size_t n;

    (void)state;
    assert_int_equal(auth_open(&a, dir, &e), 0);
    assert_int_equal(auth_who(a, "anything", NULL, &who, &e), ERR_DENIED);
    assert_int_equal(auth_add_token(dir, "alice", ACCESS_OPERATOR, one, &e), 0);
    assert_int_equal(auth_add_token(dir, "alice", ACCESS_VIEWER, two, &e), 0);
    assert_int_equal(auth_add_certificate(dir, "bob@x", ACCESS_ADMIN, print_a, &e), 0);
    assert_string_not_equal(one, two);
    assert_int_equal(strlen(one), strlen("hone_") + 43);

    /* The file has hashes, not tokens, and is ours alone. */
    snprintf(path, sizeof path, "%s/credentials", dir);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(file_read(path, 1 << 20, &text, &n, &e), 0);
    assert_null(strstr(text, one + 5));
    mem_free(text);

    assert_int_equal(auth_who(a, one, NULL, &who, &e), 0);
    assert_string_equal(who.user, "alice");
    assert_int_equal(who.role, ACCESS_OPERATOR);
    assert_int_equal(auth_who(a, two, print_a, &other, &e), 0); /* the token counts */
    assert_int_equal(other.role, ACCESS_VIEWER);
    assert_int_equal(auth_who(a, NULL, print_a, &other, &e), 0);
    assert_string_equal(other.user, "bob@x");
    assert_int_equal(auth_who(a, "", print_b, &other, &e), ERR_DENIED);
    assert_int_equal(auth_who(a, print_a, NULL, &other, &e), ERR_DENIED); /* not a token */
    assert_int_equal(auth_who(a, NULL, "00", &other, &e), ERR_DENIED);
    assert_int_equal(auth_who(a, NULL, NULL, &other, &e), ERR_DENIED);
    assert_true(e.mend[0]);
    assert_int_equal(other.role, ACCESS_NOBODY);

    /* Revoked by id: the other stays; by name: none. */
    assert_int_equal(auth_still(a, &who, &e), 0);
    who.credential[AUTH_ID - 1] = '\0';
    assert_int_equal(auth_revoke(dir, who.credential, &n, &e), 0);
    assert_int_equal(n, 1);
    assert_int_equal(auth_who(a, one, NULL, &who, &e), ERR_DENIED);
    assert_int_equal(auth_who(a, two, NULL, &who, &e), 0);
    assert_int_equal(auth_revoke(dir, "alice", &n, &e), 0);
    assert_int_equal(n, 1);
    assert_int_equal(auth_still(a, &who, &e), ERR_DENIED);
    assert_int_equal(auth_revoke(dir, "alice", &n, &e), 0);
    assert_int_equal(n, 0);
    assert_int_equal(auth_count(a, &n, &e), 0);
    assert_int_equal(n, 1);
    auth_close(a);
}

static void test_bad_files(void **state)
{
    static const char *const bad[] = {
        "token alice operator 00 1\n", "token alice root %s 1\n",
        "key alice viewer %s 1\n",     "token a/b viewer %s 1\n",
        "token alice viewer %s\n",     "token alice viewer %s x\n",
        "token alice viewer %s 1 1\n", "token alice nobody %s 1\n"};
    char path[128], text[256];
    struct access who;
    struct auth *a;
    struct err e;

    (void)state;
    snprintf(path, sizeof path, "%s/credentials", dir);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const char *mark = strstr(bad[i], "%s");

        snprintf(text, sizeof text, "%.*s%s%s", mark ? (int)(mark - bad[i]) : 99, bad[i],
                 mark ? print_a : "", mark ? mark + 2 : "");
        assert_int_equal(file_write_atomic(path, text, strlen(text), &e), 0);
        assert_int_equal(chmod(path, 0600), 0);
        assert_int_equal(auth_open(&a, dir, &e), 0);
        assert_int_equal(auth_who(a, NULL, print_a, &who, &e), ERR_CORRUPT);
        assert_non_null(strstr(e.msg, "line 1"));
        auth_close(a);
    }
    snprintf(text, sizeof text, "certificate alice viewer %s 1\n", print_a);
    assert_int_equal(file_write_atomic(path, text, strlen(text), &e), 0);
    assert_int_equal(chmod(path, 0640), 0);
    assert_int_equal(auth_open(&a, dir, &e), 0);
    assert_int_equal(auth_who(a, NULL, print_a, &who, &e), ERR_DENIED);
    assert_non_null(strstr(e.mend, "chmod 600"));
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(auth_who(a, NULL, print_a, &who, &e), 0);
    auth_close(a);
}

static void test_names(void **state)
{
    static const char *const bad[] = {"", "-a", "a b", "a\n", "ä", "a/b", "../a"};
    char token[AUTH_TOKEN_SIZE], longest[80];
    struct err e;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(auth_add_token(dir, bad[i], ACCESS_VIEWER, token, &e), ERR_USAGE);
    memset(longest, 'x', sizeof longest);
    longest[ACCESS_NAME_MAX] = '\0';
    assert_int_equal(auth_check_name(longest, &e), ERR_USAGE);
    longest[ACCESS_NAME_MAX - 1] = '\0';
    assert_int_equal(auth_check_name(longest, &e), 0);
}

/* ---- the matrix ---- */

static struct quiet w;

/* Connect with a credential: the status of the refusal, 0: let in. */
static int enter(const char *token, const char *certificate)
{
    int status;

    snprintf(w.peer.certificate, sizeof w.peer.certificate, "%s", certificate);
    w.closed = w.settled = 0;
    status = quiet_enter(&w, token);
    assert_int_equal(w.closed, status != 0);
    assert_int_equal(w.settled, status == 0);
    return status;
}

/* Call with an empty request: the status of the error, 0: none. */
static int call(const char *method)
{
    Hone__V1__Call c = HONE__V1__CALL__INIT;
    Hone__V1__Reply *r;
    int status;

    c.id = 1;
    c.method = (char *)(uintptr_t)method;
    quiet_say(&w, &c.base);
    r = (Hone__V1__Reply *)quiet_answer(&w, &hone__v1__reply__descriptor);
    status = r->error ? (int)r->error->status : 0;
    message_free(&r->base);
    return status;
}

/* What viewers may: a method that is new is not theirs before it stands here. */
static int is_for_viewers(const char *method)
{
    static const char *const names[] = {"GetJob",  "Watch",  "List", "Logs",
                                        "Metrics", "Status", "Nodes"};

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(method, names[i]))
            return 1;
    return 0;
}

static void test_matrix(void **state)
{
    const ProtobufCServiceDescriptor *service = rpc_service.base.descriptor;
    char token[4][AUTH_TOKEN_SIZE];
    struct store *store;
    struct daemon d;
    struct auth *a;
    struct err e;

    (void)state;
    quiet_open(&w);
    assert_int_equal(store_open(&store, dir, STORE_EPHEMERAL, &e), 0);
    assert_int_equal(auth_open(&a, dir, &e), 0);
    for (int role = ACCESS_VIEWER; role <= ACCESS_ADMIN; role++)
        assert_int_equal(
            auth_add_token(dir, "someone", (enum access_role)role, token[role], &e), 0);
    daemon_init(&d, &w.io, store, dir, "unix:/nowhere", 0);
    d.auth = a;

    /* none and wrong ones: not even the door opens, whatever the method */
    assert_int_equal(enter(NULL, ""), 5);
    assert_int_equal(enter("hone_wrong", ""), 5);
    assert_int_equal(enter(NULL, print_b), 5);
    assert_null(d.conns);
    for (int role = ACCESS_VIEWER; role <= ACCESS_ADMIN; role++) {
        for (unsigned i = 0; i < service->n_methods; i++) {
            const char *method = service->methods[i].name;
            enum access_need need;
            int want = role == ACCESS_VIEWER && !is_for_viewers(method) ? 5 : 0, got;

            if (access_of_method(method, &need))
                fail_msg("%s has no rule: add it to daemon/access.c", method);
            assert_int_equal(enter(token[role], ""), 0);
            got = call(method);
            if ((got == 5) != (want == 5))
                fail_msg("%s as %s: status %d", method,
                         access_role_name((enum access_role)role), got);
            w.io.events->closed(w.io.ctx, QUIET_ID);
            str_clear(&w.out);
        }
        assert_int_equal(enter(token[role], ""), 0);
        assert_int_equal(call("NoSuchMethod"), 2);
        w.io.events->closed(w.io.ctx, QUIET_ID);
    }

    /* A local peer needs no credential. Nobody gets in where there is no file at all. */
    w.peer.local = 1;
    assert_int_equal(enter(NULL, ""), 0);
    assert_int_equal(call("GetJob"), 2);
    w.io.events->closed(w.io.ctx, QUIET_ID);
    w.peer.local = 0;
    d.auth = NULL;
    assert_int_equal(enter(token[ACCESS_ADMIN], ""), 5);
    d.auth = a;

    daemon_fini(&d);
    store_close(store);
    auth_close(a);
    quiet_close_all(&w);
}

/* Revoked while connected: refused, and closed within seconds. */
static void test_revoked(void **state)
{
    char token[AUTH_TOKEN_SIZE];
    struct daemon d;
    struct auth *a;
    struct err e;
    size_t n;

    (void)state;
    quiet_open(&w);
    assert_int_equal(auth_open(&a, dir, &e), 0);
    assert_int_equal(auth_add_token(dir, "carol", ACCESS_ADMIN, token, &e), 0);
    daemon_init(&d, &w.io, NULL, "/nowhere", "unix:/nowhere", 0);
    d.auth = a;
    assert_int_equal(enter(token, ""), 0);
    assert_int_equal(call("GetJob"), 2);
    assert_true(conn_next(&d) < INFINITY);
    assert_int_equal(auth_revoke(dir, "carol", &n, &e), 0);
    assert_int_equal(call("GetJob"), 5);
    assert_int_equal(w.closed, 0);
    d.conns_checked = -100;
    conn_tick(&d);
    assert_int_equal(w.closed, 1);
    assert_null(d.conns);
    assert_true(isinf(conn_next(&d)));
    daemon_fini(&d);
    auth_close(a);
    quiet_close_all(&w);
}

static void test_owners(void **state)
{
    struct access who = {.role = ACCESS_OPERATOR, .user = "alice"};
    struct job j = {.id = 1, .owner = "bob"};
    struct err e;

    (void)state;
    assert_int_equal(access_check(&who, ACCESS_STEER, &j, &e), ERR_DENIED);
    assert_int_equal(access_check(&who, ACCESS_VIEW, &j, &e), 0);
    j.owner = "alice";
    assert_int_equal(access_check(&who, ACCESS_STEER, &j, &e), 0);
    who.role = ACCESS_VIEWER;
    assert_int_equal(access_check(&who, ACCESS_STEER, &j, &e), ERR_DENIED);
    who.role = ACCESS_ADMIN;
    j.owner = "bob";
    assert_int_equal(access_check(&who, ACCESS_STEER, &j, &e), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_tokens, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bad_files, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_names, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_matrix, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_revoked, set_up, tear_down),
        cmocka_unit_test(test_owners),
    };

    log_set_level(LOG_ERROR + 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
