/* Journals: see journal.h.
 *
 * Reading goes through one page of the file; the newest flush is still in memory, so that
 * watchers who keep up never touch the file. An index of every INDEX_EVERY-th record finds
 * the place of a reader who comes with a number. */
#include "daemon/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"

enum { HEAD = 8, PAGE = 1 << 16, INDEX_EVERY = 256, LOST_HEAD = 16 };
static const char lost_mark[8] = "HONEJRN1"; /* no record is so long */

struct journal {
    char *path;
    int fd;              /* -1: it rests, or the file is not there */
    uint64_t base;       /* records lost */
    uint64_t last, size; /* newest record, bytes of the file */
    uint64_t limit;      /* 0: none */
    uint64_t tried;      /* size at which shortening it failed; 0: it did not */
    unsigned generation; /* counts the files */
    struct str fresh;    /* appended, not yet flushed */
    uint64_t n_fresh;
    struct str tail;              /* the newest flush: bytes from tail_at to size */
    uint64_t tail_at, tail_first; /* offset; seq of its first record */
    uint64_t *index;              /* offset of record base + 1 + k INDEX_EVERY */
    size_t n_index, cap_index;
    uint8_t *page; /* of the file */
    uint64_t page_at;
    size_t page_len, page_cap;
};

static void put32(uint8_t *p, uint32_t x)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(x >> 8 * i);
}

