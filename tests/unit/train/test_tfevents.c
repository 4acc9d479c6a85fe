/* Event files read back record by record, as TensorBoard does: lengths, both checksums
 * (by another implementation of CRC-32C), fields; and the cut of a resume. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "worker/train/tfevents.h"

static uint32_t crc32c(const unsigned char *p, size_t n)
{
    uint32_t table[256], crc = 0xffffffffu;

    for (uint32_t i = 0; i < 256; i++) {
        table[i] = i;
        for (int k = 0; k < 8; k++)
            table[i] = table[i] & 1 ? table[i] >> 1 ^ 0x82f63b78u : table[i] >> 1;
    }
    while (n--)
        crc = crc >> 8 ^ table[(crc ^ *p++) & 0xff];
    return ~crc;
}

static uint32_t le32(const unsigned char *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint32_t unmask(uint32_t masked)
{
    uint32_t rot = masked - 0xa282ead8u;

    return rot >> 17 | rot << 15;
}

/* Records of a file; the last one's data. */
static int read_records(const struct tfevents *t, unsigned char *last, size_t *n)
{
    unsigned char *text;
    struct err e;
    size_t len;
    int count = 0;

    assert_int_equal(file_read(t->path, 1 << 20, (char **)&text, &len, &e), 0);
    assert_int_equal(len, t->size);
    for (size_t at = 0; at < len; count++) {
        size_t size = le32(text + at);

        assert_int_equal(unmask(le32(text + at + 8)), crc32c(text + at, 8));
        assert_int_equal(unmask(le32(text + at + 12 + size)), crc32c(text + at + 12, size));
        memcpy(last, text + at + 12, size);
        *n = size;
        at += 16 + size;
    }
    mem_free(text);
    return count;
}

static void events(void **state)
{
    char dir[] = "/tmp/hone-events-XXXXXX";
    struct metric_list m = {{"loss", "lr"}, {0.5, NAN}, 2};
    static const unsigned char want[] = {0x10, 0xac, 0x02,       /* step = 300 */
                                         0x2a, 0x13, 0x0a, 0x11, /* summary, value */
                                         0x0a, 0x0a, 't',  'r',  'a', 'i', 'n', /* tag */
                                         '/',  'l',  'o',  's',  0};
    unsigned char last[256];
    struct tfevents t;
    long long kept;
    struct err e;
    size_t n;

    (void)state;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(tfevents_open(&t, dir, 0, &e), 0);
    assert_int_equal(read_records(&t, last, &n), 1);
    assert_memory_equal(last + n - 13, "brain.Event:2", 13);
    kept = t.size;
    assert_int_equal(tfevents_add(&t, 300, "train", &m, &e), 0);
    assert_int_equal(read_records(&t, last, &n), 2);
    assert_int_equal(last[0], 0x09); /* wall_time, a double */
    assert_memory_equal(last + 9, want, sizeof want - 1);
    assert_int_equal(last[n - 5], 0x15); /* simple_value, the only finite one */
    assert_int_equal(le32(last + n - 4), 0x3f000000);
    assert_int_equal(tfevents_open(&t, dir, kept, &e), 0);
    assert_int_equal(read_records(&t, last, &n), 1);
    assert_int_equal(tfevents_open(&t, dir, 10000, &e), 0);
    assert_int_equal(read_records(&t, last, &n), 1);
    assert_int_equal(file_remove_tree(dir, &e), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(events)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
