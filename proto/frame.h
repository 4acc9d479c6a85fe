/* Frames: how messages are told apart on a stream.
 *
 *     flags (1 byte, 0) | length (4 bytes, big-endian) | body (length bytes)
 *
 * Invariant: a reader never holds more than one frame of `cap` bytes beyond what it was fed
 * in one call; a longer frame, or a flag it does not know, is ERR_CORRUPT and the reader
 * stays broken: the connection is to be closed. The cap is small until the peer has said
 * who it is (FRAME_CAP_HELLO), larger afterwards. */
#ifndef PROTO_FRAME_H
#define PROTO_FRAME_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

enum { FRAME_HEAD = 5, FRAME_CAP_HELLO = 4096, FRAME_CAP = 1 << 20 };

struct frame_reader {
    struct str buf;
    size_t start; /* first byte not yet handed out */
    size_t cap;   /* longest body accepted */
    int broken;
};

void frame_reader_init(struct frame_reader *r, size_t cap);
void frame_reader_fini(struct frame_reader *r);

/* Add bytes from the stream; then call frame_next() until it returns 0. */
int frame_feed(struct frame_reader *r, const void *p, size_t n, struct err *e);

/* 1: *body (borrowed until the next feed) and *len; 0: more bytes are needed; or an error.
 */
int frame_next(struct frame_reader *r, const uint8_t **body, size_t *len, struct err *e);

/* Append the head of a frame with a body of `len` <= FRAME_CAP bytes. */
void frame_head(struct str *out, size_t len);

#endif
