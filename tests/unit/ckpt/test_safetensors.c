/* safetensors files: conversions, round trips, hostile headers, broken files, full disks.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fault.h"
#include "base/file.h"
#include "base/mem.h"
#include "worker/ckpt/safetensors.h"

static char folder[] = "/tmp/hone_safetensors_XXXXXX";

static const char *at(const char *name)
{
    static char path[256];

    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    struct err e;

    (void)state;
    return file_remove_tree(folder, &e);
}

/* ---- element types ------------------------------------------------------------------- */

static void test_halves_survive(void **state)
{
    (void)state;
    for (uint32_t u = 0; u < 65536; u++) {
        uint16_t h = (uint16_t)u, back;
        float x, bad;

        dtype_to_f32(DTYPE_F16, &h, &x, 1);
        assert_int_equal(dtype_from_f32(DTYPE_F16, &x, &back, 1, &bad), 0);
        assert_int_equal(back, h);
        dtype_to_f32(DTYPE_BF16, &h, &x, 1);
        assert_int_equal(dtype_from_f32(DTYPE_BF16, &x, &back, 1, &bad), 0);
        assert_int_equal(back, h);
    }
}

static uint16_t narrow(enum dtype d, float x)
{
    uint16_t h = 0;
    float bad;

    assert_int_equal(dtype_from_f32(d, &x, &h, 1, &bad), 0);
    return h;
}

static void test_rounding(void **state)
{
    float bad = 0, big = 65520.0f, huge = 3.4e38f;
    uint16_t h;

    (void)state;
    assert_int_equal(narrow(DTYPE_F16, 1.0f), 0x3c00);
    assert_int_equal(narrow(DTYPE_F16, 1.0f + 0x1p-11f), 0x3c00); /* tie: to even */
    assert_int_equal(narrow(DTYPE_F16, 1.0f + 0x3p-11f), 0x3c02);
    assert_int_equal(narrow(DTYPE_F16, 65519.0f), 0x7bff);
    assert_int_equal(narrow(DTYPE_F16, 0x1p-25f), 0);
    assert_int_equal(narrow(DTYPE_F16, -0x3p-25f), 0x8002);
    assert_int_equal(narrow(DTYPE_F16, INFINITY), 0x7c00);
    assert_int_equal(narrow(DTYPE_BF16, 1.0f + 0x1p-8f), 0x3f80);
    assert_int_equal(narrow(DTYPE_BF16, 1.0f + 0x3p-8f), 0x3f82);
    assert_int_equal(dtype_from_f32(DTYPE_F16, &big, &h, 1, &bad), -1);
    assert_true(bad == big);
    assert_int_equal(dtype_from_f32(DTYPE_BF16, &huge, &h, 1, &bad), -1);
}

/* ---- round trip ---------------------------------------------------------------------- */

static void test_round_trip(void **state)
{
    static const float w[6] = {1, -2, 3.5f, 0, 1e-30f, 7};
    static const int64_t ids[3] = {1, 2, 1LL << 40};
    static const double d[2] = {0.1, -1e300};
    const struct safetensors_item item[] = {
        {"w\"eird \\ name", DTYPE_F32, 2, {2, 3}, w},
        {"ids", DTYPE_I64, 1, {3}, ids},
        {"scalar", DTYPE_F32, 0, {0}, w},
        {"none", DTYPE_F16, 2, {0, 5}, w},
        {"double", DTYPE_F64, 1, {2}, d},
    };
    struct safetensors s;
    const struct safetensors_tensor *t;
    float got[6];
    int64_t got_ids[3];
    struct err e;

    (void)state;
    assert_int_equal(safetensors_write(at("a"), "{\"format\":\"pt\"}", item, 5, &e), 0);
    assert_int_equal(safetensors_open(&s, at("a"), &e), 0);
    assert_string_equal(s.metadata, "{\"format\":\"pt\"}");
    assert_int_equal(s.n, 5);
    assert_int_equal(s.header_len % 8, 0);
    t = safetensors_find(&s, "w\"eird \\ name");
    assert_non_null(t);
    assert_ptr_equal(t, &s.tensor[0]);
    assert_int_equal(safetensors_read_f32(&s, t, 1, 5, got, &e), 0);
    assert_memory_equal(got, w + 1, 5 * sizeof *w);
    assert_memory_equal(safetensors_map(&s, t), w, sizeof w);
    t = safetensors_find(&s, "ids");
    assert_int_equal(safetensors_read(&s, t, 0, 3, got_ids, &e), 0);
    assert_memory_equal(got_ids, ids, sizeof ids);
    t = safetensors_find(&s, "double");
    assert_int_equal(safetensors_read_f32(&s, t, 0, 1, got, &e), 0);
    assert_true(got[0] == 0.1f);
    assert_int_equal(safetensors_find(&s, "none")->elements, 0);
    assert_int_equal(safetensors_find(&s, "scalar")->elements, 1);
    assert_null(safetensors_find(&s, "absent"));
    safetensors_close(&s);
    safetensors_close(&s);
}

