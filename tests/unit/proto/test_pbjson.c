/* JSON and protobuf: every type both ways, and what is refused with which field and mend.
 */
#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "hone.pb-c.h"
#include "proto/frame.h"
#include "proto/message.h"
#include "proto/pbjson.h"
#include "wire.pb-c.h"

static void both_ways(const ProtobufCMessageDescriptor *d, const char *in, const char *want)
{
    char field[PBJSON_FIELD_MAX];
    struct str out = {0};
    ProtobufCMessage *m;
    struct err e;

    if (pbjson_parse(d, in, strlen(in), &m, field, &e))
        fail_msg("%s: %s", in, e.msg);
    pbjson_write(m, &out);
    assert_string_equal(str_get(&out), want);
    message_free(m);
    str_fini(&out);
}

static void test_values(void **state)
{
    const ProtobufCMessageDescriptor *job = &hone__v1__job__descriptor;

    (void)state;
    both_ways(job, "{\"id\": 1}", "{\"id\": 1}");
    both_ways(job, "{\"id\":\"7\",\"name\":null}", "{\"id\": 7}");
    both_ways(job, "{\"id\": 9007199254740992}", "{\"id\": 9007199254740992}");
    both_ways(job, "{\"id\": \"18446744073709551615\"}",
              "{\"id\": \"18446744073709551615\"}");
    both_ways(job, "{\"id\": 1, \"priority\": -100, \"submitted\": 0.1, \"ended\": 3}",
              "{\"id\": 1, \"priority\": -100, \"submitted\": 0.1, \"ended\": 3}");
    both_ways(job, "{\"id\": 1, \"submitted\": \"-Infinity\"}",
              "{\"id\": 1, \"submitted\": \"-Infinity\"}");
    both_ways(job, "{\"exitStatus\": 3, \"id\": 1}", "{\"id\": 1, \"exit_status\": 3}");
    both_ways(job, "{\"id\": 1, \"message\": \"\\\"\\n\\u00e4\\ud83d\\ude00\"}",
              "{\"id\": 1, \"message\": \"\\\"\\n\xc3\xa4\xf0\x9f\x98\x80\"}");
    both_ways(
        job,
        "{\"id\": 1, \"stages\": [{\"name\": \"a\", \"cores\": [3, 4], \"needs\": []}, "
        "{\"name\": \"b\", \"progress\": {\"phase\": \"train\", \"step\": -1, "
        "\"total\": \"2\"}}]}",
        "{\"id\": 1, \"stages\": [{\"name\": \"a\", \"cores\": [3, 4]}, {\"name\": "
        "\"b\", \"progress\": {\"phase\": \"train\", \"step\": -1, \"total\": 2}}]}");
    both_ways(&hone__v1__call__descriptor,
              "{\"id\": 1, \"method\": \"m\", \"request\": \"AAEC_-8\"}",
              "{\"id\": 1, \"method\": \"m\", \"request\": \"AAEC/+8=\"}");
    both_ways(&hone__v1__hello__descriptor, "{\"magic\": 1, \"version\": 1, \"role\": 2}",
              "{\"magic\": 1, \"version\": 1, \"role\": \"WORKER\"}");
    both_ways(&hone__v1__cancel_request__descriptor, "{\"id\": 1, \"now\": false}",
              "{\"id\": 1, \"now\": false}");
}

static void test_refused(void **state)
{
    static const struct {
        const char *text, *field, *says;
    } bad[] = {
        {"{\"idd\": 1}", "idd", "has no field"},
        {"{}", "id", "is missing"},
        {"", "id", "is missing"},
        {"{\"id\": -1}", "id", "whole number"},
        {"{\"id\": 1.0}", "id", "whole number"},
        {"{\"id\": \"1 \"}", "id", "whole number"},
        {"{\"id\": \"\"}", "id", "whole number"},
        {"{\"id\": \"18446744073709551616\"}", "id", "whole number"},
        {"{\"id\": true}", "id", "whole number"},
        {"{\"id\": 1, \"name\": 1}", "name", "a string"},
        {"{\"id\": 1, \"priority\": 2147483648}", "priority", "32 bits"},
        {"{\"id\": 1, \"exit_status\": -1}", "exit_status", "4294967295"},
        {"{\"id\": 1, \"exit_status\": 1, \"exitStatus\": 1}", "exit_status", "twice"},
        {"{\"id\": 1, \"submitted\": \"1\"}", "submitted", "a number"},
        {"{\"id\": 1, \"stages\": {}}", "stages", "a list"},
        {"{\"id\": 1, \"stages\": [{\"name\": \"a\"}, 5]}", "stages[1]", "an object"},
        {"{\"id\": 1, \"stages\": [{\"name\": \"a\"}, {\"nam\": \"b\"}]}", "stages[1].nam",
         "has no field"},
        {"{\"id\": 1, \"stages\": [{\"name\": \"a\", \"cores\": [1, \"x\"]}]}",
         "stages[0].cores[1]", "whole number"},
        {"{\"id\": 1, \"id\": 2}", "", "duplicate"},
        {"{\"id\": 1} x", "", "request:1"},
        {"[1]", "", "an object"},
        {"{\"id\": 1, \"name\": \"a\\u0000b\"}", "", "NUL"},
        {"{\"id\": 1, \"name\": \"\xff\"}", "", "request:1"},
        {"{\"id\": 1, \"name\": \"\\ud800\"}", "", "request:1"},
        {"{\"id\": 99999999999999999999}", "", "request:1"},
    };
    static const char typo[] = "{\"id\": 1, \"nmae\": 1}";
    char field[PBJSON_FIELD_MAX];
    ProtobufCMessage *m;
    struct err e;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        memset(&e, 0, sizeof e);
        if (!pbjson_parse(&hone__v1__job__descriptor, bad[i].text, strlen(bad[i].text), &m,
                          field, &e))
            fail_msg("%s was accepted", bad[i].text);
        if (strcmp(field, bad[i].field) != 0 || !strstr(e.msg, bad[i].says))
            fail_msg("%s: field \"%s\", %s", bad[i].text, field, e.msg);
    }
    assert_int_not_equal(
        pbjson_parse(&hone__v1__job__descriptor, typo, strlen(typo), &m, field, &e), 0);
    assert_string_equal(e.mend, "did you mean \"name\"?");
}

/* Large texts: refused before they are read, or within the budget of memory. */
static void test_size(void **state)
{
    char field[PBJSON_FIELD_MAX];
    struct str text = {0};
    ProtobufCMessage *m;
    long before = mem_live();
    struct err e;

    (void)state;
    str_add(&text, "{\"file\": \"");
    while (text.len <= FRAME_CAP)
        str_add(&text, "xxxxxxxxxxxxxxxx");
    str_add(&text, "\"}");
    assert_int_equal(pbjson_parse(&hone__v1__submit_request__descriptor, text.s, text.len,
                                  &m, field, &e),
                     ERR_CORRUPT);
    str_clear(&text);
    str_add(&text, "{\"id\": 1, \"stages\": [{\"name\": \"\"}");
    for (int i = 0; i < 60000; i++)
        str_add(&text, ", {\"name\": \"\"}");
    str_add(&text, "]}");
    assert_int_equal(
        pbjson_parse(&hone__v1__job__descriptor, text.s, text.len, &m, field, &e),
        ERR_CORRUPT); /* 240 kB of protobuf, 15 MB of objects */
    str_fini(&text);
    assert_int_equal(mem_live(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_size),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
