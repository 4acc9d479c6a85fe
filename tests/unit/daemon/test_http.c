/* JSON over HTTP above a server that is not there: routes, who may come, what other sites
 * get (nothing), errors, streams, and every method with every kind of credential. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "daemon/auth.h"
#include "daemon/event.h"
#include "daemon/http.h"
#include "daemon/rpc.h"
#include "daemon/watch.h"
#include "tests/quiet_io.h"

static const char print_c[] =
    "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

static struct {
    char dir[64];
    char token[4][AUTH_TOKEN_SIZE], bearer[4][AUTH_TOKEN_SIZE + 8];
    struct quiet q;
    struct store *store;
    struct auth *auth;
    struct daemon d;
} w;

static int set_up(void **state)
{
    struct err e;

    (void)state;
    snprintf(w.dir, sizeof w.dir, "/tmp/hone-test-XXXXXX");
    quiet_open(&w.q);
    if (!mkdtemp(w.dir) || store_open(&w.store, w.dir, STORE_EPHEMERAL, &e) ||
        auth_open(&w.auth, w.dir, &e))
        return -1;
    for (int role = ACCESS_VIEWER; role <= ACCESS_ADMIN; role++) {
        if (auth_add_token(w.dir, access_role_name((enum access_role)role),
                           (enum access_role)role, w.token[role], &e))
            return -1;
        snprintf(w.bearer[role], sizeof w.bearer[role], "Bearer %s", w.token[role]);
    }
    if (auth_add_certificate(w.dir, "carol", ACCESS_VIEWER, print_c, &e))
        return -1;
    daemon_init(&w.d, &w.q.io, w.store, w.dir, "unix:/nowhere", 0);
    w.d.auth = w.auth;
    return 0;
}

static int tear_down(void **state)
{
    struct err e;

    (void)state;
    daemon_fini(&w.d);
    store_close(w.store);
    auth_close(w.auth);
    quiet_close_all(&w.q);
    return file_remove_tree(w.dir, &e);
}

static const struct io_request plain = {.method = "POST",
                                        .path = "/hone.v1.Hone/List",
                                        .host = "localhost:8080",
                                        .content_type = "application/json",
                                        .body = ""};

/* Its status, 0: no answer yet. Errors are JSON with a status, a code and a message. */
static int ask(const struct io_request *r)
{
    const char *code;
    json_t *v, *error;
    struct err e;

    w.q.status = w.q.responses = w.q.closed = 0;
    str_clear(&w.q.out);
    w.q.io.events->requested(w.q.io.ctx, QUIET_ID, r);
    assert_true(w.q.responses <= 1);
    if (w.q.status >= 400) {
        assert_string_equal(w.q.type, "application/json");
        assert_int_equal(json_parse("answer", str_get(&w.q.body), w.q.body.len, &v, &e), 0);
        error = json_object_get(v, "error");
        assert_true(json_is_integer(json_object_get(error, "status")));
        assert_true(json_is_string(json_object_get(error, "code")));
        code = json_string_value(json_object_get(error, "code"));
        assert_int_equal(strspn(code, "abcdefghijklmnopqrstuvwxyz_"), strlen(code));
        assert_true(json_is_string(json_object_get(error, "message")));
        json_decref(v);
    }
    return w.q.status;
}

static void end(void)
{
    w.q.io.events->closed(w.q.io.ctx, QUIET_ID);
    assert_null(w.d.http_calls);
}

static int as(enum access_role role, struct io_request r)
{
    int status;

    r.authorization = w.bearer[role];
    status = ask(&r);
    end();
    return status;
}

/* ---- tests ---- */

static void test_routes(void **state)
{
    static const struct {
        const char *method, *path;
        int status;
    } cases[] = {
        {"POST", "/hone.v1.Hone/List", 200},
        {"POST", "/hone.v1.Hone/Status", 200},
        {"GET", "/metrics", 200},
        {"HEAD", "/metrics", 200},
        {"POST", "/metrics", 405},
        {"GET", "/hone.v1.Hone/List", 405},
        {"PUT", "/hone.v1.Hone/List", 405},
        {"OPTIONS", "/hone.v1.Hone/List", 405},
        {"POST", "/hone.v1.Hone/list", 404},
        {"POST", "/hone.v1.Hone/", 404},
        {"POST", "/hone.v1.Hone/List/", 404},
        {"POST", "/hone.v1.Hone/../hone.v1.Hone/List", 404},
        {"POST", "/hone.v1.Hone/List%2f..", 404},
        {"GET", "/", 200},
        {"HEAD", "/app.js", 200},
        {"POST", "/style.css", 405},
        {"GET", "/web/app.js", 404},
        {"GET", "", 404},
        {"GET", "/../../etc/passwd", 404},
        {"GET", "//metrics", 404},
        {"GET", "/metrics/", 404},
        {"GET", "/proc/self/environ", 404},
        {"POST", "/hone.v1.Hone", 404},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct io_request r = plain;
        int got;

        r.method = cases[i].method;
        r.path = cases[i].path;
        got = as(ACCESS_ADMIN, r);
        if (got != cases[i].status)
            fail_msg("%s %s: %d, not %d", r.method, r.path, got, cases[i].status);
    }
}