/* ---- hostile headers ----------------------------------------------------------------- */

struct bad {
    const char *json;
    uint64_t data;
    const char *says; /* part of the message */
};

#define T(shape, from, to)                                                                 \
    "{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":[" #from "," #to "]}"

static const struct bad bad_headers[] = {
    {"", 0, ""},
    {"{", 0, "header.bin:1"},
    {"[]", 0, "must be a JSON object"},
    {"{} x", 0, "header.bin:1"},
    {"{\"a\":" T("[1]", 0, 4) ",\"a\":" T("[1]", 0, 4) "}", 4, "duplicate"},
    {"{\"a\":1}", 0, "tensor a must be an object"},
    {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "\"dtype\" is missing"},
    {"{\"a\":{\"dtype\":\"F31\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "dtype F31"},
    {"{\"a\":{\"dtype\":3,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "must be a string"},
    {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4],\"x\":1}}", 4, "shape"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1}}", 4,
     "nothing else"},
    {"{\"a\":" T("1", 0, 4) "}", 4, "shape must be an array"},
    {"{\"a\":" T("[1.5]", 0, 4) "}", 4, "integers"},
    {"{\"a\":" T("[-1]", 0, 4) "}", 4, "integers"},
    {"{\"a\":" T("[1,1,1,1,1,1,1,1,1]", 0, 4) "}", 4, "9 dimensions"},
    {"{\"a\":" T("[4294967296,4294967296]", 0, 4) "}", 4, "overflows"},
    {"{\"a\":" T("[4611686018427387904]", 0, 4) "}", 4, "overflows"},
    {"{\"a\":" T("[99999999999999999999]", 0, 4) "}", 4, "header.bin:1"},
    {"{\"a\":" T("[2]", 0, 8) "}", 4, "beyond the file"},
    {"{\"a\":" T("[2]", 8, 0) "}", 8, "beyond the file"},
    {"{\"a\":" T("[2]", 0, 4) "}", 4, "needs 8 bytes"},
    {"{\"a\":" T("[1]", -4, 0) "}", 4, "data_offsets"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 4,
     "data_offsets"},
    {"{\"a\":" T("[1]", 0, 4) ",\"b\":" T("[2]", 0, 8) "}", 8, "a and b overlap"},
    {"{\"a\":" T("[1]", 0, 4) ",\"b\":" T("[1]", 8, 12) "}", 12, "belong to none"},
    {"{\"a\":" T("[1]", 0, 4) "}", 12, "the last 8 bytes"},
    {"{\"__metadata__\":{\"a\":1}}", 0, "__metadata__.a"},
    {"{\"__metadata__\":[]}", 0, "must be an object"},
    {"{\"a\\u0000b\":" T("[1]", 0, 4) "}", 4, "header.bin:1"},
    {"{\"\xff\":" T("[1]", 0, 4) "}", 4, "header.bin:1"},
};

static void test_hostile_headers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad_headers / sizeof *bad_headers; i++) {
        const struct bad *b = &bad_headers[i];
        struct safetensors s;
        struct err e = {0};
        long live = mem_live();

        assert_true(
            safetensors_parse(&s, "header.bin", b->json, strlen(b->json), b->data, &e) < 0);
        if (!strstr(e.msg, b->says) || !strstr(e.msg, "header.bin"))
            fail_msg("header %zu: %s\nsays: %s, want: %s", i, b->json, e.msg, b->says);
        assert_int_equal(mem_live(), live);
        safetensors_close(&s);
    }
}

static void test_depth_and_size(void **state)
{
    const size_t n = 3000000;
    char *text = malloc(n + 1);
    struct safetensors s;
    struct err e;

    (void)state;
    assert_non_null(text);
    memset(text, '[', n);
    assert_int_equal(safetensors_parse(&s, "deep", text, n, 0, &e), ERR_CORRUPT);
    assert_non_null(strstr(e.msg, "deeper"));
    memset(text, ',', n);
    assert_int_equal(safetensors_parse(&s, "wide", text, n, 0, &e), ERR_CORRUPT);
    assert_non_null(strstr(e.msg, "values"));
    free(text);
}

/* ---- broken files -------------------------------------------------------------------- */

