/* Reading safetensors files; see safetensors.h. The header is a tree of jansson for as long
 * as parsing takes; what stays is a flat array of tensors in the arena. */
#include "worker/ckpt/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/json.h"
#include "base/mem.h"

/* A value takes up to about 100 bytes as a tree; real headers hold a few thousand. */
enum { VALUES_MAX = 2000000, NAME_MAX_BYTES = 512 };

static int no_memory(const char *path, struct err *e)
{
    return err_set(e, ERR_NOMEM, "read %s: out of memory", path);
}

/* ---- header -------------------------------------------------------------------------- */

static int integer_at(const json_t *array, size_t i, long *out)
{
    const json_t *v = json_array_get(array, i);

    if (!json_is_integer(v) || json_integer_value(v) < 0)
        return -1;
    *out = (long)json_integer_value(v);
    return 0;
}

static int parse_shape(struct safetensors *s, struct safetensors_tensor *t,
                       const json_t *shape, struct err *e)
{
    size_t rank = json_array_size(shape), n = 1;

    if (!json_is_array(shape))
        return err_set(e, ERR_CORRUPT, "%s: tensor %s: shape must be an array", s->path,
                       t->name);
    if (rank > SAFETENSORS_RANK_MAX)
        return err_set(e, ERR_CORRUPT,
                       "%s: tensor %s: %zu dimensions, at most %d are "
                       "supported",
                       s->path, t->name, rank, SAFETENSORS_RANK_MAX);
    t->rank = (int)rank;
    for (size_t i = 0; i < rank; i++) {
        if (integer_at(shape, i, &t->shape[i]))
            return err_set(e, ERR_CORRUPT,
                           "%s: tensor %s: shape must hold integers, 0 or more", s->path,
                           t->name);
        if (__builtin_mul_overflow(n, (size_t)t->shape[i], &n))
            return err_set(e, ERR_CORRUPT, "%s: tensor %s: the shape overflows", s->path,
                           t->name);
    }
    t->elements = n;
    return 0;
}

static int parse_offsets(struct safetensors *s, struct safetensors_tensor *t,
                         const json_t *offsets, struct err *e)
{
    long begin, end;
    size_t want;

    if (!json_is_array(offsets) || json_array_size(offsets) != 2 ||
        integer_at(offsets, 0, &begin) || integer_at(offsets, 1, &end))
        return err_set(e, ERR_CORRUPT,
                       "%s: tensor %s: data_offsets must be two integers, 0 or more",
                       s->path, t->name);
    if (__builtin_mul_overflow(t->elements, dtype_size(t->dtype), &want))
        return err_set(e, ERR_CORRUPT, "%s: tensor %s: the shape overflows", s->path,
                       t->name);
    if (begin > end || (uint64_t)end > s->data_len)
        return err_set(e, ERR_CORRUPT,
                       "%s: tensor %s: data_offsets [%ld, %ld] reach beyond the file's "
                       "%llu bytes of tensors",
                       s->path, t->name, begin, end, (unsigned long long)s->data_len);
    if ((size_t)(end - begin) != want)
        return err_set(e, ERR_CORRUPT,
                       "%s: tensor %s: its shape needs %zu bytes, data_offsets give %ld",
                       s->path, t->name, want, end - begin);
    t->begin = (uint64_t)begin;
    t->end = (uint64_t)end;
    return 0;
}

static int parse_tensor(struct safetensors *s, struct safetensors_tensor *t,
                        const char *name, const json_t *v, struct err *e)
{
    const char *dtype = NULL;
    int found, rc;

    if (strlen(name) > NAME_MAX_BYTES)
        return err_set(e, ERR_CORRUPT, "%s: tensor %.40s...: the name is too long", s->path,
                       name);
    t->name = arena_strdup(&s->arena, name);
    if (!t->name)
        return no_memory(s->path, e);
    rc = json_get_string(v, "dtype", 1, &dtype, e);
    if (rc)
        return err_wrap(e, "%s: tensor %s", s->path, name);
    found = dtype_find(dtype);
    if (found < 0)
        return err_set(e, ERR_UNSUPPORTED, "%s: tensor %s: dtype %.20s is not supported",
                       s->path, name, dtype);
    t->dtype = (enum dtype)found;
    if (json_object_size(v) != 3)
        return err_set(e, ERR_CORRUPT,
                       "%s: tensor %s: dtype, shape and data_offsets are wanted, and "
                       "nothing else",
                       s->path, name);
    rc = parse_shape(s, t, json_object_get(v, "shape"), e);
    return rc ? rc : parse_offsets(s, t, json_object_get(v, "data_offsets"), e);
}

