/* Writing safetensors files; see safetensors.h. The header is padded with blanks so that
 * the first tensor lies at a multiple of 8 bytes, as the library of Hugging Face does. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/file.h"
#include "base/mem.h"
#include "worker/ckpt/safetensors.h"

size_t safetensors_item_bytes(const struct safetensors_item *item)
{
    size_t n = dtype_size(item->dtype);

    for (int i = 0; i < item->rank; i++)
        n *= (size_t)item->shape[i];
    return n;
}

int safetensors_header(struct str *out, const char *metadata,
                       const struct safetensors_item *item, size_t n, struct err *e)
{
    size_t at = 0;

    str_add_char(out, '{');
    if (metadata)
        str_addf(out, "\"__metadata__\":%s", metadata);
    for (size_t i = 0; i < n; i++) {
        const struct safetensors_item *t = &item[i];
        size_t bytes = safetensors_item_bytes(t);

        if (i || metadata)
            str_add_char(out, ',');
        str_add_json(out, t->name, strlen(t->name));
        str_addf(out, ":{\"dtype\":\"%s\",\"shape\":[", dtype_name(t->dtype));
        for (int k = 0; k < t->rank; k++)
            str_addf(out, "%s%ld", k ? "," : "", t->shape[k]);
        str_addf(out, "],\"data_offsets\":[%zu,%zu]}", at, at + bytes);
        at += bytes;
    }
    str_add_char(out, '}');
    while (out->len % 8 && !str_failed(out))
        str_add_char(out, ' ');
    return str_failed(out) ? err_set(e, ERR_NOMEM, "header of tensors: out of memory") : 0;
}

static int write_bytes(struct safetensors_out *o, const void *p, size_t n, struct err *e)
{
    const char *s = p;

    while (n) {
        ssize_t k = fault_hit(FAULT_WRITE) ? -1 : write(o->fd, s, n);

        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0) {
            int saved = errno;

            err_errno(e, ERR_IO, saved, "write %s", o->path);
            safetensors_abort(o);
            return e->code;
        }
        s += k;
        n -= (size_t)k;
    }
    return 0;
}

int safetensors_create(struct safetensors_out *o, const char *path, const char *header,
                       size_t header_len, uint64_t data_len, struct err *e)
{
    static const char suffix[] = ".tmp";
    unsigned char b[8];
    size_t n = strlen(path);
    int rc;

    memset(o, 0, sizeof *o);
    o->path = mem_strdup(path);
    o->tmp = mem_alloc(n + sizeof suffix);
    if (!o->path || !o->tmp) {
        safetensors_abort(o);
        return err_set(e, ERR_NOMEM, "write %s: out of memory", path);
    }
    memcpy(o->tmp, path, n);
    memcpy(o->tmp + n, suffix, sizeof suffix);
    o->fd = open(o->tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (o->fd < 0) {
        rc = err_errno(e, ERR_IO, errno, "create %s", o->tmp);
        mem_free(o->tmp);
        o->tmp = NULL;
        safetensors_abort(o);
        return rc;
    }
    o->is_open = 1;
    o->left = data_len;
    for (int i = 0; i < 8; i++)
        b[i] = (unsigned char)((uint64_t)header_len >> (8 * i));
    rc = write_bytes(o, b, sizeof b, e);
    return rc ? rc : write_bytes(o, header, header_len, e);
}

int safetensors_put(struct safetensors_out *o, const void *p, size_t n, struct err *e)
{
    invariant(o->is_open && n <= o->left);
    o->left -= n;
    return write_bytes(o, p, n, e);
}

int safetensors_finish(struct safetensors_out *o, struct err *e)
{
    int rc = 0;

    invariant(o->is_open && o->left == 0);
    o->is_open = 0;
    if (close(o->fd) && !rc)
        rc = err_errno(e, ERR_IO, errno, "write %s", o->path);
    if (!rc)
        rc = file_rename(o->tmp, o->path, e);
    if (!rc) {
        mem_free(o->tmp);
        o->tmp = NULL;
    }
    safetensors_abort(o);
    return rc;
}

void safetensors_abort(struct safetensors_out *o)
{
    if (o->is_open)
        close(o->fd);
    if (o->tmp)
        unlink(o->tmp);
    mem_free(o->tmp);
    mem_free(o->path);
    memset(o, 0, sizeof *o);
}

int safetensors_write(const char *path, const char *metadata,
                      const struct safetensors_item *item, size_t n, struct err *e)
{
    struct safetensors_out out = {0};
    struct str header = {0};
    uint64_t total = 0;
    int rc;

    for (size_t i = 0; i < n; i++)
        total += safetensors_item_bytes(&item[i]);
    rc = safetensors_header(&header, metadata, item, n, e);
    if (!rc)
        rc = safetensors_create(&out, path, header.s, header.len, total, e);
    for (size_t i = 0; i < n && !rc; i++)
        rc = safetensors_put(&out, item[i].data, safetensors_item_bytes(&item[i]), e);
    if (!rc)
        rc = safetensors_finish(&out, e);
    str_fini(&header);
    return rc;
}
