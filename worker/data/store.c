/* See store.h. */
#include "worker/data/store.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/file.h"
#include "base/mem.h"

enum { FIRST = 1 << 16, FILE_BUFFER = 1 << 20 };

static size_t memory = STORE_MEMORY;

void store_set_memory(size_t bytes)
{
    memory = bytes ? bytes : STORE_MEMORY;
}

static int no_memory(size_t n, struct err *e)
{
    return err_set(e, ERR_NOMEM, "%zu bytes of data: out of memory", n);
}

static int write_out(struct store *s, const char *p, size_t n, struct err *e)
{
    while (n) {
        ssize_t k = fault_hit(FAULT_WRITE) ? -1 : write(s->fd, p, n);

        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0) {
            err_errno(e, ERR_IO, errno, "write data into a temporary file in %s",
                      file_temporary_dir());
            return err_mend(e, "set TMPDIR to a folder with more room");
        }
        p += k;
        n -= (size_t)k;
        s->in_file += (size_t)k;
    }
    return 0;
}

int store_flush(struct store *s, struct err *e)
{
    size_t n = s->size - s->in_file;

    return s->is_file && n ? write_out(s, s->bytes, n, e) : 0;
}

/* From now on the bytes lie in a file. */
static int become_file(struct store *s, struct err *e)
{
    char *p;
    int rc = file_temporary(&s->fd, e);

    if (rc)
        return rc;
    s->is_file = 1;
    rc = store_flush(s, e);
    if (rc)
        return rc;
    p = mem_resize(s->bytes, FILE_BUFFER, 1);
    if (!p)
        return no_memory(FILE_BUFFER, e);
    s->bytes = p;
    s->cap = FILE_BUFFER;
    return 0;
}

static int grow(struct store *s, size_t want, struct err *e)
{
    size_t cap = s->cap ? s->cap : FIRST;
    char *p;

    while (cap < want)
        cap *= 2;
    p = mem_resize(s->bytes, cap, 1);
    if (!p)
        return no_memory(cap, e);
    s->bytes = p;
    s->cap = cap;
    return 0;
}

int store_add(struct store *s, const void *p, size_t n, struct err *e)
{
    size_t held = s->size - s->in_file;
    int rc = 0;

    if (!n)
        return 0;
    if (!s->is_file && n > memory - (held < memory ? held : memory))
        rc = become_file(s, e);
    else if (!s->is_file && held + n > s->cap)
        rc = grow(s, held + n, e);
    if (!rc && s->is_file && s->size - s->in_file + n > s->cap)
        rc = store_flush(s, e);
    if (rc)
        return rc;
    if (s->is_file && n > s->cap) {
        s->size += n;
        return write_out(s, p, n, e);
    }
    memcpy(s->bytes + (s->size - s->in_file), p, n);
    s->size += n;
    return 0;
}

const void *store_get(const struct store *s, size_t at, size_t n, struct store_buf *buf,
                      struct err *e)
{
    invariant(at <= s->size && n <= s->size - at);
    if (!n)
        return "";
    if (!s->is_file)
        return s->bytes + at;
    invariant(at + n <= s->in_file);
    if (n > buf->cap) {
        size_t cap = n < 4096 ? 4096 : n + n / 2;
        char *p = mem_resize(buf->p, cap, 1);

        if (!p) {
            no_memory(n, e);
            return NULL;
        }
        buf->p = p;
        buf->cap = cap;
    }
    for (size_t done = 0; done < n;) {
        ssize_t k = pread(s->fd, buf->p + done, n - done, (off_t)(at + done));

        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0) {
            err_errno(e, ERR_IO, k ? errno : EIO, "read data from a temporary file in %s",
                      file_temporary_dir());
            return NULL;
        }
        done += (size_t)k;
    }
    return buf->p;
}

void store_buf_fini(struct store_buf *b)
{
    mem_free(b->p);
    memset(b, 0, sizeof *b);
}

void store_fini(struct store *s)
{
    if (s->is_file)
        close(s->fd);
    mem_free(s->bytes);
    memset(s, 0, sizeof *s);
}
