/* Messages on their way: see outbox.h. */
#include "worker/link/outbox.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "proto/frame.h"
#include "proto/message.h"

enum { HEAD = 16, JOURNAL_BYTES = 256 << 20 };
static const char magic[] = "HONEUPL1";

static struct outbox_item *item_of(const struct outbox *b, size_t i)
{
    return &b->item[b->first + i];
}

/* Room for one more at the end. -1: there is no memory. */
static int grow(struct outbox *b)
{
    struct outbox_item *grown;
    size_t cap = b->cap ? 2 * b->cap : 64;

    if (b->first + b->n < b->cap)
        return 0;
    if (b->first > b->n) { /* most of it has gone: move down instead */
        memmove(b->item, b->item + b->first, b->n * sizeof *b->item);
        b->first = 0;
        return 0;
    }
    grown = mem_resize(b->item, cap, sizeof *grown);
    if (!grown)
        return -1;
    b->item = grown;
    b->cap = cap;
    return 0;
}

static void remove_at(struct outbox *b, size_t i)
{
    str_fini(&item_of(b, i)->out);
    if (i)
        memmove(item_of(b, i), item_of(b, i + 1), (b->n - i - 1) * sizeof *b->item);
    else
        b->first++;
    b->n--;
    if (i < b->n_written)
        b->n_written--;
}

/* ---- the journal ---- */

static int write_all(int fd, const void *p, size_t n, uint64_t at)
{
    for (size_t done = 0; done < n;) {
        ssize_t k = pwrite(fd, (const char *)p + done, n - done, (off_t)(at + done));

        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return -1;
        done += (size_t)k;
    }
    return 0;
}

static int read_all(int fd, void *p, size_t n, uint64_t at)
{
    for (size_t done = 0; done < n;) {
        ssize_t k = pread(fd, (char *)p + done, n - done, (off_t)(at + done));

        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return -1;
        done += (size_t)k;
    }
    return 0;
}

/* The frame at b->size as an item: 1; 0: no whole and sane one is there. */
static int take_frame(struct outbox *b, const uint8_t *p, size_t left)
{
    struct outbox_item *it;
    ProtobufCMessage *m;
    struct err e;
    size_t n;

    if (left < FRAME_HEAD || p[0])
        return 0;
    n = (size_t)p[1] << 24 | (size_t)p[2] << 16 | (size_t)p[3] << 8 | p[4];
    if (n > FRAME_CAP || n > left - FRAME_HEAD || grow(b) ||
        message_unpack(&hone__v1__up__descriptor, p + FRAME_HEAD, n, &m, &e))
        return 0;
    it = item_of(b, b->n);
    *it = (struct outbox_item){.seq = ((Hone__V1__Up *)m)->seq,
                               .metric = ((Hone__V1__Up *)m)->metric != NULL,
                               .at = b->size,
                               .n = FRAME_HEAD + n};
    message_free(m);
    if (it->seq < b->next_seq)
        return 0;
    b->next_seq = it->seq + 1;
    b->n++;
    b->size += it->n;
    return 1;
}

/* What an earlier start of the run has left. */
static int read_journal(struct outbox *b, struct err *e)
{
    struct file_map map;
    int rc = file_map_open(&map, b->path, e);

    if (rc)
        return rc;
    if (map.size < HEAD || memcmp(map.bytes, magic, 8) != 0) {
        file_map_close(&map);
        b->size = 0;
        return 0;
    }
    memcpy(&b->instance, map.bytes + 8, 8);
    b->size = HEAD;
    while (b->n < b->max && b->size < map.size &&
           take_frame(b, map.bytes + b->size, map.size - b->size))
        ;
    file_map_close(&map);
    return 0;
}