static void test_metrics(void **state)
{
    struct io_request r = plain;

    (void)state;
    r.method = "GET";
    r.path = "/metrics";
    r.content_type = NULL;
    assert_int_equal(as(ACCESS_VIEWER, r), 200);
    assert_non_null(strstr(str_get(&w.q.body), "\nhone_jobs{state=\"queued\"} 0\n"));
    assert_non_null(strstr(w.q.type, "version=0.0.4"));
    assert_int_equal(ask(&r), 401);
    assert_true(w.q.asks_token);
}

/* The page is for everybody, and is what was built in, to the last byte. */
static void test_page(void **state)
{
    struct io_request r = plain;

    (void)state;
    r.method = "GET";
    r.path = "/";
    r.content_type = NULL;
    assert_int_equal(ask(&r), 200);
    assert_string_equal(w.q.type, "text/html; charset=utf-8");
    assert_memory_equal(str_get(&w.q.body), "<!DOCTYPE html>", 15);
    assert_string_equal(str_get(&w.q.body) + w.q.body.len - 8, "</html>\n");
    r.host = "evil.example";
    assert_int_equal(ask(&r), 403);
}

/* DNS rebinding and pages of other sites: refused before the credential is looked at. */
static void test_strangers(void **state)
{
    static const struct {
        const char *host, *origin, *site;
        int tls, status;
    } cases[] = {
        {"localhost:8080", NULL, NULL, 0, 200},
        {"LOCALHOST", NULL, NULL, 0, 200},
        {"127.0.0.1:8080", "http://127.0.0.1:8080", "same-origin", 0, 200},
        {"[::1]:8080", NULL, "none", 0, 200},
        {"[::1]", NULL, NULL, 0, 200},
        {NULL, NULL, NULL, 0, 403},
        {"", NULL, NULL, 0, 403},
        {"evil.example:8080", NULL, NULL, 0, 403},
        {"127.0.0.1.evil.example", NULL, NULL, 0, 403},
        {"localhost.evil.example", NULL, NULL, 0, 403},
        {"localhost:8080", "http://evil.example", NULL, 0, 403},
        {"localhost:8080", "https://localhost:8080", NULL, 0, 403},
        {"localhost:8080", "http://localhost:8081", NULL, 0, 403},
        {"localhost:8080", "null", NULL, 0, 403},
        {"localhost:8080", "", NULL, 0, 403},
        {"localhost:8080", NULL, "cross-site", 0, 403},
        {"localhost:8080", NULL, "same-site", 0, 403},
        {"head-1:8443", NULL, NULL, 1, 200}, /* the certificate says who it is */
        {"head-1:8443", "https://head-1:8443", NULL, 1, 200},
        {"head-1:8443", "https://evil.example", NULL, 1, 403},
        {"head-1:8443", "http://head-1:8443", NULL, 1, 403},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct io_request r = plain;
        int got;

        r.host = cases[i].host;
        r.origin = cases[i].origin;
        r.fetch_site = cases[i].site;
        r.tls = cases[i].tls;
        got = as(ACCESS_ADMIN, r);
        if (got != cases[i].status)
            fail_msg("case %zu: %d, not %d", i, got, cases[i].status);
    }
}

static void test_content_types(void **state)
{
    static const char *const good[] = {"application/json",
                                       "Application/JSON; charset=utf-8"};
    static const char *const bad[] = {NULL,
                                      "",
                                      "text/plain",
                                      "application/jsonp",
                                      "application/x-www-form-urlencoded",
                                      "multipart/form-data; boundary=application/json"};
    struct io_request r = plain;

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        r.content_type = good[i];
        assert_int_equal(as(ACCESS_VIEWER, r), 200);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        r.content_type = bad[i];
        assert_int_equal(as(ACCESS_VIEWER, r), 415);
    }
}

static void test_errors(void **state)
{
    struct io_request r = plain;
    const char *body;

    (void)state;
    r.path = "/hone.v1.Hone/GetJob";
    r.body = "{\"idd\": 1}";
    r.n = strlen(r.body);
    assert_int_equal(as(ACCESS_VIEWER, r), 400);
    body = str_get(&w.q.body);
    assert_non_null(strstr(body, "\"status\": 2"));
    assert_non_null(strstr(body, "\"field\": \"idd\""));
    assert_non_null(strstr(body, "\"mend\": \"did you mean \\\"id\\\"?\""));
    r.body = "{\"id\": 1}";
    r.n = strlen(r.body);
    assert_int_equal(as(ACCESS_VIEWER, r), 400);
    assert_non_null(strstr(str_get(&w.q.body), "no job 1"));
    r.n_arguments = IO_ARGUMENTS_MAX + 1;
    assert_int_equal(as(ACCESS_VIEWER, r), 400);
    r.n_arguments = 0;
    r.authorization = "Basic YTpi";
    assert_int_equal(ask(&r), 401);
    r.authorization = "Bearer ";
    assert_int_equal(ask(&r), 401);
    r.authorization = "Bearer hone_wrong";
    assert_int_equal(ask(&r), 401);
    r.authorization = NULL;
    memcpy(r.peer.certificate, print_c, sizeof print_c);
    assert_int_equal(ask(&r), 400);
    end();
    r.peer.local = 1; /* whatever the transport says: HTTP needs a credential */
    r.peer.certificate[0] = '\0';
    assert_int_equal(ask(&r), 401);
}

