/* The pool of threads: every task runs exactly once, whatever the number of threads, with
 * more threads than cores, and with two callers at once; a worker's number is its own. */
#include <pthread.h>
#include <stdatomic.h>

#include "kernels/cpu/cpu.h"
#include "tests/op/op_test.h"

enum { TASKS_MAX = 64, JOBS = 3000 };

struct job {
    long n;
    int team;
    _Atomic int met[TASKS_MAX];
    _Atomic int inside[16]; /* is a task of this worker running? */
    _Atomic int wrong;
};

static void task(void *arg, long i, int worker)
{
    struct job *j = arg;

    if (worker < 0 || worker >= j->team || i < 0 || i >= j->n || j->inside[worker]++)
        j->wrong = 1;
    j->met[i]++;
    for (volatile int spin = 0; spin < (i % 7) * 20; spin++)
        ;
    j->inside[worker]--;
}

static int run_jobs(int jobs, int team)
{
    int wrong = 0;

    for (int k = 0; k < jobs; k++) {
        struct job j = {.n = 1 + k * 7 % TASKS_MAX, .team = team};

        cpu_for(j.n, 1e9, task, &j);
        for (long i = 0; i < TASKS_MAX; i++)
            wrong += j.met[i] != (i < j.n);
        wrong += j.wrong;
    }
    return wrong;
}

static void test_every_task_once(void **state)
{
    (void)state;
    for (int team = 1; team <= 8; team++) {
        cpu_set_threads(team);
        assert_int_equal(cpu_threads(), team);
        assert_int_equal(run_jobs(JOBS / team, team), 0);
    }
    cpu_set_threads(0);
}

static void *caller(void *arg)
{
    *(int *)arg = run_jobs(JOBS, 3);
    return NULL;
}

static void test_two_callers(void **state)
{
    pthread_t id[2];
    int wrong[2] = {1, 1};

    (void)state;
    cpu_set_threads(3);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&id[i], NULL, caller, &wrong[i]), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_join(id[i], NULL), 0);
        assert_int_equal(wrong[i], 0);
    }
    cpu_set_threads(0);
}

static void test_little_work_stays_here(void **state)
{
    (void)state;
    cpu_set_threads(4);
    assert_int_equal(cpu_threads_for(100), 1);
    assert_int_equal(cpu_threads_for(1e9), 4);
    cpu_set_threads(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_task_once),
        cmocka_unit_test(test_two_callers),
        cmocka_unit_test(test_little_work_stays_here),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
