/* Files: what is refused, durable writes under injected faults, folders, hashes. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fault.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"

static char dir[256];

static const char *in_dir(const char *name)
{
    static char buf[4][FILE_PATH_MAX];
    static int next;
    struct err e;

    next = (next + 1) % 4;
    assert_int_equal(file_join(buf[next], sizeof *buf, dir, name, &e), 0);
    return buf[next];
}

static void expect_text(const char *path, const char *want)
{
    struct err e = {0};
    char *text;
    size_t n;

    if (file_read(path, 1000, &text, &n, &e))
        fail_msg("%s", e.msg);
    assert_string_equal(text, want);
    mem_free(text);
}

static void reading(void **state)
{
    struct err e = {0};
    struct file_map m;
    char *text;
    size_t n;

    (void)state;
    assert_int_equal(file_read(in_dir("none"), 10, &text, &n, &e), ERR_CONFIG);
    assert_non_null(strstr(e.msg, "none: No such file"));
    assert_int_equal(file_read(dir, 10, &text, &n, &e), ERR_CONFIG);
    assert_non_null(strstr(e.msg, "is a directory"));
    assert_int_equal(mkfifo(in_dir("fifo"), 0600), 0);
    assert_int_equal(file_read(in_dir("fifo"), 10, &text, &n, &e), ERR_CONFIG);
    assert_non_null(strstr(e.msg, "not a regular file"));
    assert_int_equal(file_write_atomic(in_dir("long"), "0123456789", 10, &e), 0);
    assert_int_equal(file_read(in_dir("long"), 9, &text, &n, &e), ERR_CONFIG);
    assert_int_equal(file_read(in_dir("long"), 10, &text, &n, &e), 0);
    assert_int_equal(n, 10);
    mem_free(text);
    assert_int_equal(file_write_atomic(in_dir("empty"), "", 0, &e), 0);
    assert_int_equal(file_map_open(&m, in_dir("empty"), &e), 0);
    assert_non_null(m.bytes);
    assert_int_equal(m.size, 0);
    file_map_close(&m);
    file_map_close(&m);
    assert_int_equal(file_map_open(&m, in_dir("long"), &e), 0);
    assert_memory_equal(m.bytes, "0123456789", 10);
    file_map_close(&m);
}

/* The n-th write, fsync or rename fails, for every n: the old content stays. */
static void faults(void **state)
{
    static const char *const points[] = {"write", "fsync", "rename"};
    struct err e = {0};
    const char *path = in_dir("durable");

    (void)state;
    for (int i = 0; i < 3; i++)
        for (int n = 1;; n++) {
            char spec[64];
            size_t count;
            char **names;
            int rc;

            assert_int_equal(file_write_atomic(path, "old", 3, &e), 0);
            snprintf(spec, sizeof spec, "%s:%d:ENOSPC", points[i], n);
            assert_int_equal(fault_arm(spec), 0);
            rc = file_write_atomic(path, "new", 3, &e);
            fault_arm(NULL);
            assert_int_equal(file_list(dir, &names, &count, &e), 0);
            for (size_t k = 0; k < count; k++) {
                assert_null(strstr(names[k], ".tmp-"));
                mem_free(names[k]);
            }
            mem_free(names);
            if (rc == 0)
                break;
            assert_int_equal(rc, ERR_IO);
            /* Only the last fsync, that of the folder, fails after the rename. */
            expect_text(path, i == 1 && n == 2 ? "new" : "old");
        }
    assert_int_equal(fault_arm("write:0:EIO"), -1);
    assert_int_equal(fault_arm("write:1:EIO:x"), -1);
    assert_int_equal(fault_arm("walk:1:EIO"), -1);
    assert_int_equal(fault_arm("step:1:KILL"), 0);
    fault_arm(NULL);
}

