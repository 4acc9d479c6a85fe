/* Checks of jobs in processes that are forked for them (daemon/checkers.h with
 * worker/link/checks.h): this program itself is the one that forks, as `--checks`, and its
 * checks do what their first word says. Whatever one of them does, the others and we go
 * on; whatever happens to the process that forks, every check has one end. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "daemon/checkers.h"
#include "worker/link/checks.h"

enum { CHECKS_MAX = 64, FLOOD = 5 << 20 };

/* ---- what the checks do ---- */

static int seen; /* by the checks before, if they left it */

static int open_descriptors(void)
{
    int n = 0;

    for (int fd = 0; fd < 1024; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static int at_once(const char *dir)
{
    char path[FILE_PATH_MAX], **name;
    size_t n;
    struct err e;

    snprintf(path, sizeof path, "%s/%ld", dir, (long)getpid());
    if (file_write_atomic(path, "", 0, &e))
        return 9;
    usleep(30000);
    if (file_list(dir, &name, &n, &e))
        return 9;
    for (size_t i = 0; i < n; i++)
        mem_free(name[i]);
    mem_free(name);
    unlink(path);
    printf("%zu", n);
    return 0;
}

static int grow(void)
{
    size_t had = 0;
    char *p;

    for (; had < (size_t)1 << 32; had += 1 << 20) {
        p = malloc(1 << 20);
        if (!p) {
            fputs("hone: out of memory\n", stderr);
            return 1;
        }
        memset(p, 1, 1 << 20);
    }
    return 0;
}

static int check(int argc, char **argv)
{
    const char *what = argv[0], *arg = argc > 1 ? argv[1] : "";
    struct rlimit core;
    struct err e;

    if (!strcmp(what, "say")) {
        printf("%s", arg);
        fprintf(stderr, "not %s", arg);
        return atoi(arg);
    }
    if (!strcmp(what, "state")) {
        getrlimit(RLIMIT_CORE, &core);
        printf("%d %d %d %s %d %d", seen++, open_descriptors(), getpgrp() == getpid(),
               getenv("CHANGED") ? "changed" : "same", (int)umask(077) == 077,
               core.rlim_max == 0);
        setenv("CHANGED", "1", 1);
        return chdir("/tmp") ? 9 : 0;
    }
    if (!strcmp(what, "flood")) {
        for (int i = 0; i < FLOOD / 16; i++)
            fputs("0123456789abcdef", i % 2 ? stdout : stderr);
        return 0;
    }
    if (!strcmp(what, "parent")) {
        printf("%ld", (long)getppid());
        return 0;
    }
    if (!strcmp(what, "once") && !file_exists(arg)) {
        if (file_write_atomic(arg, "", 0, &e))
            return 9;
        what = argv[2];
    }
    if (!strcmp(what, "crash")) {
        signal(SIGSEGV, SIG_DFL); /* a sanitizer's is its own */
        raise(SIGSEGV);
    }
    if (!strcmp(what, "hang"))
        pause();
    if (!strcmp(what, "kill-parent") && !kill(getppid(), SIGKILL))
        pause();
    if (!strcmp(what, "stop-parent") && !kill(getppid(), SIGSTOP))
        pause();
    if (!strcmp(what, "closed")) { /* its end is told, though it closed all */
        close(1);
        close(2);
        usleep(20000);
        _exit(4);
    }
    return !strcmp(what, "grow") ? grow() : !strcmp(what, "at-once") ? at_once(arg) : 0;
}

/* ---- the rig ---- */

struct end {
    int told, status, signal, late;
    char *out, *err;
};

struct rig {
    char dir[64], program[128];
    uv_loop_t loop;
    struct checkers c;
    struct end end[CHECKS_MAX]; /* by id */
    uint64_t n;
};

static void on_end(void *ctx, uint64_t id, const struct io_exit *how)
{
    struct rig *r = ctx;
    struct end *end = &r->end[id];

    assert_in_range(id, 1, r->n);
    assert_int_equal(end->told++, 0);
    end->status = how->status;
    end->signal = how->signal;
    end->late = how->late;
    end->out = strdup(how->out);
    end->err = strdup(how->err);
}

static int set_up(void **state)
{
    struct rig *r = calloc(1, sizeof *r);
    char self[FILE_PATH_MAX] = "";
    struct err e;

    snprintf(r->dir, sizeof r->dir, "/tmp/hone-test-XXXXXX");
    if (!mkdtemp(r->dir) || readlink("/proc/self/exe", self, sizeof self - 1) < 0)
        return -1;
    snprintf(r->program, sizeof r->program, "%s/hone-worker", r->dir);
    if (file_copy(self, r->program, &e) || chmod(r->program, 0755))
        return -1;
    *state = r;
    return uv_loop_init(&r->loop) || checkers_init(&r->c, &r->loop, 0.5, on_end, r);
}

static int tear_down(void **state)
{
    struct rig *r = *state;
    struct err e;

    checkers_fini(&r->c);
    uv_run(&r->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&r->loop), 0);
    for (uint64_t i = 1; i <= r->n; i++) {
        free(r->end[i].out);
        free(r->end[i].err);
    }
    file_remove_tree(r->dir, &e);
    free(r);
    return 0;
}

static int try_start(struct rig *r, const char *what, const char *arg, const char *arg2,
                     double seconds, uint64_t memory)
{
    const char *argv[] = {r->program, what, arg, arg2, NULL};
    struct io_command cmd = {
        .argv = argv, .keep_fd = -1, .check = 1, .memory = memory, .seconds = seconds};
    struct err e;
    int rc;

    assert_true(r->n + 1 < CHECKS_MAX);
    r->n++;
    rc = checkers_start(&r->c, r->n, &cmd, &e);
    r->n -= rc != 0;
    return rc;
}

static struct end *start(struct rig *r, const char *what, const char *arg)
{
    assert_int_equal(try_start(r, what, arg, NULL, 60, 0), 0);
    return &r->end[r->n];
}

static struct end *start_once(struct rig *r, const char *what)
{
    char file[128];

    snprintf(file, sizeof file, "%s/once-%d", r->dir, (int)r->n);
    assert_int_equal(try_start(r, "once", file, what, 60, 0), 0);
    return &r->end[r->n];
}

/* Run until all have ended. */
static void finish(struct rig *r)
{
    for (uint64_t i = 1; i <= r->n; i++)
        while (!r->end[i].told)
            uv_run(&r->loop, UV_RUN_ONCE);
}

static void assert_said(const struct end *end, const char *out)
{
    assert_int_equal(end->status, atoi(out));
    assert_int_equal(end->signal, 0);
    assert_string_equal(end->out, out);
    assert_int_equal(strncmp(end->err, "not ", 4), 0);
    assert_string_equal(end->err + 4, out);
}

static long parent(struct rig *r)
{
    const struct end *end = start(r, "parent", NULL);

    finish(r);
    return atol(end->out);
}

/* ---- tests ---- */

static void test_each_has_its_own_answer(void **state)
{
    struct rig *r = *state;
    char text[16];

    for (int i = 1; i < 40; i++) {
        snprintf(text, sizeof text, "%d", i);
        start(r, "say", text);
    }
    finish(r);
    for (int i = 1; i < 40; i++) {
        snprintf(text, sizeof text, "%d", i);
        assert_said(&r->end[i], text);
    }
}

static void test_nothing_is_left_for_the_next(void **state)
{
    struct rig *r = *state;

    for (int i = 0; i < 3; i++) {
        const struct end *end = start(r, "state", NULL);

        finish(r);
        assert_string_equal(end->out, "0 3 1 same 0 1");
    }
}

static void test_no_more_at_once_than_cores(void **state)
{
    struct rig *r = *state;
    char dir[96];
    struct err e;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);

    snprintf(dir, sizeof dir, "%s/here", r->dir);
    assert_int_equal(file_make_dirs(dir, &e), 0);
    for (int i = 0; i < 8; i++)
        start(r, "at-once", dir);
    finish(r);
    for (int i = 1; i <= 8; i++)
        assert_in_range(atol(r->end[i].out), 1, cores);
}

