/* safetensors: the tensor file of Hugging Face.
 *
 *     u64 length, little-endian | JSON header of that length | tensors, end to end
 *     header: {"__metadata__": {...}, "<name>": {"dtype", "shape", "data_offsets"}, ...}
 *
 * Reading trusts nothing: the header is at most 100,000,000 bytes, keys are unique, shapes
 * are multiplied with overflow checks, and the tensors must tile the rest of the file
 * without overlap or hole. ERR_CORRUPT names the file, the tensor, what was wanted and
 * what was found. Data is read with pread: a file that shrinks meanwhile is an error, not a
 * signal; safetensors_map() alone gives that up, for models that are only read.
 *
 * Writing streams to a temporary file beside the target, fsyncs and renames. */
#ifndef WORKER_CKPT_SAFETENSORS_H
#define WORKER_CKPT_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/str.h"
#include "worker/ckpt/dtype.h"

enum { SAFETENSORS_RANK_MAX = 8, SAFETENSORS_HEADER_MAX = 100000000 };

struct safetensors_tensor {
    const char *name;
    enum dtype dtype;
    int rank;
    long shape[SAFETENSORS_RANK_MAX];
    size_t elements;
    uint64_t begin, end; /* bytes, counted from the first tensor byte */
};

struct safetensors {
    struct arena arena;
    const char *path;
    int is_open, fd;
    const char *header; /* as in the file, padding included */
    size_t header_len;
    const char *metadata;              /* of __metadata__, JSON text; NULL: there is none */
    struct safetensors_tensor *tensor; /* in the order of the header */
    const struct safetensors_tensor **by_name; /* sorted */
    size_t n;
    uint64_t data_len; /* bytes of all tensors */
    void *map;         /* whole file, or NULL */
    size_t map_len;
};

int safetensors_open(struct safetensors *s, const char *path, struct err *e);
void safetensors_close(struct safetensors *s); /* total on an opened or zeroed object */

/* Parse a header alone, for a file that has data_len bytes behind it. `json` is copied.
 * There is nothing to read from then. */
int safetensors_parse(struct safetensors *s, const char *path, const char *json, size_t len,
                      uint64_t data_len, struct err *e);

const struct safetensors_tensor *safetensors_find(const struct safetensors *s,
                                                  const char *name); /* NULL: none */

/* Elements [first, first + n) of a tensor: as they are, or (dtype_is_float) as f32. Safe
 * to call from several threads. */
int safetensors_read(const struct safetensors *s, const struct safetensors_tensor *t,
                     size_t first, size_t n, void *dst, struct err *e);
int safetensors_read_f32(const struct safetensors *s, const struct safetensors_tensor *t,
                         size_t first, size_t n, float *dst, struct err *e);

/* The tensor's bytes in a private, writable map of the file (made at the first call), or
 * NULL where the file cannot be mapped. Valid until close. */
void *safetensors_map(struct safetensors *s, const struct safetensors_tensor *t);

/* ---- writing ------------------------------------------------------------------------- */

struct safetensors_item {
    const char *name;
    enum dtype dtype;
    int rank;
    long shape[SAFETENSORS_RANK_MAX];
    const void *data; /* elements of dtype; not read by safetensors_header() */
};
size_t safetensors_item_bytes(const struct safetensors_item *item);

/* A whole file at once, tensors in the given order. metadata: a JSON object, or NULL. */
int safetensors_write(const char *path, const char *metadata,
                      const struct safetensors_item *item, size_t n, struct err *e);

/* The same in pieces: header, tensors in order, finish. After a failure of put or finish
 * nothing is left at `path`; abort is total. */
struct safetensors_out {
    int is_open, fd;
    char *path, *tmp;
    uint64_t left; /* data bytes still to come */
};
int safetensors_header(struct str *out, const char *metadata,
                       const struct safetensors_item *item, size_t n, struct err *e);
int safetensors_create(struct safetensors_out *o, const char *path, const char *header,
                       size_t header_len, uint64_t data_len, struct err *e);
int safetensors_put(struct safetensors_out *o, const void *p, size_t n, struct err *e);
int safetensors_finish(struct safetensors_out *o, struct err *e);
void safetensors_abort(struct safetensors_out *o);

#endif