static void killed_in_the_middle(void **state)
{
    struct err e = {0};
    const char *path = in_dir("killed");

    (void)state;
    assert_int_equal(file_write_atomic(path, "old", 3, &e), 0);
    for (int i = 0; i < 4; i++) {
        static const char *const at[] = {"write:1:KILL", "fsync:1:KILL", "rename:1:KILL",
                                         "fsync:2:KILL"};
        pid_t pid = fork();
        int status;

        if (pid == 0) {
            fault_arm(at[i]);
            file_write_atomic(path, "new", 3, &e);
            _exit(0);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status));
        expect_text(path, i == 3 ? "new" : "old");
    }
}

static void folders(void **state)
{
    struct err e = {0};
    char buf[64], **names;
    size_t n;

    (void)state;
    assert_int_equal(file_make_dirs(in_dir("a/b//c/"), &e), 0);
    assert_int_equal(file_make_dirs(in_dir("a/b/c"), &e), 0);
    assert_int_equal(file_write_atomic(in_dir("a/f"), "x", 1, &e), 0);
    assert_int_equal(file_make_dirs(in_dir("a/f/g"), &e), ERR_CONFIG);
    assert_int_equal(file_append(in_dir("a/f"), "y", 1, &e), 0);
    expect_text(in_dir("a/f"), "xy");
    assert_int_equal(file_truncate(in_dir("a/f"), 1, &e), 0);
    assert_int_equal(file_link_or_copy(in_dir("a/f"), in_dir("a/g"), &e), 0);
    assert_int_equal(file_copy(in_dir("a/g"), in_dir("a/h"), &e), 0);
    expect_text(in_dir("a/h"), "x");
    assert_int_equal(symlink(dir, in_dir("a/b/link")), 0);
    assert_int_equal(file_list(in_dir("a"), &names, &n, &e), 0);
    assert_int_equal(n, 4);
    assert_string_equal(names[0], "b");
    assert_string_equal(names[3], "h");
    for (size_t i = 0; i < n; i++)
        mem_free(names[i]);
    mem_free(names);
    assert_int_equal(file_size(in_dir("a/h")), 1);
    assert_true(file_free_bytes(dir) >= 0);
    assert_int_equal(file_remove_tree(in_dir("a"), &e), 0);
    assert_false(file_exists(in_dir("a")));
    assert_true(file_is_dir(dir)); /* the link was not followed */
    assert_int_equal(file_remove_tree(in_dir("a"), &e), 0);
    file_dirname(buf, sizeof buf, "/a/b//");
    assert_string_equal(buf, "/a");
    file_dirname(buf, sizeof buf, "a");
    assert_string_equal(buf, ".");
    file_dirname(buf, sizeof buf, "/a");
    assert_string_equal(buf, "/");
    assert_int_equal(file_join(buf, 4, "a", "bcd", &e), ERR_CONFIG);
    assert_int_equal(file_join(buf, 64, "a/", "b", &e), 0);
    assert_string_equal(buf, "a/b");
    assert_int_equal(file_join(buf, 64, "a", "/b", &e), 0);
    assert_string_equal(buf, "/b");
    assert_int_equal(file_self_dir(buf, sizeof buf, &e) || buf[0] == '/', 1);
}

static void hashes(void **state)
{
    struct hash_stream *h = hash_new();
    unsigned char sum[32];
    struct err e = {0};
    char one[33], two[33];

    (void)state;
    hash_sha256("abc", 3, sum);
    assert_int_equal(sum[0], 0xba);
    assert_int_equal(sum[31], 0xad);
    assert_int_equal(hash_bytes("", 0), 0x2D06800538D394C2ull); /* xxHash's own test */
    hash_add(h, "ab", 2);
    hash_add(h, "c", 1);
    hash_hex(h, one);
    hash_free(h);
    assert_int_equal(file_write_atomic(in_dir("abc"), "abc", 3, &e), 0);
    assert_int_equal(hash_file(in_dir("abc"), two, &e), 0);
    assert_string_equal(one, two);
    assert_int_equal(strlen(one), 32);
}

static int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "%s/hone-file-XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
    struct err e;

    (void)state;
    return file_remove_tree(dir, &e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reading),
        cmocka_unit_test(faults),
        cmocka_unit_test(killed_in_the_middle),
        cmocka_unit_test(folders),
        cmocka_unit_test(hashes),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
