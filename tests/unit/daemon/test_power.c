/* Power loss at every sync point: SQLite writes through a VFS of ours, under which a file
 * on disk is what it was at its last sync, and everything written since is lost with the
 * power. A process that works with the store is killed at its 1st, 2nd, ... sync (just
 * before and just after it); what it had acknowledged must be there afterwards, whole, and
 * the store must work on. */
#include <errno.h>
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
#include <sqlite3.h>

#include "base/file.h"
#include "daemon/store/store.h"

enum { JOBS = 4, SYNCS_MAX = 400 };

/* ---- the VFS ---- */

/* Copies of files as they were at their last sync lie beside them. */
struct shim_file {
    sqlite3_file base; /* first */
    char path[512];
    sqlite3_file *real;
};

static sqlite3_vfs *real_vfs, shim_vfs;
static long die_at;       /* odd: before a sync, even: after it */
static long syncs, fatal; /* counted twice each; the one to die at, 0: none */

static void keep(const char *path)
{
    char to[600];
    struct err e;

    snprintf(to, sizeof to, "%s.synced", path);
    if (file_copy(path, to, &e))
        _exit(3);
}

static int shim_sync(sqlite3_file *f, int flags)
{
    struct shim_file *s = (struct shim_file *)f;
    int rc;

    if (++syncs == fatal)
        raise(SIGKILL);
    rc = s->real->pMethods->xSync(s->real, flags);
    if (!rc)
        keep(s->path);
    if (++syncs == fatal)
        raise(SIGKILL);
    return rc;
}

#define REAL(f) (((struct shim_file *)(f))->real)
#define PASS(name, args, ...)                                                              \
    static int shim_##name args                                                            \
    {                                                                                      \
        return REAL(f)->pMethods->x##name(__VA_ARGS__);                                    \
    }
PASS(Close, (sqlite3_file * f), REAL(f))
PASS(Read, (sqlite3_file * f, void *p, int n, sqlite3_int64 at), REAL(f), p, n, at)
PASS(Write, (sqlite3_file * f, const void *p, int n, sqlite3_int64 at), REAL(f), p, n, at)
PASS(Truncate, (sqlite3_file * f, sqlite3_int64 n), REAL(f), n)
PASS(FileSize, (sqlite3_file * f, sqlite3_int64 *n), REAL(f), n)
PASS(Lock, (sqlite3_file * f, int l), REAL(f), l)
PASS(Unlock, (sqlite3_file * f, int l), REAL(f), l)
PASS(CheckReservedLock, (sqlite3_file * f, int *r), REAL(f), r)
PASS(FileControl, (sqlite3_file * f, int op, void *p), REAL(f), op, p)
PASS(SectorSize, (sqlite3_file * f), REAL(f))
PASS(DeviceCharacteristics, (sqlite3_file * f), REAL(f))
PASS(ShmMap, (sqlite3_file * f, int i, int n, int x, void volatile **p), REAL(f), i, n, x,
     p)
PASS(ShmLock, (sqlite3_file * f, int o, int n, int l), REAL(f), o, n, l)
PASS(ShmUnmap, (sqlite3_file * f, int d), REAL(f), d)

static void shim_ShmBarrier(sqlite3_file *f)
{
    REAL(f)->pMethods->xShmBarrier(REAL(f));
}

static const sqlite3_io_methods shim_methods = {
    .iVersion = 2,
    .xClose = shim_Close,
    .xRead = shim_Read,
    .xWrite = shim_Write,
    .xTruncate = shim_Truncate,
    .xSync = shim_sync,
    .xFileSize = shim_FileSize,
    .xLock = shim_Lock,
    .xUnlock = shim_Unlock,
    .xCheckReservedLock = shim_CheckReservedLock,
    .xFileControl = shim_FileControl,
    .xSectorSize = shim_SectorSize,
    .xDeviceCharacteristics = shim_DeviceCharacteristics,
    .xShmMap = shim_ShmMap,
    .xShmLock = shim_ShmLock,
    .xShmBarrier = shim_ShmBarrier,
    .xShmUnmap = shim_ShmUnmap,
};

static int shim_open(sqlite3_vfs *v, const char *name, sqlite3_file *f, int flags, int *out)
{
    struct shim_file *s = (struct shim_file *)f;
    int rc;

    (void)v;
    memset(s, 0, sizeof *s);
    s->real = (sqlite3_file *)(s + 1);
    snprintf(s->path, sizeof s->path, "%s", name ? name : "");
    rc = real_vfs->xOpen(real_vfs, name, s->real, flags, out);
    if (!rc)
        s->base.pMethods = &shim_methods;
    return rc;
}

