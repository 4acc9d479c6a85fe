/* Frames and messages: any cut of the stream gives the same frames, hostile heads and
 * bodies are refused, unpacking keeps within its budget. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/rng.h"
#include "hone.pb-c.h"
#include "proto/frame.h"
#include "proto/message.h"
#include "wire.pb-c.h"

enum { FRAMES = 40, STREAMS = 200 };

static void test_any_cut(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < STREAMS; seed++) {
        struct frame_reader in;
        struct str stream = {0};
        size_t len[FRAMES], at = 0, got = 0, n;
        const uint8_t *body;
        struct rng r;
        struct err e;

        rng_init(&r, rng_key(seed, 3, 0, 0));
        for (size_t i = 0; i < FRAMES; i++) {
            len[i] = rng_below(&r, 3) ? rng_below(&r, 300) : 0;
            frame_head(&stream, len[i]);
            for (size_t k = 0; k < len[i]; k++)
                str_add_char(&stream, (char)(i + k));
        }
        frame_reader_init(&in, 512);
        while (at < stream.len) {
            size_t chunk = 1 + rng_below(&r, rng_below(&r, 2) ? 8 : 2000);
            int rc;

            chunk = chunk < stream.len - at ? chunk : stream.len - at;
            assert_int_equal(frame_feed(&in, stream.s + at, chunk, &e), 0);
            at += chunk;
            while ((rc = frame_next(&in, &body, &n, &e)) > 0) {
                assert_true(got < FRAMES);
                assert_int_equal(n, len[got]);
                for (size_t k = 0; k < n; k++)
                    assert_int_equal(body[k], (uint8_t)(got + k));
                got++;
            }
            assert_int_equal(rc, 0);
        }
        assert_int_equal(got, FRAMES);
        frame_reader_fini(&in);
        str_fini(&stream);
    }
}

static void refused(const uint8_t *head, size_t cap)
{
    struct frame_reader in;
    const uint8_t *body;
    size_t n;
    struct err e;

    frame_reader_init(&in, cap);
    assert_int_equal(frame_feed(&in, head, FRAME_HEAD, &e), 0);
    assert_int_equal(frame_next(&in, &body, &n, &e), ERR_CORRUPT);
    assert_int_equal(frame_next(&in, &body, &n, &e), ERR_CORRUPT); /* and stays so */
    assert_int_equal(frame_feed(&in, head, FRAME_HEAD, &e), ERR_CORRUPT);
    frame_reader_fini(&in);
}

static void test_hostile_heads(void **state)
{
    static const uint8_t flags[] = {1, 0, 0, 0, 0}, huge[] = {0, 0xff, 0xff, 0xff, 0xff},
                         above[] = {0, 0, 0, 0x10, 0x01};

    (void)state;
    refused(flags, FRAME_CAP);
    refused(huge, FRAME_CAP);
    refused(above, FRAME_CAP_HELLO); /* 4097 */
}

static void test_there_and_back(void **state)
{
    Hone__V1__SubmitRequest m = HONE__V1__SUBMIT_REQUEST__INIT, *back;
    char *set[] = {(char *)"stages.sft.lr=1e-5", (char *)"name=h\xc3\xa9"};
    struct str out = {0};
    ProtobufCMessage *got;
    struct err e;

    (void)state;
    m.file = (char *)"/job.yaml";
    m.set = set;
    m.n_set = 2;
    m.has_resume = m.resume = 1;
    assert_int_equal(message_pack(&m.base, &out, &e), 0);
    assert_int_equal(message_unpack(m.base.descriptor, out.s, out.len, &got, &e), 0);
    back = (Hone__V1__SubmitRequest *)got;
    assert_string_equal(back->file, m.file);
    assert_int_equal(back->n_set, 2);
    assert_string_equal(back->set[1], set[1]);
    assert_null(back->out);
    assert_true(back->has_resume && back->resume);
    message_free(got);
    str_fini(&out);
}

static void test_text_must_be_utf8(void **state)
{
    Hone__V1__SubmitRequest m = HONE__V1__SUBMIT_REQUEST__INIT;
    char *set[] = {(char *)"name=\xff"};
    struct str out = {0};
    ProtobufCMessage *got;
    long before = mem_live();
    struct err e;

    (void)state;
    m.file = (char *)"/job.yaml";
    m.set = set;
    m.n_set = 1;
    assert_int_equal(message_pack(&m.base, &out, &e), 0);
    assert_int_equal(message_unpack(m.base.descriptor, out.s, out.len, &got, &e),
                     ERR_CORRUPT);
    assert_non_null(strstr(e.msg, "\"set\" is not UTF-8"));
    assert_null(got);
    str_fini(&out);
    assert_int_equal(mem_live(), before);
}

/* Two bytes a problem, each of which wants a whole object. */
static void test_budget(void **state)
{
    struct str out = {0};
    ProtobufCMessage *got;
    long before = mem_live();
    struct err e;

    (void)state;
    str_add(&out, "");
    for (int i = 0; i < 400000; i++)
        str_add_bytes(&out, "\x12\x00", 2); /* SubmitReply.problems, empty */
    assert_int_equal(
        message_unpack(&hone__v1__submit_reply__descriptor, out.s, out.len, &got, &e),
        ERR_CORRUPT);
    str_fini(&out);
    assert_int_equal(mem_live(), before);
}

static void test_too_long_to_send(void **state)
{
    Hone__V1__Error m = HONE__V1__ERROR__INIT;
    struct str text = {0}, out = {0};
    struct err e;

    (void)state;
    for (int i = 0; i <= FRAME_CAP; i++)
        str_add_char(&text, 'x');
    m.message = text.s;
    assert_int_equal(message_frame(&m.base, &out, &e), ERR_CORRUPT);
    str_fini(&text);
    str_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_cut),        cmocka_unit_test(test_hostile_heads),
        cmocka_unit_test(test_there_and_back), cmocka_unit_test(test_text_must_be_utf8),
        cmocka_unit_test(test_budget),         cmocka_unit_test(test_too_long_to_send),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