static int parse_metadata(struct safetensors *s, const json_t *v, struct err *e)
{
    const char *key;
    json_t *item;
    char *text;

    if (!json_is_object(v))
        return err_set(e, ERR_CORRUPT, "%s: __metadata__ must be an object", s->path);
    json_object_foreach((json_t *)v, key, item) if (!json_is_string(item)) return err_set(
        e, ERR_CORRUPT, "%s: __metadata__.%.40s must be a string", s->path, key);
    text = json_dumps(v, JSON_COMPACT);
    s->metadata = text ? arena_strdup(&s->arena, text) : NULL;
    free(text);
    return s->metadata ? 0 : no_memory(s->path, e);
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const struct safetensors_tensor *const *)a)->name,
                  (*(const struct safetensors_tensor *const *)b)->name);
}

static int by_offset(const void *a, const void *b)
{
    const struct safetensors_tensor *x = *(const struct safetensors_tensor *const *)a;
    const struct safetensors_tensor *y = *(const struct safetensors_tensor *const *)b;

    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

/* The tensors must tile [0, data_len). */
static int check_tiles(const struct safetensors *s, struct err *e)
{
    const struct safetensors_tensor **order = mem_array(s->n + 1, sizeof *order);
    uint64_t at = 0;
    int rc = 0;

    if (!order)
        return no_memory(s->path, e);
    for (size_t i = 0; i < s->n; i++)
        order[i] = &s->tensor[i];
    qsort(order, s->n, sizeof *order, by_offset);
    for (size_t i = 0; i < s->n && !rc; i++) {
        if (order[i]->begin < at)
            rc = err_set(e, ERR_CORRUPT, "%s: tensors %s and %s overlap", s->path,
                         order[i - 1]->name, order[i]->name);
        else if (order[i]->begin > at)
            rc = err_set(e, ERR_CORRUPT, "%s: %llu bytes before tensor %s belong to none",
                         s->path, (unsigned long long)(order[i]->begin - at),
                         order[i]->name);
        at = order[i]->end;
    }
    if (!rc && at != s->data_len)
        rc = err_set(e, ERR_CORRUPT, "%s: the last %llu bytes belong to no tensor", s->path,
                     (unsigned long long)(s->data_len - at));
    mem_free(order);
    return rc;
}

static int parse_object(struct safetensors *s, const json_t *root, struct err *e)
{
    const char *name;
    json_t *v;
    int rc = 0;

    if (!json_is_object(root))
        return err_set(e, ERR_CORRUPT, "%s: the header must be a JSON object", s->path);
    s->tensor = arena_array(&s->arena, json_object_size(root) + 1, sizeof *s->tensor);
    s->by_name = arena_array(&s->arena, json_object_size(root) + 1, sizeof *s->by_name);
    if (!s->tensor || !s->by_name)
        return no_memory(s->path, e);
    json_object_foreach((json_t *)root, name, v)
    {
        if (!strcmp(name, "__metadata__")) {
            rc = parse_metadata(s, v, e);
        } else if (!json_is_object(v)) {
            rc = err_set(e, ERR_CORRUPT, "%s: tensor %.40s must be an object", s->path,
                         name);
        } else {
            rc = parse_tensor(s, &s->tensor[s->n], name, v, e);
            s->n++;
        }
        if (rc)
            return rc;
    }
    for (size_t i = 0; i < s->n; i++)
        s->by_name[i] = &s->tensor[i];
    qsort(s->by_name, s->n, sizeof *s->by_name, by_name);
    return check_tiles(s, e);
}

int safetensors_parse(struct safetensors *s, const char *path, const char *json, size_t len,
                      uint64_t data_len, struct err *e)
{
    json_t *root = NULL;
    char *copy;
    size_t values = 0;
    int rc;

    memset(s, 0, sizeof *s);
    s->data_len = data_len;
    s->header_len = len;
    s->path = arena_strdup(&s->arena, path);
    s->header = copy = arena_alloc(&s->arena, len + 1);
    if (!s->path || !copy) {
        rc = no_memory(path, e);
        goto done;
    }
    memcpy(copy, json, len);
    for (size_t i = 0; i < len; i++)
        values += json[i] == ',';
    if (values > VALUES_MAX)
        rc = err_set(e, ERR_CORRUPT, "%s: the header holds more than %d values", path,
                     VALUES_MAX);
    else
        rc = json_parse(path, json, len, &root, e);
    if (!rc)
        rc = parse_object(s, root, e);
done:
    json_decref(root);
    if (rc)
        safetensors_close(s);
    return rc;
}

/* ---- files --------------------------------------------------------------------------- */

static int read_at(int fd, const char *path, void *dst, size_t n, uint64_t at,
                   struct err *e)
{
    char *p = dst;

    while (n) {
        ssize_t k = pread(fd, p, n, (off_t)at);

        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return err_errno(e, ERR_IO, errno, "read %s", path);
        if (k == 0)
            return err_set(e, ERR_CORRUPT, "read %s: %zu bytes short; it shrank meanwhile",
                           path, n);
        p += k;
        at += (uint64_t)k;
        n -= (size_t)k;
    }
    return 0;
}

/* The length of the header and of what follows it, checked against the file's size. */
static int read_lengths(int fd, const char *path, size_t *header, uint64_t *data,
                        struct err *e)
{
    unsigned char b[8];
    struct stat st;
    uint64_t len = 0, size;
    int rc;

    if (fstat(fd, &st))
        return err_errno(e, ERR_IO, errno, "read %s", path);
    if (!S_ISREG(st.st_mode))
        return err_set(e, ERR_CONFIG, "read %s: is not a regular file", path);
    size = (uint64_t)st.st_size;
    if (size < sizeof b)
        return err_set(e, ERR_CORRUPT, "%s: %llu bytes are too few for a safetensors file",
                       path, (unsigned long long)size);
    rc = read_at(fd, path, b, sizeof b, 0, e);
    if (rc)
        return rc;
    for (int i = 7; i >= 0; i--)
        len = len << 8 | b[i];
    if (len > SAFETENSORS_HEADER_MAX) {
        err_set(e, ERR_CORRUPT, "%s: the header claims %llu bytes, at most %d are allowed",
                path, (unsigned long long)len, SAFETENSORS_HEADER_MAX);
        return err_mend(e, "this may not be a safetensors file; download it again");
    }
    if (len > size - sizeof b) {
        err_set(
            e, ERR_CORRUPT,
            "%s: the header claims %llu bytes, but the file ends %llu bytes before that",
            path, (unsigned long long)len, (unsigned long long)(len - (size - sizeof b)));
        return err_mend(e, "the file is cut short; download it again");
    }
    *header = (size_t)len;
    *data = size - sizeof b - len;
    return 0;
}

int safetensors_open(struct safetensors *s, const char *path, struct err *e)
{
    uint64_t data = 0;
    char *json = NULL;
    size_t len = 0;
    int fd, rc;

    memset(s, 0, sizeof *s);
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return err_errno(e, errno == EMFILE || errno == EIO ? ERR_IO : ERR_CONFIG, errno,
                         "read %s", path);
    rc = read_lengths(fd, path, &len, &data, e);
    if (rc)
        goto fail;
    json = mem_alloc(len + 1);
    if (!json) {
        rc = no_memory(path, e);
        goto fail;
    }
    rc = read_at(fd, path, json, len, 8, e);
    if (!rc)
        rc = safetensors_parse(s, path, json, len, data, e);
    mem_free(json);
    if (rc)
        goto fail;
    s->fd = fd;
    s->is_open = 1;
    return 0;
fail:
    close(fd);
    return rc;
}

void safetensors_close(struct safetensors *s)
{
    if (s->map)
        munmap(s->map, s->map_len);
    if (s->is_open)
        close(s->fd);
    arena_fini(&s->arena);
    memset(s, 0, sizeof *s);
}

const struct safetensors_tensor *safetensors_find(const struct safetensors *s,
                                                  const char *name)
{
    const struct safetensors_tensor key = {.name = name}, *wanted = &key;
    const struct safetensors_tensor **found =
        bsearch(&wanted, s->by_name, s->n, sizeof *s->by_name, by_name);

    return found ? *found : NULL;
}

static uint64_t offset_in_file(const struct safetensors *s,
                               const struct safetensors_tensor *t)
{
    return 8 + s->header_len + t->begin;
}

int safetensors_read(const struct safetensors *s, const struct safetensors_tensor *t,
                     size_t first, size_t n, void *dst, struct err *e)
{
    size_t size = dtype_size(t->dtype);

    invariant(s->is_open && first <= t->elements && n <= t->elements - first);
    return read_at(s->fd, s->path, dst, n * size, offset_in_file(s, t) + first * size, e);
}

int safetensors_read_f32(const struct safetensors *s, const struct safetensors_tensor *t,
                         size_t first, size_t n, float *dst, struct err *e)
{
    enum { CHUNK = 8192 };
    union {
        double f64[CHUNK];
        uint16_t h[CHUNK];
    } buf;

    invariant(dtype_is_float(t->dtype));
    if (t->dtype == DTYPE_F32)
        return safetensors_read(s, t, first, n, dst, e);
    for (size_t done = 0; done < n;) {
        size_t k = n - done < CHUNK ? n - done : CHUNK;
        int rc = safetensors_read(s, t, first + done, k, &buf, e);

        if (rc)
            return rc;
        dtype_to_f32(t->dtype, &buf, dst + done, k);
        done += k;
    }
    return 0;
}

void *safetensors_map(struct safetensors *s, const struct safetensors_tensor *t)
{
    if (!s->map) {
        size_t len = 8 + s->header_len + s->data_len;
        void *p = s->is_open ? mmap(NULL, len, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_NORESERVE, s->fd, 0)
                             : MAP_FAILED;

        if (p == MAP_FAILED)
            return NULL;
        s->map = p;
        s->map_len = len;
    }
    return (char *)s->map + offset_in_file(s, t);
}