static void test_one_crashes(void **state)
{
    struct rig *r = *state;
    long server = parent(r);
    struct end *bad = start(r, "crash", NULL), *good = start(r, "say", "5");
    struct end *mute = start(r, "closed", NULL);

    finish(r);
    assert_int_equal(bad->signal, SIGSEGV);
    assert_said(good, "5");
    assert_int_equal(mute->status, 4);
    assert_int_equal(parent(r), server);
}

static void test_one_hangs(void **state)
{
    struct rig *r = *state;
    long server = parent(r);
    struct end *late, *good;

    assert_int_equal(try_start(r, "hang", NULL, NULL, 0.1, 0), 0);
    late = &r->end[r->n];
    good = start(r, "say", "6");
    finish(r);
    assert_true(late->late);
    assert_int_equal(late->signal, SIGKILL);
    assert_said(good, "6");
    assert_false(good->late);
    assert_int_equal(parent(r), server);
}

/* Also while it waits for its turn. */
static void test_given_up(void **state)
{
    struct rig *r = *state;

    for (int i = 0; i < 20; i++)
        start(r, "hang", NULL);
    for (uint64_t i = 20; i > 0; i--)
        assert_int_equal(checkers_kill(&r->c, i), 1);
    assert_int_equal(checkers_kill(&r->c, 21), 0);
    finish(r);
    for (int i = 1; i <= 20; i++) {
        assert_int_equal(r->end[i].signal, SIGKILL);
        assert_false(r->end[i].late);
    }
    assert_int_equal(checkers_kill(&r->c, 1), 0);
}

