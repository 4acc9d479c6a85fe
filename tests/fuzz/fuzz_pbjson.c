/* Fuzzer: JSON as every message of the service. What is accepted is written, read again and
 * is the same message; what is refused has a reason. */
#include <stdint.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "hone.pb-c.h"
#include "proto/frame.h"
#include "proto/message.h"
#include "proto/pbjson.h"
#include "wire.pb-c.h"
#include "worker.pb-c.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void round_trip(const ProtobufCMessageDescriptor *d, const char *text, size_t n)
{
    struct str json = {0}, one = {0}, two = {0};
    char field[PBJSON_FIELD_MAX];
    ProtobufCMessage *m, *again;
    struct err e = {0};
    json_t *v;

    if (pbjson_parse(d, text, n, &m, field, &e)) {
        invariant(e.code && e.msg[0] && strlen(field) < PBJSON_FIELD_MAX);
        return;
    }
    pbjson_write(m, &json);
    invariant(!json_parse("written", str_get(&json), json.len, &v, &e));
    json_decref(v);
    invariant(!message_pack(m, &one, &e));
    if (json.len <= FRAME_CAP && !pbjson_parse(d, json.s, json.len, &again, field, &e)) {
        invariant(!message_pack(again, &two, &e));
        invariant(one.len == two.len && !memcmp(str_get(&one), str_get(&two), one.len));
        message_free(again);
    } else {
        invariant(json.len > FRAME_CAP || e.code == ERR_CORRUPT); /* the budget */
    }
    message_free(m);
    str_fini(&json);
    str_fini(&one);
    str_fini(&two);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const ProtobufCServiceDescriptor *s = &hone__v1__hone__descriptor;

    for (unsigned i = 0; i < s->n_methods; i++)
        round_trip(s->methods[i].input, (const char *)data, size);
    round_trip(&hone__v1__job__descriptor, (const char *)data, size);
    round_trip(&hone__v1__hello__descriptor, (const char *)data, size);
    round_trip(&hone__v1__call__descriptor, (const char *)data, size);
    round_trip(&hone__v1__up__descriptor, (const char *)data, size);
    return 0;
}
