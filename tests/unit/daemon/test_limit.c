/* Limits of a worker (worker/link/limit.h), each in a process of its own: memory ends where
 * the daemon says, no process starts, threads do. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "worker/link/limit.h"

/* Run in a child: its exit status. */
static int apart(int (*what)(void))
{
    pid_t pid = fork();
    int status;

    assert_true(pid >= 0);
    if (pid == 0)
        _exit(what());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void *idle(void *arg)
{
    return arg;
}

static int eat(void)
{
    const size_t block = 16 << 20;
    struct err e;

    setenv("HONE_LIMIT_MEMORY", "134217728", 1);
    if (limit_memory(&e))
        return 1;
    for (int i = 0; i < 64; i++) { /* a GiB */
        char *p =
            mmap(NULL, block, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        if (p == MAP_FAILED)
            return i <= 8 ? 0 : 2;
        memset(p, 1, block);
    }
    return 3;
}

static int multiply(void)
{
    struct err e;
    pthread_t t;
    pid_t pid;

    setenv("HONE_LIMIT_MEMORY", "1073741824", 1);
    if (limit_memory(&e) || limit_processes(&e))
        return 1;
    pid = fork();
    if (pid == 0)
        _exit(0);
    if (pid > 0 || errno != EPERM)
        return 2;
    pid = vfork();
    if (pid == 0)
        _exit(0);
    if (pid > 0)
        return 3;
    if (pthread_create(&t, NULL, idle, NULL) || pthread_join(t, NULL))
        return 4;
    return 0;
}

static int unlimited(void)
{
    struct err e;
    pid_t pid;

    unsetenv("HONE_LIMIT_MEMORY");
    if (limit_memory(&e) || limit_processes(&e))
        return 1;
    pid = fork();
    if (pid == 0)
        _exit(0);
    return pid > 0 && waitpid(pid, NULL, 0) == pid ? 0 : 2;
}

static int nonsense(void)
{
    struct err e;

    setenv("HONE_LIMIT_MEMORY", "lots", 1);
    return limit_memory(&e) == ERR_USAGE ? 0 : 1;
}

static void test_limits(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip(); /* their own memory counts */
#endif
    assert_int_equal(apart(eat), 0);
    assert_int_equal(apart(multiply), 0);
    assert_int_equal(apart(unlimited), 0);
    assert_int_equal(apart(nonsense), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_limits)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
