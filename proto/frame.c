/* Frames: lengths are checked before anything is kept for them, so that a hostile head
 * reserves no memory. */
#include "proto/frame.h"

#include <string.h>

void frame_reader_init(struct frame_reader *r, size_t cap)
{
    memset(r, 0, sizeof *r);
    r->cap = cap;
}

void frame_reader_fini(struct frame_reader *r)
{
    str_fini(&r->buf);
    memset(r, 0, sizeof *r);
}

int frame_feed(struct frame_reader *r, const void *p, size_t n, struct err *e)
{
    size_t rest = r->buf.len - r->start;

    if (r->broken)
        return err_set(e, ERR_CORRUPT, "the connection is out of step");
    if (r->start) {
        memmove(r->buf.s, r->buf.s + r->start, rest);
        r->buf.len = rest;
        r->start = 0;
    }
    str_add_bytes(&r->buf, p, n);
    if (str_failed(&r->buf)) {
        r->broken = 1;
        return err_set(e, ERR_NOMEM, "out of memory for a frame");
    }
    return 0;
}

int frame_next(struct frame_reader *r, const uint8_t **body, size_t *len, struct err *e)
{
    size_t have = r->buf.len - r->start, want;
    const uint8_t *p;

    if (r->broken)
        return err_set(e, ERR_CORRUPT, "the connection is out of step");
    if (have < FRAME_HEAD)
        return 0;
    p = (const uint8_t *)r->buf.s + r->start;
    want = (size_t)p[1] << 24 | (size_t)p[2] << 16 | (size_t)p[3] << 8 | p[4];
    if (p[0] != 0 || want > r->cap) {
        r->broken = 1;
        return p[0] ? err_set(e, ERR_CORRUPT, "frame with unknown flags 0x%02x", p[0])
                    : err_set(e, ERR_CORRUPT, "frame of %zu bytes, %zu are allowed", want,
                              r->cap);
    }
    if (have - FRAME_HEAD < want)
        return 0;
    *body = p + FRAME_HEAD;
    *len = want;
    r->start += FRAME_HEAD + want;
    return 1;
}

void frame_head(struct str *out, size_t len)
{
    uint8_t head[FRAME_HEAD] = {0, (uint8_t)(len >> 24), (uint8_t)(len >> 16),
                                (uint8_t)(len >> 8), (uint8_t)len};

    invariant(len <= FRAME_CAP);
    str_add_bytes(out, head, sizeof head);
}
