/* Protobuf messages as JSON, both ways, from the descriptors alone.
 *
 * The mapping is protobuf's own, with the names of the .proto files: snake_case is written,
 * lowerCamelCase is read as well. 64-bit integers are written as numbers up to 2^53 and as
 * strings beyond; integers are read as numbers or strings. Enumerations go by name (numbers
 * are read too), bytes in base64, not-a-number and infinity as "NaN", "Infinity",
 * "-Infinity". null is a field that is not there.
 *
 * Strict: an unknown field, a wrong type, a number out of range, a missing required field,
 * text that is no UTF-8 or holds NUL, a duplicate key, trailing text and nesting beyond 64
 * are refused; the field is named as in "stages[2].name" and a near miss gets its mend. At
 * most FRAME_CAP bytes, and as much memory as the same message in protobuf may take. */
#ifndef PROTO_PBJSON_H
#define PROTO_PBJSON_H

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>

#include "base/err.h"
#include "base/str.h"

enum { PBJSON_FIELD_MAX = 128 };

/* An object as a message, to be freed with message_free(). Empty text is {}. `field`: the
 * one that is wrong, "" where it is none in particular. ERR_CONFIG, ERR_CORRUPT (no JSON)
 * or ERR_NOMEM. */
int pbjson_parse(const ProtobufCMessageDescriptor *d, const char *text, size_t n,
                 ProtobufCMessage **out, char field[PBJSON_FIELD_MAX], struct err *e);

/* Append the message as one line of JSON. */
void pbjson_write(const ProtobufCMessage *m, struct str *out);

#endif
