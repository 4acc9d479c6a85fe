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

#include "base/fault.h"
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

/* The job as stored, NULL when there is none. */
static struct job *load(struct store *s, uint64_t id)
{
    struct store_filter f = {.id = id};
    struct job *j;
    struct err e;

    if (store_load_job(s, &f, &j, &e))
        fail_msg("job %llu: %s", (unsigned long long)id, e.msg);
    return j;
}

static void assert_state(struct store *s, uint64_t id, enum job_state want)
{
    struct job *j = load(s, id);

    assert_non_null(j);
    assert_int_equal(j->state, want);
    job_free(j);
}

static void test_there_after_reopening(void **state)
{
    struct store *s = open_store(*state);
    struct job a = make_job(), b = make_job();
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
    assert_null(load(s, 3));
    store_close(s);
}

/* Every field that a later daemon needs comes back as it was. */
static void test_round_trip(void **state)
{
    struct store *s = open_store(*state);
    size_t needs[] = {0};
    struct job_stage stage[2] = {{.name = "sft",
                                  .state = STAGE_RUNNING,
                                  .attempt = 3,
                                  .n_cores = 2,
                                  .workers = 2,
                                  .memory = (uint64_t)5 << 40,
                                  .steps = 77,
                                  .token = "secret",
                                  .asked = ASKED_STOP,
                                  .restarts = {1, 0, 2},
                                  .started = 12.5},
                                 {.name = "rm",
                                  .needs = needs,
                                  .n_needs = 1,
                                  .status = 139,
                                  .message = "m",
                                  .mend = "n",
                                  .fresh = 1,
                                  .ended = 4}};
    struct job a = make_job(), *b;
    struct err e;

    cores_add(&stage[0].cores, 1);
    cores_add(&stage[0].cores, 1000);
    a.stage = stage;
    a.owner = "me";
    a.request_id = "r-1";
    a.notify = "mail";
    a.priority = -7;
    a.submitted = 99.25;
    assert_int_equal(store_add_job(s, &a, &e), 0);
    a.state = JOB_PAUSING;
    a.want = WANT_PAUSE;
    assert_int_equal(store_save_job(s, &a, &e), 0);
    b = load(s, a.id);
    assert_non_null(b);
    assert_int_equal(b->state, JOB_PAUSING);
    assert_int_equal(b->want, WANT_PAUSE);
    assert_int_equal(b->priority, -7);
    assert_true(b->submitted == 99.25);
    assert_string_equal(b->owner, "me");
    assert_string_equal(b->request_id, "r-1");
    assert_string_equal(b->notify, "mail");
    assert_int_equal(b->n_set, 2);
    assert_string_equal(b->set[0], settings[0]);
    assert_int_equal(b->n_stages, 2);
    assert_int_equal(b->stage[0].state, STAGE_RUNNING);
    assert_int_equal(b->stage[0].attempt, 3);
    assert_int_equal(b->stage[0].n_cores, 2);
    assert_int_equal(b->stage[0].workers, 2);
    assert_true(b->stage[0].memory == (uint64_t)5 << 40);
    assert_int_equal(b->stage[0].steps, 77);
    assert_string_equal(b->stage[0].token, "secret");
    assert_int_equal(b->stage[0].asked, ASKED_STOP);
    assert_memory_equal(b->stage[0].restarts, stage[0].restarts, sizeof stage[0].restarts);
    assert_memory_equal(&b->stage[0].cores, &stage[0].cores, sizeof stage[0].cores);
    assert_true(b->stage[0].started == 12.5);
    assert_int_equal(b->stage[1].n_needs, 1);
    assert_int_equal(b->stage[1].needs[0], 0);
    assert_int_equal(b->stage[1].status, 139);
    assert_string_equal(b->stage[1].message, "m");
    assert_string_equal(b->stage[1].mend, "n");
    assert_int_equal(b->stage[1].fresh, 1);
    assert_true(b->stage[1].ended == 4);
    job_free(b);
    store_close(s);
}

static int count_one(void *ctx, struct job *j)
{
    ++*(int *)ctx;
    job_free(j);
    return 0;
}