static void write_file(const char *name, uint64_t header_len, const char *header,
                       size_t data)
{
    FILE *f = fopen(at(name), "wb");

    assert_non_null(f);
    for (int i = 0; i < 8; i++)
        fputc((int)(header_len >> (8 * i) & 255), f);
    fputs(header, f);
    for (size_t i = 0; i < data; i++)
        fputc(0, f);
    assert_int_equal(fclose(f), 0);
}

static void refused(const char *name, int code, const char *says)
{
    struct safetensors s;
    struct err e = {0};

    assert_int_equal(safetensors_open(&s, at(name), &e), code);
    if (!strstr(e.msg, says) || !strstr(e.msg, name))
        fail_msg("%s: \"%s\", want \"%s\"", name, e.msg, says);
}

static void test_broken_files(void **state)
{
    static const char header[] = "{\"a\":" T("[2]", 0, 8) "}";
    FILE *f = fopen(at("tiny"), "wb");

    (void)state;
    assert_non_null(f);
    fputs("1234567", f);
    fclose(f);
    refused("tiny", ERR_CORRUPT, "too few");
    refused("absent", ERR_CONFIG, "No such file");
    mkdir(at("dir"), 0777);
    refused("dir", ERR_CONFIG, "not a regular file");
    mkfifo(at("fifo"), 0666);
    refused("fifo", ERR_CONFIG, "not a regular file");
    write_file("huge", 100000001, header, 8);
    refused("huge", ERR_CORRUPT, "100000001 bytes, at most 100000000");
    write_file("max", UINT64_MAX, header, 8);
    refused("max", ERR_CORRUPT, "at most");
    write_file("short", 1000, header, 8);
    refused("short", ERR_CORRUPT, "ends");
    write_file("cut", strlen(header), header, 7);
    refused("cut", ERR_CORRUPT, "beyond the file's 7 bytes");
    write_file("long", strlen(header), header, 9);
    refused("long", ERR_CORRUPT, "the last 1 bytes");
}

static void test_shrinks_meanwhile(void **state)
{
    static const char header[] = "{\"a\":" T("[2]", 0, 8) "}";
    struct safetensors s;
    struct err e;
    float x[2];

    (void)state;
    write_file("shrinks", strlen(header), header, 8);
    assert_int_equal(safetensors_open(&s, at("shrinks"), &e), 0);
    assert_int_equal(truncate(at("shrinks"), 20), 0);
    assert_int_equal(safetensors_read_f32(&s, s.tensor, 0, 2, x, &e), ERR_CORRUPT);
    safetensors_close(&s);
}

static void test_disk_full(void **state)
{
    static const float w[4] = {1, 2, 3, 4};
    const struct safetensors_item item = {"w", DTYPE_F32, 1, {4}, w};
    static const char *const faults[] = {"write:1:ENOSPC", "write:2:ENOSPC",
                                         "write:3:ENOSPC", "fsync:1:EIO", "rename:1:EIO"};
    struct safetensors s;
    char **names;
    struct err e;
    size_t n;

    (void)state;
    assert_int_equal(safetensors_write(at("good"), NULL, &item, 1, &e), 0);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        long live = mem_live();

        assert_int_equal(fault_arm(faults[i]), 0);
        assert_int_equal(safetensors_write(at("good"), NULL, &item, 1, &e), ERR_IO);
        assert_int_equal(mem_live(), live);
        assert_int_equal(safetensors_open(&s, at("good"), &e), 0);
        safetensors_close(&s);
    }
    fault_arm(NULL);
    assert_int_equal(file_list(folder, &names, &n, &e), 0);
    for (size_t i = 0; i < n; i++) {
        assert_null(strstr(names[i], ".tmp"));
        mem_free(names[i]);
    }
    mem_free(names);
}

static void test_out_of_memory(void **state)
{
    static const char header[] =
        "{\"__metadata__\":{\"a\":\"b\"},\"a\":" T("[2]", 0, 8) "}";
    struct safetensors s;
    struct err e;
    int rc = -1;

    (void)state;
    write_file("memory", strlen(header), header, 8);
    for (long n = 0; rc; n++) {
        long live = mem_live();

        mem_fail_at(n);
        rc = safetensors_open(&s, at("memory"), &e);
        mem_fail_at(-1);
        if (rc) {
            assert_int_equal(rc, ERR_NOMEM);
            assert_int_equal(mem_live(), live);
        }
    }
    safetensors_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_halves_survive),    cmocka_unit_test(test_rounding),
        cmocka_unit_test(test_round_trip),        cmocka_unit_test(test_hostile_headers),
        cmocka_unit_test(test_depth_and_size),    cmocka_unit_test(test_broken_files),
        cmocka_unit_test(test_shrinks_meanwhile), cmocka_unit_test(test_disk_full),
        cmocka_unit_test(test_out_of_memory),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
