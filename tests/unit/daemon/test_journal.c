/* Journals: every record comes back once and in order from wherever a reader begins, after
 * reopening, resting, failed writes, and a cut at every byte of the last record. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/fault.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/str.h"
#include "daemon/journal.h"

static char dir[64], path[128];

static int set_up(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/hone-test-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof path, "%s/1", dir);
    return 0;
}

static int tear_down(void **state)
{
    struct err e;

    (void)state;
    return file_remove_tree(dir, &e);
}

static struct journal *open_journal(void)
{
    struct journal *j;
    struct err e;

    if (journal_open(&j, path, &e))
        fail_msg("%s", e.msg);
    return j;
}

/* Record n: its number, then up to some thousand bytes that follow from it. */
static size_t make(uint64_t n, uint8_t *out)
{
    size_t len = 8 + (size_t)(n * 7919 % (n % 50 ? 90 : 5000));

    memset(out, (int)n, len);
    memcpy(out, &n, 8);
    return len;
}

static void append(struct journal *j, int count)
{
    uint8_t body[6000];
    struct err e;

    for (int i = 0; i < count; i++) {
        size_t len = make(journal_next_seq(j), body);

        assert_int_equal(journal_append(j, body, len, &e), 0);
    }
}

/* Everything after `after`, to the end. */
static void assert_reads(struct journal *j, struct journal_place *place, uint64_t to)
{
    uint8_t want[6000];
    const uint8_t *got;
    struct err e;
    size_t n;

    for (uint64_t k = place->after + 1; k <= to; k++) {
        size_t len = make(k, want);

        assert_int_equal(journal_read(j, place, &got, &n, &e), 1);
        assert_int_equal(place->after, k);
        assert_int_equal(n, len);
        assert_memory_equal(got, want, n);
    }
    assert_int_equal(journal_read(j, place, &got, &n, &e), 0);
}

static void test_from_anywhere(void **state)
{
    struct journal *j = open_journal();
    struct rng r;
    struct err e;

    (void)state;
    rng_init(&r, 1);
    for (int i = 0; i < 60; i++) {
        append(j, 1 + (int)rng_below(&r, 40));
        assert_int_equal(journal_flush(j, &e), 0);
        if (rng_below(&r, 5) == 0)
            journal_rest(j);
        if (rng_below(&r, 10) == 0) {
            uint64_t last = journal_last(j);

            journal_close(j);
            j = open_journal();
            assert_int_equal(journal_last(j), last);
        }
        for (int k = 0; k < 3; k++) {
            struct journal_place p = {rng_below(&r, (uint32_t)journal_last(j) + 1)};

            assert_reads(j, &p, journal_last(j));
        }
    }
    assert_true(journal_last(j) > 600); /* or the index was never used */
    journal_close(j);
}

/* Readers at different places, who keep theirs while the journal grows and rests. */
static void test_places_last(void **state)
{
    struct journal *j = open_journal();
    struct journal_place p[3] = {{0}};
    struct err e;

    (void)state;
    for (int i = 0; i < 300; i++) {
        append(j, 2);
        assert_int_equal(journal_flush(j, &e), 0);
        assert_reads(j, &p[0], journal_last(j));
        if (i % 7 == 0)
            assert_reads(j, &p[1], journal_last(j));
        if (i % 50 == 0)
            journal_rest(j);
    }
    assert_reads(j, &p[1], 600);
    assert_reads(j, &p[2], 600);
    journal_close(j);
}

static void test_failed_write(void **state)
{
    struct journal *j = open_journal();
    struct journal_place p = {0};
    struct err e;

    (void)state;
    append(j, 300);
    assert_int_equal(journal_flush(j, &e), 0);
    append(j, 400);
    fault_arm("write:1:ENOSPC");
    assert_int_equal(journal_flush(j, &e), ERR_IO);
    fault_arm(NULL);
    assert_int_equal(journal_last(j), 300);
    append(j, 500); /* records 301 and on, once more */
    assert_int_equal(journal_flush(j, &e), 0);
    assert_int_equal(journal_last(j), 800);
    assert_reads(j, &p, 800);
    journal_close(j);
    j = open_journal();
    p = (struct journal_place){.after = 290};
    assert_reads(j, &p, 800);
    journal_close(j);
}

/* The process ended in the middle of a write: whole records stay, the rest goes, and what
 * comes next begins there. */