static void test_filters(void **state)
{
    struct store *s = open_store(*state);
    struct store_filter f = {.states = 1u << JOB_DONE | 1u << JOB_FAILED};
    struct job a = make_job();
    struct err e;
    int n = 0;

    for (int i = 0; i < 6; i++) {
        a.state = i % 2 ? JOB_DONE : JOB_QUEUED;
        a.owner = i < 3 ? "me" : "you";
        assert_int_equal(store_add_job(s, &a, &e), 0);
    }
    assert_int_equal(store_load_jobs(s, &f, count_one, &n, &e), 0);
    assert_int_equal(n, 3);
    f = (struct store_filter){.before = 3, .owner = "me"};
    n = 0;
    assert_int_equal(store_load_jobs(s, &f, count_one, &n, &e), 0);
    assert_int_equal(n, 2);
    assert_int_equal(store_remove_job(s, 1, &e), 0);
    assert_null(load(s, 1));
    store_close(s);
}

/* A submit that comes again is one job. */
static void test_request_ids(void **state)
{
    struct store *s = open_store(*state);
    struct store_filter f = {.request_id = "r", .owner = "me"};
    struct job a = make_job(), *found;
    struct err e;

    a.request_id = "r";
    a.owner = "me";
    assert_int_equal(store_add_job(s, &a, &e), 0);
    assert_int_equal(store_add_job(s, &a, &e), ERR_IO);
    a.owner = "you";
    assert_int_equal(store_add_job(s, &a, &e), 0);
    assert_int_equal(store_load_job(s, &f, &found, &e), 0);
    assert_int_equal(found->id, 1);
    job_free(found);
    store_close(s);
}

/* Whoever opened the store last has it. */
static void test_fencing(void **state)
{
    struct store *first = open_store(*state), *second = open_store(*state);
    struct job a = make_job();
    struct err e;

    assert_true(store_epoch(second) == store_epoch(first) + 1);
    assert_int_equal(store_add_job(second, &a, &e), 0);
    assert_int_equal(store_add_job(first, &a, &e), ERR_DENIED);
    a.id = 1;
    a.state = JOB_FAILED;
    assert_int_equal(store_save_job(first, &a, &e), ERR_DENIED);
    assert_int_equal(store_remove_job(first, 1, &e), ERR_DENIED);
    assert_state(second, 1, JOB_QUEUED);
    store_close(first);
    store_close(second);
}

/* A copy while it is in use, and the check of it. */
static void test_backup(void **state)
{
    struct store *s = open_store(*state), *copy;
    struct job a = make_job();
    char dir[128], path[160];
    struct err e;

    snprintf(dir, sizeof dir, "%s/copy", (char *)*state);
    snprintf(path, sizeof path, "%s/jobs.db", dir);
    assert_int_equal(file_make_dirs(dir, &e), 0);
    assert_int_equal(store_add_job(s, &a, &e), 0);
    assert_int_equal(store_backup(s, path, &e), 0);
    assert_int_equal(store_verify(s, &e), 0);
    copy = open_store(dir);
    assert_state(copy, 1, JOB_QUEUED);
    store_close(copy);
    store_close(s);
}

/* The commit fails: nothing of it is there, and the store works on. */
static void test_disk_error(void **state)
{
    struct store *s = open_store(*state);
    struct job a = make_job();
    struct err e;

    fault_arm("fsync:1:EIO");
    assert_int_equal(store_add_job(s, &a, &e), ERR_IO);
    fault_arm(NULL);
    assert_null(load(s, 1));
    assert_int_equal(store_add_job(s, &a, &e), 0);
    assert_state(s, a.id, JOB_QUEUED);
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
            struct job *j = load(s, k);

            assert_non_null(j);
            assert_true(j->state == JOB_QUEUED || j->state == JOB_RUNNING);
            job_free(j);
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
        T(test_round_trip),
        T(test_filters),
        T(test_request_ids),
        T(test_fencing),
        T(test_backup),
        T(test_disk_error),
        T(test_killed_at_any_moment),
        T(test_foreign_file),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
