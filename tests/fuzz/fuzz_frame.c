/* Fuzzer: the wire. The first byte says how the stream is cut; every frame is unpacked as
 * every kind of message, and what unpacks is packed and unpacked again to the same bytes.
 */
#include <stdint.h>

#include "base/err.h"
#include "hone.pb-c.h"
#include "proto/frame.h"
#include "proto/message.h"
#include "wire.pb-c.h"
#include "worker.pb-c.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const ProtobufCMessageDescriptor *const kinds[] = {
    &hone__v1__hello__descriptor,
    &hone__v1__welcome__descriptor,
    &hone__v1__call__descriptor,
    &hone__v1__reply__descriptor,
    &hone__v1__submit_request__descriptor,
    &hone__v1__submit_reply__descriptor,
    &hone__v1__event__descriptor,
    &hone__v1__cancel_request__descriptor,
    &hone__v1__up__descriptor,
    &hone__v1__down__descriptor,
};

static void try_all(const uint8_t *body, size_t n)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        ProtobufCMessage *m, *again;
        struct str one = {0}, two = {0};
        struct err e;

        if (message_unpack(kinds[i], body, n, &m, &e))
            continue;
        invariant(!message_pack(m, &one, &e));
        if (one.len <= FRAME_CAP &&
            !message_unpack(kinds[i], str_get(&one), one.len, &again, &e)) {
            invariant(!message_pack(again, &two, &e));
            invariant(one.len == two.len);
            message_free(again);
        }
        message_free(m);
        str_fini(&one);
        str_fini(&two);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct frame_reader in;
    size_t step = size ? data[0] % 64 + 1u : 1, n;
    const uint8_t *body;
    struct err e;
    int rc = 0;

    frame_reader_init(&in, FRAME_CAP_HELLO);
    for (size_t at = 1; at < size && rc >= 0; at += step) {
        rc = frame_feed(&in, data + at, step < size - at ? step : size - at, &e);
        while (!rc && (rc = frame_next(&in, &body, &n, &e)) > 0) {
            invariant(n <= FRAME_CAP_HELLO);
            try_all(body, n);
            rc = 0;
        }
    }
    frame_reader_fini(&in);
    return 0;
}