/* Every method as everybody, as test_auth.c does over frames. */
static void test_matrix(void **state)
{
    const ProtobufCServiceDescriptor *s = rpc_service.base.descriptor;
    char path[128];

    (void)state;
    for (unsigned i = 0; i < s->n_methods; i++) {
        struct io_request r = plain;
        enum access_need need;

        snprintf(path, sizeof path, "/hone.v1.Hone/%s", s->methods[i].name);
        r.path = path;
        assert_int_equal(ask(&r), 401);
        r.authorization = "Bearer wrong";
        assert_int_equal(ask(&r), 401);
        assert_int_equal(access_of_method(s->methods[i].name, &need), 0);
        for (int role = ACCESS_VIEWER; role <= ACCESS_ADMIN; role++) {
            int got = as((enum access_role)role, r);
            int refused = role == ACCESS_VIEWER && need != ACCESS_VIEW;

            if ((got == 403) != refused || got == 401)
                fail_msg("%s as %s: %d", s->methods[i].name,
                         access_role_name((enum access_role)role), got);
        }
    }
}

/* The streams are those of the .proto file. */
static void test_streams_are_known(void **state)
{
    const ProtobufCServiceDescriptor *s = rpc_service.base.descriptor;
    char *text, line[64];
    size_t n;
    struct err e;

    (void)state;
    assert_int_equal(file_read("proto/hone.proto", 1 << 20, &text, &n, &e), 0);
    for (unsigned i = 0; i < s->n_methods; i++) {
        const char *at;

        snprintf(line, sizeof line, "rpc %s (", s->methods[i].name);
        at = strstr(text, line);
        assert_non_null(at);
        at = strstr(at, "returns (");
        if (str_starts(at, "returns (stream ") != http_is_stream(s->methods[i].name))
            fail_msg("%s: is it a stream?", s->methods[i].name);
    }
    mem_free(text);
}

static struct job *add_job(void)
{
    struct job *j = job_new();
    struct err e;

    assert_non_null(j);
    j->name = "toy";
    j->file = "/toy.yaml";
    j->run = "/nowhere/toy";
    j->owner = "somebody";
    assert_int_equal(daemon_add_jobs(&w.d, &j, 1, &e), 0);
    event_state(&w.d, j);
    return j;
}

static void test_watch(void **state)
{
    struct io_request r = plain;
    char id[32], events[128];
    const char *out;
    struct job *j;
    struct err e;
    size_t n;

    (void)state;
    snprintf(events, sizeof events, "%s/events", w.dir);
    assert_int_equal(file_make_dirs(events, &e), 0);
    j = add_job();
    snprintf(id, sizeof id, "%llu", (unsigned long long)j->id);
    r.method = "GET";
    r.path = "/hone.v1.Hone/Watch";
    r.content_type = NULL;
    r.authorization = w.bearer[ACCESS_VIEWER];
    r.name[0] = "id";
    r.value[0] = id;
    r.n_arguments = 1;
    assert_int_equal(ask(&r), 200);
    assert_true(w.q.stream);
    assert_string_equal(w.q.type, "text/event-stream");
    out = str_get(&w.q.out);
    assert_non_null(strstr(out, "data: {\"job\": "));
    assert_non_null(strstr(out, "\"name\": \"toy\""));
    assert_true(str_ends(out, "}\n\n"));
    assert_true(watch_count(&w.d) == 1);
    end(); /* the client leaves */
    assert_true(watch_count(&w.d) == 0);

    /* Going on: what Last-Event-ID says counts. */
    r.last_event_id = "0";
    assert_int_equal(ask(&r), 200);
    assert_true(str_starts(str_get(&w.q.out), "id: 1\ndata: "));
    end();
    r.last_event_id = "x";
    assert_int_equal(ask(&r), 400);
    end();
    r.last_event_id = "-1";
    assert_int_equal(ask(&r), 400);
    end();

    /* Its credential is revoked meanwhile: the stream ends. */
    r.last_event_id = NULL;
    assert_int_equal(ask(&r), 200);
    assert_int_equal(auth_revoke(w.dir, "viewer", &n, &e), 0);
    w.d.http_checked = -100;
    http_tick(&w.d);
    assert_int_equal(w.q.closed, 1);
    assert_true(watch_count(&w.d) == 0);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_routes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_page, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_metrics, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_strangers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_content_types, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_errors, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_matrix, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_streams_are_known, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_watch, set_up, tear_down),
    };

    log_set_level(LOG_ERROR + 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