static void test_one_grows(void **state)
{
    struct rig *r = *state;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip(); /* has no such limit */
#endif
    assert_int_equal(try_start(r, "grow", NULL, NULL, 60, 64 << 20), 0);
    finish(r);
    assert_int_equal(r->end[1].status, 1);
    assert_string_equal(r->end[1].err, "hone: out of memory\n");
}

static void test_one_says_much(void **state)
{
    struct rig *r = *state;
    const struct end *end = start(r, "flood", NULL);

    finish(r);
    assert_int_equal(end->status, 0);
    assert_int_equal(strlen(end->out), FLOOD / 2);
    assert_int_equal(strlen(end->err), FLOOD / 2);
}

static void test_the_one_that_forks_is_killed(void **state)
{
    struct rig *r = *state;
    long server = parent(r);
    struct end *victim = start_once(r, "kill-parent"), *beside = start(r, "say", "7");
    struct end *culprit;

    finish(r);
    assert_int_equal(victim->status, 0); /* the second time it had nothing to do */
    assert_int_equal(victim->signal, 0);
    assert_said(beside, "7");
    assert_true(parent(r) != server);

    culprit = start(r, "kill-parent", NULL); /* twice */
    finish(r);
    assert_int_equal(culprit->signal, SIGKILL);
    culprit = start(r, "say", "8");
    finish(r);
    assert_said(culprit, "8");
}

static void test_the_one_that_forks_hangs(void **state)
{
    struct rig *r = *state;
    long server = parent(r);
    struct end *victim = start_once(r, "stop-parent"), *beside = start(r, "say", "9");

    finish(r);
    assert_int_equal(victim->status, 0);
    assert_int_equal(victim->signal, 0);
    assert_said(beside, "9");
    assert_true(parent(r) != server);
    assert_int_equal(kill((pid_t)server, 0), -1);
}

static void test_a_new_program_is_used(void **state)
{
    struct rig *r = *state;
    long server = parent(r);
    struct end *old;
    char copy[160];
    struct err e;

    assert_int_equal(try_start(r, "hang", NULL, NULL, 0.3, 0), 0);
    old = &r->end[r->n];
    snprintf(copy, sizeof copy, "%s.new", r->program);
    assert_int_equal(file_copy(r->program, copy, &e), 0);
    assert_int_equal(chmod(copy, 0755), 0);
    assert_int_equal(rename(copy, r->program), 0);
    assert_true(parent(r) != server); /* also waits for the old one's */
    assert_true(old->late);
    while (!kill((pid_t)server, 0))
        uv_run(&r->loop, UV_RUN_ONCE);
}

static void test_no_program(void **state)
{
    struct rig *r = *state;
    char copy[160];

    snprintf(copy, sizeof copy, "%s.away", r->program);
    assert_int_equal(rename(r->program, copy), 0);
    assert_true(try_start(r, "say", "1", NULL, 1, 0) < 0);
    /* One that does not know how: its end is that of the check. */
    assert_int_equal(symlink("/bin/false", r->program), 0);
    start(r, "say", "1");
    finish(r);
    assert_int_equal(r->end[1].status, 1);
    assert_int_equal(unlink(r->program), 0);
    assert_int_equal(rename(copy, r->program), 0);
    start(r, "say", "2");
    finish(r);
    assert_said(&r->end[2], "2");
}

/* The n-th allocation fails, for every n: each check is refused, or ends. */
static void test_without_memory(void **state)
{
    struct rig *r = *state;
    int fired = 1;

    start(r, "say", "3");
    finish(r);
    for (long n = 0; fired; n++) {
        int rc;

        mem_fail_at(n);
        rc = try_start(r, "say", "3", NULL, 60, 0);
        fired = mem_failed();
        mem_fail_at(-1);
        finish(r);
        if (!rc)
            assert_said(&r->end[r->n], "3");
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
        T(test_each_has_its_own_answer),
        T(test_nothing_is_left_for_the_next),
        T(test_no_more_at_once_than_cores),
        T(test_one_crashes),
        T(test_one_hangs),
        T(test_given_up),
        T(test_one_grows),
        T(test_one_says_much),
        T(test_the_one_that_forks_is_killed),
        T(test_the_one_that_forks_hangs),
        T(test_a_new_program_is_used),
        T(test_no_program),
        T(test_without_memory),
    };

    if (argc == 2 && !strcmp(argv[1], "--checks"))
        return checks_serve(check);
    log_set_level(LOG_ERROR + 1);
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
