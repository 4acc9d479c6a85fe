/* Messages: protobuf to frames and back, within a budget of memory.
 *
 * protobuf-c turns 2 MiB of hostile input into 96 MiB of objects (an array element for
 * every two bytes); here every unpacking has a byte budget, and text that is not UTF-8 is
 * refused, which protobuf-c does not check. */
#ifndef PROTO_MESSAGE_H
#define PROTO_MESSAGE_H

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "wire.pb-c.h"

enum { PROTO_MAGIC = 0x484f4e45, PROTO_VERSION = 1 };

/* Append `m` as one frame. A message above FRAME_CAP is ERR_CORRUPT. */
int message_frame(const ProtobufCMessage *m, struct str *out, struct err *e);
/* Append the bytes of `m` alone. */
int message_pack(const ProtobufCMessage *m, struct str *out, struct err *e);

/* Unpack n bytes; free with message_free(). Needs at most 16 n + 4 KiB of memory. */
int message_unpack(const ProtobufCMessageDescriptor *d, const void *p, size_t n,
                   ProtobufCMessage **out, struct err *e);
void message_free(ProtobufCMessage *m);

/* The error as the wire has it: its texts are borrowed from *e. */
void message_error(const struct err *e, Hone__V1__Error *out);

/* Exit status of a worker that a daemon started, when another rank or host was lost to it:
 * starting again may help. Without a daemon that is 1, as of any failure. */
enum { WORKER_LOST_STATUS = 75 };

#endif
