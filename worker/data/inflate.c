/* See inflate.h. */
#include "worker/data/inflate.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "base/mem.h"
#include "base/str.h"

enum { CHUNK = 1 << 17 };
static const unsigned long long unpacked_max = 64ull << 30;

struct unpacking {
    const char *path;
    int out;
    unsigned long long written;
    char *buf; /* CHUNK unpacked bytes, then CHUNK packed ones */
};

size_t inflate_stem(const char *path)
{
    size_t n = strlen(path);

    if (str_ends(path, ".gz"))
        return n - 3;
    return str_ends(path, ".zst") ? n - 4 : n;
}

static int put(struct unpacking *u, size_t n, struct err *e)
{
    for (size_t at = 0; at < n;) {
        ssize_t k = write(u->out, u->buf + at, n - at);

        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0) {
            err_errno(e, ERR_IO, errno, "unpack %s into a temporary file in %s", u->path,
                      file_temporary_dir());
            return err_mend(e, "set TMPDIR to a folder with more room");
        }
        at += (size_t)k;
    }
    u->written += n;
    return u->written <= unpacked_max
               ? 0
               : err_set(e, ERR_CONFIG, "%s: unpacks to more than 64 GiB", u->path);
}

static int damaged(const struct unpacking *u, const char *what, struct err *e)
{
    err_set(e, ERR_CORRUPT, "unpack %s: %s", u->path, what);
    return err_mend(e, "fetch or pack the file again");
}

static const char *gz_problem(const z_stream *z, int code)
{
    return code == Z_MEM_ERROR ? "out of memory" : z->msg ? z->msg : "damaged";
}

/* What follows a member's end: another member, or nothing but zeros (padding of tapes). */
static int gz_next_member(struct unpacking *u, z_stream *z, struct err *e)
{
    while (z->avail_in && !*z->next_in) {
        z->next_in++;
        z->avail_in--;
    }
    if (!z->avail_in)
        return 0;
    if (*z->next_in != 0x1f)
        return damaged(u, "something else follows the packed data", e);
    return inflateReset(z) == Z_OK ? 0 : damaged(u, "damaged", e);
}

static int gz_chunk(struct unpacking *u, z_stream *z, int *inside, struct err *e)
{
    int rc = 0;

    while (!rc && z->avail_in) {
        int code;

        if (!*inside) {
            rc = gz_next_member(u, z, e);
            if (rc || !z->avail_in)
                break;
            *inside = 1;
        }
        z->next_out = (unsigned char *)u->buf;
        z->avail_out = CHUNK;
        code = inflate(z, Z_NO_FLUSH);
        if (code != Z_OK && code != Z_STREAM_END && code != Z_BUF_ERROR)
            return damaged(u, gz_problem(z, code), e);
        *inside = code != Z_STREAM_END;
        rc = put(u, CHUNK - z->avail_out, e);
    }
    return rc;
}

static int unpack_gz(struct unpacking *u, struct err *e)
{
    z_stream z = {0};
    FILE *f = fopen(u->path, "rb");
    int inside = 1, rc = 0;

    if (!f)
        return err_errno(e, ERR_CONFIG, errno, "read %s", u->path);
    if (inflateInit2(&z, 15 + 16) != Z_OK) { /* gzip's header alone */
        fclose(f);
        return err_set(e, ERR_NOMEM, "unpack %s: out of memory", u->path);
    }
    for (int first = 1; !rc; first = 0) {
        z.next_in = (unsigned char *)u->buf + CHUNK;
        z.avail_in = (unsigned)fread(u->buf + CHUNK, 1, CHUNK, f);
        if (!z.avail_in)
            break;
        if (first && *z.next_in != 0x1f)
            rc = damaged(u, "not in gzip format", e);
        else
            rc = gz_chunk(u, &z, &inside, e);
    }
    if (!rc && ferror(f))
        rc = err_errno(e, ERR_IO, errno, "read %s", u->path);
    if (!rc && inside)
        rc = damaged(u, "cut short", e);
    fclose(f);
    inflateEnd(&z);
    return rc;
}

static int unpack_zst(struct unpacking *u, struct err *e)
{
    ZSTD_DStream *z = ZSTD_createDStream();
    FILE *f = fopen(u->path, "rb");
    size_t left = 1;
    int rc = 0;

    if (!z || !f)
        rc = z ? err_errno(e, ERR_CONFIG, errno, "read %s", u->path)
               : err_set(e, ERR_NOMEM, "unpack %s: out of memory", u->path);
    while (!rc) {
        ZSTD_inBuffer in = {u->buf + CHUNK, 0, 0};

        in.size = fread(u->buf + CHUNK, 1, CHUNK, f);
        if (!in.size)
            break;
        while (!rc && in.pos < in.size) {
            ZSTD_outBuffer out = {u->buf, CHUNK, 0};

            left = ZSTD_decompressStream(z, &out, &in);
            rc = ZSTD_isError(left) ? damaged(u, ZSTD_getErrorName(left), e)
                                    : put(u, out.pos, e);
        }
    }
    if (!rc && ferror(f))
        rc = err_errno(e, ERR_IO, errno, "read %s", u->path);
    if (!rc && left)
        rc = damaged(u, "cut short", e);
    if (f)
        fclose(f);
    ZSTD_freeDStream(z);
    return rc;
}

int inflate_map(struct file_map *m, const char *path, struct err *e)
{
    struct unpacking u = {.path = path, .out = -1};
    char name[64];
    int rc;

    if (!path[inflate_stem(path)])
        return file_map_open(m, path, e);
    rc = file_map_open(m, path, e); /* says what is wrong with a folder or a pipe */
    if (rc)
        return rc;
    file_map_close(m);
    u.buf = mem_resize(NULL, 2, CHUNK);
    rc = u.buf ? file_temporary(&u.out, e)
               : err_set(e, ERR_NOMEM, "unpack %s: out of memory", path);
    if (!rc)
        rc = str_ends(path, ".gz") ? unpack_gz(&u, e) : unpack_zst(&u, e);
    if (!rc) {
        snprintf(name, sizeof name, "/proc/self/fd/%d", u.out);
        rc = file_map_open(m, name, e);
    }
    if (u.out >= 0)
        close(u.out);
    mem_free(u.buf);
    return rc;
}