static int open_journal(struct outbox *b, const char *path, struct err *e)
{
    char head[HEAD];
    int rc = 0;

    b->path = mem_strdup(path);
    if (!b->path)
        return err_set(e, ERR_NOMEM, "uplink: out of memory");
    b->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (b->fd < 0)
        return err_errno(e, ERR_IO, errno, "open %s", path);
    b->max = OUTBOX_JOURNAL;
    rc = read_journal(b, e);
    if (rc)
        return rc;
    if (b->size < HEAD) {
        memcpy(head, magic, 8);
        memcpy(head + 8, &b->instance, 8);
        if (write_all(b->fd, head, HEAD, 0))
            return err_errno(e, ERR_IO, errno, "write %s", path);
        b->size = HEAD;
    }
    if (ftruncate(b->fd, (off_t)b->size))
        return err_errno(e, ERR_IO, errno, "write %s", path);
    if (b->n)
        log_info("uplink: %zu messages of an earlier start are still to be sent", b->n);
    return 0;
}

int outbox_open(struct outbox *b, const char *path, struct err *e)
{
    memset(b, 0, sizeof *b);
    b->fd = -1;
    b->next_seq = 1;
    b->max = OUTBOX_MEMORY;
    if (getrandom(&b->instance, sizeof b->instance, 0) != sizeof b->instance)
        b->instance = (uint64_t)getpid() << 32 | (uint64_t)time(NULL);
    return path ? open_journal(b, path, e) : 0;
}

void outbox_close(struct outbox *b)
{
    if (b->fd >= 0 && !b->n && !b->dropped)
        unlink(b->path);
    if (b->fd >= 0)
        close(b->fd);
    while (b->n)
        remove_at(b, b->n - 1);
    mem_free(b->item);
    mem_free(b->path);
    memset(b, 0, sizeof *b);
    b->fd = -1;
}

/* ---- messages ---- */

/* Metrics that the journal cannot take are dropped, all else stays in memory. */
static void push(struct outbox *b, Hone__V1__Up *up, int metric)
{
    struct outbox_item it = {.metric = metric};
    struct err e;
    int kept = 0;

    up->seq = it.seq = b->next_seq;
    if (!grow(b) && !message_frame(&up->base, &it.out, &e)) {
        it.n = it.out.len;
        it.at = b->size;
        kept = b->fd < 0 || !metric;
        if (b->fd >= 0 && b->size + it.n <= JOURNAL_BYTES &&
            !write_all(b->fd, it.out.s, it.n, b->size)) {
            b->size += it.n;
            str_fini(&it.out);
            kept = 1;
        }
    }
    if (!kept) {
        str_fini(&it.out);
        b->dropped += (uint64_t)metric;
        return;
    }
    b->next_seq++;
    *item_of(b, b->n++) = it;
}

/* Say what was dropped, once there is room again. */
static void say_gap(struct outbox *b)
{
    Hone__V1__Up gap = HONE__V1__UP__INIT;

    if (!b->dropped || b->n >= b->max / 2)
        return;
    gap.has_gap = 1;
    gap.gap = b->dropped;
    b->dropped = 0;
    push(b, &gap, 0);
}

/* Make room for two items: what comes, and a gap marker. */
static void make_room(struct outbox *b)
{
    while (b->n > b->max - 2) {
        size_t i = 0;

        while (i < b->n - 1 && !item_of(b, i)->metric)
            i++;
        b->dropped += (uint64_t)item_of(b, i)->metric;
        remove_at(b, i);
    }
}

void outbox_add(struct outbox *b, Hone__V1__Up *up, int metric)
{
    make_room(b);
    say_gap(b);
    push(b, up, metric);
}

void outbox_acknowledge(struct outbox *b, uint64_t seq)
{
    while (b->n && item_of(b, 0)->seq <= seq)
        remove_at(b, 0);
    say_gap(b);
}

void outbox_rewind(struct outbox *b)
{
    b->n_written = 0;
}

int outbox_next(struct outbox *b, struct str *out, struct err *e)
{
    const struct outbox_item *it;
    char *bytes;

    if (b->n_written >= b->n)
        return 0;
    it = item_of(b, b->n_written++);
    if (it->out.len) {
        str_add_bytes(out, it->out.s, it->out.len);
    } else {
        bytes = mem_alloc(it->n);
        if (!bytes || read_all(b->fd, bytes, it->n, it->at)) {
            mem_free(bytes);
            return err_errno(e, ERR_IO, errno, "read %s", b->path);
        }
        str_add_bytes(out, bytes, it->n);
        mem_free(bytes);
    }
    return str_failed(out) ? err_set(e, ERR_NOMEM, "uplink: out of memory") : 1;
}