static void test_cut(void **state)
{
    struct journal *j = open_journal();
    struct err e;
    long long whole, size;

    (void)state;
    append(j, 5);
    assert_int_equal(journal_flush(j, &e), 0);
    whole = file_size(path);
    append(j, 1);
    assert_int_equal(journal_flush(j, &e), 0);
    size = file_size(path);
    journal_close(j);
    for (long long cut = size - 1; cut >= whole; cut--) {
        struct journal_place p = {0};

        assert_int_equal(file_truncate(path, (size_t)cut, &e), 0);
        j = open_journal();
        assert_int_equal(journal_last(j), 5);
        assert_int_equal(file_size(path), whole);
        assert_reads(j, &p, 5);
        append(j, 1);
        assert_int_equal(journal_flush(j, &e), 0);
        assert_reads(j, &p, 6);
        journal_close(j);
    }
}

/* A bit that flipped: what comes before it is kept. */
static void test_damage(void **state)
{
    struct journal *j = open_journal();
    struct journal_place p = {0};
    char *text;
    size_t n;
    struct err e;

    (void)state;
    append(j, 40);
    assert_int_equal(journal_flush(j, &e), 0);
    journal_close(j);
    assert_int_equal(file_read(path, 1 << 20, &text, &n, &e), 0);
    text[n - 3] ^= 4;
    assert_int_equal(file_write_atomic(path, text, n, &e), 0);
    mem_free(text);
    j = open_journal();
    assert_int_equal(journal_last(j), 39);
    assert_reads(j, &p, 39);
    journal_close(j);
}

/* With a limit: the newest records stay, with their numbers, from wherever a reader begins;
 * also after reopening, and a reader who fell behind goes on with the oldest that is left.
 */
static void test_limit(void **state)
{
    enum { LIMIT = 60000 };
    struct journal *j = open_journal();
    struct journal_place slow = {0}, keeps = {0};
    struct rng r;
    struct err e;

    (void)state;
    rng_init(&r, 2);
    journal_set_limit(j, LIMIT);
    for (int i = 0; i < 400; i++) {
        append(j, 1 + (int)rng_below(&r, 30));
        assert_int_equal(journal_flush(j, &e), 0);
        assert_true(journal_size(j) <= LIMIT);
        assert_reads(j, &keeps, journal_last(j)); /* who keeps up misses nothing */
        if (i == 3)
            assert_reads(j, &slow, journal_last(j));
        if (rng_below(&r, 20) == 0) {
            uint64_t first = journal_first(j), last = journal_last(j);

            journal_close(j);
            j = open_journal();
            journal_set_limit(j, LIMIT);
            keeps.known = slow.known = 0;
            assert_int_equal(journal_first(j), first);
            assert_int_equal(journal_last(j), last);
        }
        for (int k = 0; k < 3; k++) {
            uint64_t first = journal_first(j), n = journal_last(j) - first + 1;
            struct journal_place p = {.after = first - 1 + rng_below(&r, (uint32_t)n + 1)};

            assert_reads(j, &p, journal_last(j));
        }
    }
    assert_true(journal_first(j) > 1000 && journal_size(j) > LIMIT / 3);
    slow.after = journal_first(j) - 1 > slow.after ? journal_first(j) - 1 : slow.after;
    assert_reads(j, &slow, journal_last(j));
    journal_close(j);
}

/* What cannot be shortened stays as it is, and is shortened later. */
static void test_limit_without_disk(void **state)
{
    static const char *const faults[] = {"write:2:ENOSPC", "write:3:EIO", "fsync:1:EIO"};
    struct journal *j = open_journal();
    struct journal_place p = {0};
    struct err e;

    (void)state;
    journal_set_limit(j, 20000);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        p = (struct journal_place){.after = journal_first(j) - 1};
        while (journal_size(j) < 15000) {
            append(j, 1);
            assert_int_equal(journal_flush(j, &e), 0);
        }
        append(j, 150);
        fault_arm(faults[i]);
        assert_int_equal(journal_flush(j, &e), 0);
        fault_arm(NULL);
        assert_true(journal_size(j) > 20000);
        assert_reads(j, &p, journal_last(j));
        append(j, 300);
        assert_int_equal(journal_flush(j, &e), 0);
        assert_true(journal_size(j) <= 20000);
        p = (struct journal_place){.after = journal_first(j) - 1};
        assert_reads(j, &p, journal_last(j));
    }
    journal_close(j);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
        T(test_from_anywhere), T(test_places_last), T(test_failed_write),       T(test_cut),
        T(test_damage),        T(test_limit),       T(test_limit_without_disk),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
