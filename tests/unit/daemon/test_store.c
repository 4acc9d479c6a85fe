/* The store: what was acknowledged is there after the process was killed at any moment;
 * what an earlier daemon left unfinished is marked; foreign files are refused. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/rng.h"
#include "daemon/store/store.h"

enum { KILLS = 25 };

static int set_up(void **state)
{
    static char dir[64];

    snprintf(dir, sizeof dir, "/tmp/hone-test-XXXXXX");
    *state = dir;
    return mkdtemp(dir) ? 0 : -1;
}

static int tear_down(void **state)
{
    struct err e;

    return file_remove_tree(*state, &e);
}

static struct store *open_store(const char *dir)
{
    struct store *s;
    struct err e;

    if (store_open(&s, dir, STORE_DURABLE, &e))
        fail_msg("%s", e.msg);
    return s;
}

static struct job_stage two_stages[] = {{.name = "sft"}, {.name = "rm"}};
static const char *settings[] = {"a=\"b\"", "c=d"};

static struct job make_job(void)
{
    return (struct job){.name = "toy",
                        .file = "/job.yaml",
                        .run = "/run",
                        .set = settings,
                        .n_set = 2,
                        .stage = two_stages,
                        .n_stages = 2};
}

static void assert_state(struct store *s, uint64_t id, enum job_state want)
{
    enum job_state got;
    struct err e;

    if (store_job_state(s, id, &got, &e))
        fail_msg("job %llu: %s", (unsigned long long)id, e.msg);
    assert_int_equal(got, want);
}

static void test_there_after_reopening(void **state)
{
    struct store *s = open_store(*state);
    struct job a = make_job(), b = make_job();
    enum job_state got;
    struct err e;

    assert_int_equal(store_add_job(s, &a, &e), 0);
    assert_int_equal(store_add_job(s, &b, &e), 0);
    assert_int_equal(a.id, 1);
    assert_int_equal(b.id, 2);
    a.state = JOB_FAILED;
    a.exit_status = 1;
    a.message = "it's broken";
    assert_int_equal(store_save_job(s, &a, &e), 0);
    store_close(s);

    s = open_store(*state);
    assert_state(s, 1, JOB_FAILED);
    assert_state(s, 2, JOB_QUEUED);
    assert_int_equal(store_job_state(s, 3, &got, &e), ERR_CONFIG);
    store_close(s);
}

static void test_unfinished_jobs_are_marked(void **state)
{
    struct store *s = open_store(*state);
    struct job a = make_job(), b = make_job();
    struct err e;
    int n;

    assert_int_equal(store_add_job(s, &a, &e), 0);
    b.state = JOB_DONE;
    assert_int_equal(store_add_job(s, &b, &e), 0);
    store_close(s);
    s = open_store(*state);
    assert_int_equal(store_recover(s, &n, &e), 0);
    assert_int_equal(n, 1);
    assert_state(s, 1, JOB_FAILED);
    assert_state(s, 2, JOB_DONE);
    assert_int_equal(store_recover(s, &n, &e), 0);
    assert_int_equal(n, 0);
    store_close(s);
}

/* Adds and changes jobs until it is killed; tells every id once it is acknowledged. */
static void work(const char *dir, int tell)
{
    struct store *s;
    struct err e;

    if (store_open(&s, dir, STORE_DURABLE, &e))
        _exit(1);
    for (;;) {
        struct job j = make_job();

        if (store_add_job(s, &j, &e) || write(tell, &j.id, sizeof j.id) != sizeof j.id)
            _exit(1);
        j.state = JOB_RUNNING;
        if (store_save_job(s, &j, &e))
            _exit(1);
    }
}

static void test_killed_at_any_moment(void **state)
{
    uint64_t known = 0, id;
    struct rng r;

    rng_init(&r, 7);
    for (int i = 0; i < KILLS; i++) {
        struct store *s;
        int tell[2], status;
        pid_t pid;

        assert_int_equal(pipe(tell), 0);
        pid = fork();
        assert_true(pid >= 0);
        if (!pid) {
            close(tell[0]);
            work(*state, tell[1]);
        }
        close(tell[1]);
        usleep(2000 + rng_below(&r, 30000));
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
        assert_true(WIFSIGNALED(status));
        while (read(tell[0], &id, sizeof id) == sizeof id) {
            assert_true(id > known);
            known = id;
        }
        close(tell[0]);
        s = open_store(*state);
        for (uint64_t k = 1; k <= known; k++) {
            enum job_state got;
            struct err e;

            assert_int_equal(store_job_state(s, k, &got, &e), 0);
            assert_true(got == JOB_QUEUED || got == JOB_RUNNING);
        }
        store_close(s);
    }
    assert_true(known > 0);
}

static void test_foreign_file(void **state)
{
    char path[128];
    struct store *s;
    struct err e;

    snprintf(path, sizeof path, "%s/jobs.db", (char *)*state);
    assert_int_equal(file_write_atomic(path, "this is no database, not at all", 31, &e), 0);
    assert_int_equal(store_open(&s, *state, STORE_DURABLE, &e), ERR_CORRUPT);
    assert_non_null(strstr(e.msg, "jobs.db"));
    assert_null(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
        T(test_there_after_reopening),
        T(test_unfinished_jobs_are_marked),
        T(test_killed_at_any_moment),
        T(test_foreign_file),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
