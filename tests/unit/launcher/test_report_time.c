/* The split of a step's time: means weighted by the steps of a line, absent keys, lines
 * that are broken; and the bar. */
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
#include "launcher/report_time.h"

static char path[] = "/tmp/hone_metrics_XXXXXX";

static void report(const char *lines, struct str *out)
{
    struct series_file f = {0};
    struct err e;

    assert_int_equal(file_write_atomic(path, lines, strlen(lines), &e), 0);
    assert_int_equal(series_read(&f, path, &e), 0);
    report_time(&f, "sft", out);
    series_fini(&f);
}

static void has(const struct str *s, const char *part)
{
    if (!strstr(str_get(s), part))
        fail_msg("no \"%s\" in: %s", part, str_get(s));
}

/* 30 steps of 10 ms forward and 10 of 30 ms: 15 ms; a checkpoint of 40 ms a step in the
 * second line alone: 10 ms. */
static void test_means(void **state)
{
    struct str out = {0};

    (void)state;
    report(
        "{\"step\": 30, \"split\": \"train\", \"time_forward\": 0.01, \"time_data\": 0}\n"
        "{\"step\": 30, \"split\": \"validation\", \"time_forward\": 99}\n"
        "{\"step\": 40, \"split\": \"train\", \"time_forward\": 0.03, "
        "\"time_checkpoint\": 0.04}\n",
        &out);
    has(&out, "sft: where a step&#39;s 25 ms go");
    has(&out, "<td>forward</td><td>15</td><td>60.0 %</td>");
    has(&out, "<td>checkpoint</td><td>10</td><td>40.0 %</td>");
    has(&out, "<td>data</td><td>0</td><td>0.0 %</td>");
    has(&out, "<title>forward: 60.0 %</title>");
    assert_null(strstr(str_get(&out), "<title>data"));
    str_fini(&out);
}

static void test_nothing_to_show(void **state)
{
    static const char *const lines[] = {
        "", "{\"step\": 3, \"split\": \"train\", \"loss\": 1}\n",
        "{\"step\": 3, \"split\": \"train\", \"time_data\": 0}\n",
        "{\"step\": 3, \"split\": \"train\", \"time_data\": \"x\"}\n",
        "{\"step\": 3, \"split\": \"train\", \"time_data\": -5}\n{\"step\": 3"};

    (void)state;
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        struct str out = {0};

        report(lines[i], &out);
        assert_int_equal(out.len, 0);
        str_fini(&out);
    }
}

static int make_file(void **state)
{
    int fd = mkstemp(path);

    (void)state;
    if (fd >= 0)
        close(fd);
    return fd >= 0 ? 0 : -1;
}

static int remove_file(void **state)
{
    (void)state;
    return unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_means),
        cmocka_unit_test(test_nothing_to_show),
    };

    return cmocka_run_group_tests(tests, make_file, remove_file);
}