static uint32_t get32(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static int no_memory(const struct journal *j, struct err *e)
{
    return err_set(e, ERR_NOMEM, "%s: out of memory", j->path);
}

static int note_place(struct journal *j, uint64_t seq, uint64_t at)
{
    if ((seq - 1 - j->base) % INDEX_EVERY)
        return 0;
    if (j->n_index == j->cap_index) {
        size_t cap = j->cap_index ? 2 * j->cap_index : 16;
        uint64_t *grown = mem_resize(j->index, cap, sizeof *grown);

        if (!grown)
            return -1;
        j->index = grown;
        j->cap_index = cap;
    }
    j->index[j->n_index++] = at;
    return 0;
}

static int wake(struct journal *j, int flags, struct err *e)
{
    if (j->fd >= 0)
        return 0;
    j->fd = open(j->path, O_RDWR | O_CLOEXEC | flags, 0600);
    return j->fd < 0 ? err_errno(e, ERR_IO, errno, "open %s", j->path) : 0;
}

/* Bytes [at, at + want) of the file in the page; *got may be less at its end. */
static int load(struct journal *j, uint64_t at, size_t want, const uint8_t **p, size_t *got,
                struct err *e)
{
    ssize_t n;

    if (at >= j->page_at && at + want <= j->page_at + j->page_len) {
        *p = j->page + (at - j->page_at);
        *got = want;
        return 0;
    }
    if (want < PAGE)
        want = PAGE;
    if (want > j->page_cap) {
        uint8_t *grown = mem_resize(j->page, want, 1);

        if (!grown)
            return no_memory(j, e);
        j->page = grown;
        j->page_cap = want;
    }
    j->page_len = 0;
    if (wake(j, 0, e))
        return e->code;
    do
        n = pread(j->fd, j->page, want, (off_t)at);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return err_errno(e, ERR_IO, errno, "read %s", j->path);
    j->page_at = at;
    j->page_len = (size_t)n;
    *p = j->page;
    *got = (size_t)n;
    return 0;
}

/* The record at an offset of the file: 1; 0: there is no whole one. */
static int record_at(struct journal *j, uint64_t at, const uint8_t **body, size_t *n,
                     struct err *e)
{
    const uint8_t *p;
    size_t got, len;

    *body = NULL;
    *n = 0;
    if (load(j, at, HEAD, &p, &got, e))
        return e->code;
    if (got < HEAD)
        return 0;
    len = get32(p);
    if (len > JOURNAL_RECORD_MAX)
        return 0;
    if (load(j, at, HEAD + len, &p, &got, e))
        return e->code;
    if (got < HEAD + len || get32(p + 4) != (uint32_t)hash_bytes(p + HEAD, len))
        return 0;
    *body = p + HEAD;
    *n = len;
    return 1;
}

static int read_head(struct journal *j, struct err *e)
{
    const uint8_t *p;
    size_t got;

    if (load(j, 0, LOST_HEAD, &p, &got, e))
        return e->code;
    if (got < LOST_HEAD || memcmp(p, lost_mark, sizeof lost_mark) != 0)
        return 0;
    j->base = j->last = get32(p + 8) | (uint64_t)get32(p + 12) << 32;
    j->size = LOST_HEAD;
    return 0;
}

/* Count what is there and cut off what is not whole. */
static int scan(struct journal *j, struct err *e)
{
    const uint8_t *body;
    size_t n;
    int rc = read_head(j, e);

    if (rc)
        return rc;
    while ((rc = record_at(j, j->size, &body, &n, e)) > 0) {
        if (note_place(j, j->last + 1, j->size))
            return no_memory(j, e);
        j->last++;
        j->size += HEAD + n;
    }
    if (!rc && file_size(j->path) > (long long)j->size && ftruncate(j->fd, (off_t)j->size))
        rc = err_errno(e, ERR_IO, errno, "truncate %s", j->path);
    return rc;
}

int journal_open(struct journal **out, const char *path, struct err *e)
{
    struct journal *j = mem_alloc(sizeof *j);
    int rc = 0;

    *out = NULL;
    if (!j)
        return err_set(e, ERR_NOMEM, "open %s: out of memory", path);
    j->fd = -1;
    j->path = mem_strdup(path);
    if (!j->path)
        rc = err_set(e, ERR_NOMEM, "open %s: out of memory", path);
    if (!rc && file_exists(path))
        rc = scan(j, e);
    if (rc) {
        journal_close(j);
        return rc;
    }
    j->tail_at = j->size;
    j->tail_first = j->last + 1;
    *out = j;
    return 0;
}

void journal_rest(struct journal *j)
{
    if (!j)
        return;
    if (j->fd >= 0)
        close(j->fd);
    j->fd = -1;
    mem_free(j->page);
    j->page = NULL;
    j->page_len = j->page_cap = 0;
    str_fini(&j->tail);
    j->tail_at = j->size;
    j->tail_first = j->last + 1;
}

void journal_close(struct journal *j)
{
    if (!j)
        return;
    journal_rest(j);
    str_fini(&j->fresh);
    mem_free(j->index);
    mem_free(j->path);
    mem_free(j);
}

void journal_set_limit(struct journal *j, uint64_t bytes)
{
    j->limit = bytes;
}

uint64_t journal_size(const struct journal *j)
{
    return j->size;
}

uint64_t journal_first(const struct journal *j)
{
    return j->base + 1;
}

uint64_t journal_last(const struct journal *j)
{
    return j->last;
}

uint64_t journal_next_seq(const struct journal *j)
{
    return j->last + j->n_fresh + 1;
}

int journal_append(struct journal *j, const void *body, size_t n, struct err *e)
{
    uint8_t head[HEAD];

    if (n > JOURNAL_RECORD_MAX)
        return err_set(e, ERR_CORRUPT, "%s: an event of %zu bytes", j->path, n);
    if (note_place(j, j->last + j->n_fresh + 1, j->size + j->fresh.len))
        return no_memory(j, e);
    put32(head, (uint32_t)n);
    put32(head + 4, (uint32_t)hash_bytes(body, n));
    str_add_bytes(&j->fresh, head, HEAD);
    str_add_bytes(&j->fresh, body, n);
    j->n_fresh++;
    return 0;
}

static void forget_fresh(struct journal *j)
{
    size_t keep = (size_t)((j->last - j->base + INDEX_EVERY - 1) / INDEX_EVERY);

    if (j->n_index > keep)
        j->n_index = keep;
    str_fini(&j->fresh);
    j->n_fresh = 0;
}

static int write_fresh(struct journal *j, struct err *e)
{
    size_t done = 0;
    int rc = 0;

    if (str_failed(&j->fresh))
        return no_memory(j, e);
    if (wake(j, O_CREAT, e))
        return e->code;
    while (!rc && done < j->fresh.len) {
        ssize_t n = fault_hit(FAULT_WRITE)
                        ? -1
                        : pwrite(j->fd, j->fresh.s + done, j->fresh.len - done,
                                 (off_t)(j->size + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            rc = err_errno(e, ERR_IO, errno, "write %s", j->path);
        else
            done += (size_t)n;
    }
    if (rc && ftruncate(j->fd, (off_t)j->size))
        err_wrap(e, "and then cut off"); /* the next flush writes over it */
    return rc;
}

/* ---- shortening ---- */

/* The first record to keep, so that at most `room` bytes are left: its offset and number.
 * Of the newest record nothing is lost. */
static int find_cut(struct journal *j, uint64_t room, uint64_t *at, uint64_t *seq,
                    struct err *e)
{
    const uint8_t *body;
    size_t k = j->n_index, n;
    int rc;

    while (k > 1 && j->size - j->index[k - 1] <= room)
        k--;
    *at = k ? j->index[k - 1] : j->size;
    *seq = j->base + 1 + (k ? k - 1 : 0) * INDEX_EVERY;
    while (*seq < j->last && j->size - *at > room) {
        rc = record_at(j, *at, &body, &n, e);
        if (rc <= 0)
            return rc ? rc : err_set(e, ERR_CORRUPT, "%s: a record is gone", j->path);
        *at += HEAD + n;
        ++*seq;
    }
    return 0;
}

static int write_at(int fd, const char *path, const uint8_t *p, size_t n, struct err *e)
{
    while (n) {
        ssize_t done = fault_hit(FAULT_WRITE) ? -1 : write(fd, p, n);

        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return err_errno(e, ERR_IO, errno, "write %s", path);
        p += done;
        n -= (size_t)done;
    }
    return 0;
}

/* What is kept, as a file of its own at `path`. */
static int write_rest(struct journal *j, const char *path, uint64_t at, uint64_t seq,
                      struct err *e)
{
    uint8_t head[LOST_HEAD];
    const uint8_t *p;
    size_t got = 1;
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), rc = 0;

    if (fd < 0)
        return err_errno(e, ERR_IO, errno, "create %s", path);
    memcpy(head, lost_mark, sizeof lost_mark);
    put32(head + 8, (uint32_t)(seq - 1));
    put32(head + 12, (uint32_t)((seq - 1) >> 32));
    rc = write_at(fd, path, head, sizeof head, e);
    for (; !rc && at < j->size && got; at += got) {
        rc = load(j, at, j->size - at < PAGE ? (size_t)(j->size - at) : PAGE, &p, &got, e);
        if (!rc && got > j->size - at)
            got = (size_t)(j->size - at);
        if (!rc)
            rc = write_at(fd, path, p, got, e);
    }
    if (!rc && (fault_hit(FAULT_FSYNC) || fsync(fd)))
        rc = err_errno(e, ERR_IO, errno, "sync %s", path);
    close(fd);
    return rc;
}

/* Forget the oldest records. A failure changes nothing. */
static int shorten(struct journal *j, struct err *e)
{
    char path[FILE_PATH_MAX];
    uint64_t at, seq, last = j->last;
    int rc;

    if (snprintf(path, sizeof path, "%s.new", j->path) >= (int)sizeof path)
        return err_set(e, ERR_CONFIG, "%s: path too long", j->path);
    rc = find_cut(j, j->limit / 2, &at, &seq, e);
    if (!rc)
        rc = write_rest(j, path, at, seq, e);
    if (!rc && rename(path, j->path))
        rc = err_errno(e, ERR_IO, errno, "rename %s", path);
    if (rc) {
        unlink(path);
        return rc;
    }
    close(j->fd);
    j->fd = -1;
    j->generation++;
    j->n_index = j->page_len = 0;
    rc = wake(j, 0, e);
    if (!rc)
        rc = scan(j, e);
    j->tail_at = j->size;
    j->tail_first = j->last + 1;
    return rc || j->last == last ? rc
                                 : err_set(e, ERR_CORRUPT, "%s: records are gone", j->path);
}

/* The records are safe already: a failure is for the next time. */
static void shorten_if_long(struct journal *j)
{
    struct err e;

    if (!j->limit || j->size <= j->limit || j->size < j->tried + j->limit / 4)
        return;
    j->tried = shorten(j, &e) ? j->size : 0;
    if (j->tried)
        log_error("%s", e.msg);
}

int journal_flush(struct journal *j, struct err *e)
{
    struct str old = j->tail;
    int rc;

    if (!j->n_fresh)
        return 0;
    rc = write_fresh(j, e);
    if (rc) {
        forget_fresh(j);
        return rc;
    }
    j->tail = j->fresh;
    j->tail_at = j->size;
    j->tail_first = j->last + 1;
    j->size += j->fresh.len;
    j->last += j->n_fresh;
    str_clear(&old);
    j->fresh = old; /* its memory is used again */
    j->n_fresh = 0;
    j->page_len = 0;
    shorten_if_long(j);
    return 0;
}

/* Where record after + 1 begins: from the newest flush, or from the index onwards. */
static int find_place(struct journal *j, struct journal_place *place, struct err *e)
{
    uint64_t seq = place->after + 1, k;
    const uint8_t *body;
    size_t n;
    int rc;

    if (seq >= j->tail_first) {
        place->at = j->tail_at;
        k = j->tail_first;
    } else {
        k = (seq - 1 - j->base) / INDEX_EVERY;
        place->at = j->index[k];
        k = j->base + 1 + k * INDEX_EVERY;
    }
    place->known = 1;
    place->generation = j->generation;
    for (; k < seq; k++) {
        if (place->at >= j->tail_at) {
            place->at += HEAD + get32((uint8_t *)j->tail.s + (place->at - j->tail_at));
            continue;
        }
        rc = record_at(j, place->at, &body, &n, e);
        if (rc <= 0)
            return rc ? rc : err_set(e, ERR_CORRUPT, "%s: a record is gone", j->path);
        place->at += HEAD + n;
    }
    return 0;
}

int journal_read(struct journal *j, struct journal_place *place, const uint8_t **body,
                 size_t *n, struct err *e)
{
    int rc;

    if (place->after >= j->last)
        return 0;
    place->known &= place->generation == j->generation;
    if (place->after < j->base) {
        place->after = j->base;
        place->known = 0;
    }
    if (!place->known && find_place(j, place, e))
        return e->code;
    if (place->at >= j->tail_at) {
        const uint8_t *p = (const uint8_t *)j->tail.s + (place->at - j->tail_at);

        *n = get32(p);
        *body = p + HEAD;
    } else {
        rc = record_at(j, place->at, body, n, e);
        if (rc <= 0)
            return rc ? rc : err_set(e, ERR_CORRUPT, "%s: a record is gone", j->path);
    }
    place->at += HEAD + *n;
    place->after++;
    return 1;
}