/* A removal is on disk at once: the harder case, for SQLite must not need the file. */
static int shim_delete(sqlite3_vfs *v, const char *name, int sync)
{
    char kept[600];

    (void)v;
    snprintf(kept, sizeof kept, "%s.synced", name);
    unlink(kept);
    return real_vfs->xDelete(real_vfs, name, sync);
}

static void use_shim(void)
{
    real_vfs = sqlite3_vfs_find(NULL);
    shim_vfs = *real_vfs;
    shim_vfs.zName = "power";
    shim_vfs.szOsFile = (int)sizeof(struct shim_file) + real_vfs->szOsFile;
    shim_vfs.xOpen = shim_open;
    shim_vfs.xDelete = shim_delete;
    assert_int_equal(sqlite3_vfs_register(&shim_vfs, 1), SQLITE_OK);
}

/* ---- the test ---- */

static struct job_stage stages[] = {{.name = "sft", .n_cores = 1}, {.name = "rm"}};

struct word {
    uint64_t id;
    int state;
};

/* Adds and changes jobs; says what has been acknowledged. */
static void work(const char *dir, int tell)
{
    struct store *s;
    struct err e;

    fatal = die_at;
    syncs = 0;
    if (store_open(&s, dir, STORE_DURABLE, &e))
        _exit(1);
    for (int i = 0; i < JOBS; i++) {
        struct job j = {.name = "toy",
                        .file = "/job.yaml",
                        .run = "/run",
                        .stage = stages,
                        .n_stages = 2};

        for (int state = JOB_QUEUED; state <= JOB_RUNNING; state++) {
            struct word w = {0, state};

            j.state = (enum job_state)state;
            if (state == JOB_QUEUED ? store_add_job(s, &j, &e) : store_save_job(s, &j, &e))
                _exit(1);
            w.id = j.id;
            if (write(tell, &w, sizeof w) != sizeof w)
                _exit(1);
        }
    }
    store_close(s);
    _exit(0);
}

/* The power is gone: files are what they were at their last sync. */
static void lose_power(const char *dir)
{
    static const char *const names[] = {"jobs.db", "jobs.db-wal"};
    char path[256], kept[300];
    struct err e;

    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        snprintf(kept, sizeof kept, "%s.synced", path);
        if (file_exists(kept))
            assert_int_equal(file_rename(kept, path, &e), 0);
        else
            unlink(path);
    }
    snprintf(path, sizeof path, "%s/jobs.db-shm", dir);
    unlink(path);
}

static void check(const char *dir, const struct word *said, size_t n)
{
    struct store *s;
    struct err e;
    struct job again = {
        .name = "toy", .file = "/f", .run = "/r", .stage = stages, .n_stages = 2};

    if (store_open(&s, dir, STORE_DURABLE, &e))
        fail_msg("after %ld syncs: %s", die_at, e.msg);
    if (store_verify(s, &e))
        fail_msg("after %ld syncs: %s", die_at, e.msg);
    for (size_t i = 0; i < n; i++) {
        struct store_filter f = {.id = said[i].id};
        struct job *j;

        assert_int_equal(store_load_job(s, &f, &j, &e), 0);
        if (!j)
            fail_msg("after %ld syncs: job %llu is lost", die_at,
                     (unsigned long long)said[i].id);
        assert_true((int)j->state >= said[i].state);
        assert_int_equal(j->n_stages, 2);
        job_free(j);
    }
    assert_int_equal(store_add_job(s, &again, &e), 0);
    store_close(s);
}

static void test_every_sync(void **state)
{
    int over = 0;
    size_t most = 0;

    (void)state;
    for (die_at = 1; !over && die_at < SYNCS_MAX; die_at++) {
        char dir[64] = "/tmp/hone-test-XXXXXX";
        struct word said[2 * JOBS];
        size_t n = 0;
        int tell[2], status;
        struct err e;
        pid_t pid;

        assert_non_null(mkdtemp(dir));
        assert_int_equal(pipe(tell), 0);
        pid = fork();
        assert_true(pid >= 0);
        if (!pid)
            work(dir, tell[1]);
        close(tell[1]);
        while (read(tell[0], &said[n], sizeof *said) == sizeof *said)
            n++;
        close(tell[0]);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        over = WIFEXITED(status);
        assert_true(over ? WEXITSTATUS(status) == 0 : WTERMSIG(status) == SIGKILL);
        lose_power(dir);
        check(dir, said, n);
        most = n > most ? n : most;
        assert_int_equal(file_remove_tree(dir, &e), 0);
    }
    assert_true(over);
    assert_int_equal(most, 2 * JOBS);
    assert_true(die_at > 2 * 2 * JOBS); /* at least a sync for each acknowledgement */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_sync)};

    use_shim();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
