/* Shared memory of one host; see window.h. Fails with ERR_IO and the system's reason. */
#include "worker/dist/window.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PAGE = 4096 };

static size_t align_page(size_t n)
{
    return (n + PAGE - 1) / PAGE * PAGE;
}

static size_t window_bytes(int ranks)
{
    return PAGE + (size_t)ranks * (PAGE + WINDOW_STAGE_BYTES);
}

static int map(int fd, size_t bytes, void **out, struct err *e)
{
    struct stat s;

    if (fstat(fd, &s))
        return err_errno(e, ERR_IO, errno, "shared memory");
    if (s.st_size != (off_t)bytes)
        return err_set(e, ERR_IO, "shared memory is %lld bytes, not %zu",
                       (long long)s.st_size, bytes);
    *out = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (*out == MAP_FAILED) {
        *out = NULL;
        return err_errno(e, ERR_IO, errno, "map shared memory of %zu bytes", bytes);
    }
    return 0;
}

/* A memfd of `bytes` zeros and how others reach it. */
static int make(size_t bytes, int *fd, char path[WINDOW_PATH_MAX], struct err *e)
{
    *fd = memfd_create("hone", MFD_CLOEXEC);
    if (*fd < 0)
        return err_errno(e, ERR_IO, errno, "create shared memory");
    if (ftruncate(*fd, (off_t)bytes)) {
        err_errno(e, ERR_IO, errno, "create shared memory of %zu bytes", bytes);
        close(*fd);
        *fd = -1;
        return e->code;
    }
    snprintf(path, WINDOW_PATH_MAX, "/proc/%d/fd/%d", (int)getpid(), *fd);
    return 0;
}

static int reach(const char *path, size_t bytes, void **out, struct err *e)
{
    int fd = open(path, O_RDWR | O_CLOEXEC), r;

    if (fd < 0)
        return err_errno(e, ERR_IO, errno, "open shared memory of rank 0 (%s)", path);
    r = map(fd, bytes, out, e);
    close(fd);
    return r;
}

int window_create(struct window *w, int ranks, char path[WINDOW_PATH_MAX], struct err *e)
{
    void *p = NULL;
    int r;

    *w = (struct window){.ranks = ranks, .bytes = window_bytes(ranks), .fd = -1};
    r = make(w->bytes, &w->fd, path, e);
    if (!r)
        r = map(w->fd, w->bytes, &p, e);
    w->head = p;
    if (r)
        window_close(w);
    return r;
}

int window_attach(struct window *w, const char *path, int local, int ranks, struct err *e)
{
    void *p = NULL;
    int r;

    *w = (struct window){
        .local = local, .ranks = ranks, .bytes = window_bytes(ranks), .fd = -1};
    r = reach(path, w->bytes, &p, e);
    w->head = p;
    return r;
}

void window_close(struct window *w)
{
    if (w->head)
        munmap(w->head, w->bytes);
    if (w->bytes && w->fd >= 0)
        close(w->fd);
    memset(w, 0, sizeof *w);
}

struct window_rank *window_rank(const struct window *w, int local)
{
    return (struct window_rank *)((char *)w->head + PAGE + (size_t)local * PAGE);
}

void *window_stage(const struct window *w, int local)
{
    return (char *)w->head + PAGE + (size_t)w->ranks * PAGE +
           (size_t)local * WINDOW_STAGE_BYTES;
}

static void sleep_on(const struct window *w, _Atomic uint32_t *word, uint32_t old)
{
    for (int i = 0; i < w->spins; i++) {
        if (atomic_load_explicit(word, memory_order_acquire) != old)
            return;
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }
    while (atomic_load_explicit(word, memory_order_acquire) == old)
        syscall(SYS_futex, word, FUTEX_WAIT, old, NULL, NULL, 0);
}

void window_wait(const struct window *w, _Atomic uint32_t *word, uint32_t old)
{
    struct window_rank *self = window_rank(w, w->local);

    atomic_store_explicit(&self->waits, 1, memory_order_relaxed);
    sleep_on(w, word, old);
    atomic_store_explicit(&self->waits, 0, memory_order_relaxed);
}

void window_wake(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void window_barrier(struct window *w)
{
    struct window_head *h = w->head;
    uint32_t generation = atomic_load(&h->generation);

    if (atomic_fetch_add(&h->arrived, 1) + 1 < (uint32_t)w->ranks) {
        window_wait(w, &h->generation, generation);
        return;
    }
    atomic_store(&h->arrived, 0);
    atomic_store(&h->generation, generation + 1);
    window_wake(&h->generation);
}

void window_all_gather(struct window *w, const void *in, size_t bytes, void *out)
{
    for (size_t at = 0; at < bytes; at += WINDOW_STAGE_BYTES) {
        size_t n = bytes - at < WINDOW_STAGE_BYTES ? bytes - at : WINDOW_STAGE_BYTES;

        memcpy(window_stage(w, w->local), (const char *)in + at, n);
        window_barrier(w);
        for (int i = 0; i < w->ranks; i++)
            memcpy((char *)out + (size_t)i * bytes + at, window_stage(w, i), n);
        window_barrier(w);
    }
}

void window_broadcast(struct window *w, void *p, size_t bytes, int root)
{
    for (size_t at = 0; at < bytes; at += WINDOW_STAGE_BYTES) {
        size_t n = bytes - at < WINDOW_STAGE_BYTES ? bytes - at : WINDOW_STAGE_BYTES;

        if (w->local == root)
            memcpy(window_stage(w, root), (char *)p + at, n);
        window_barrier(w);
        if (w->local != root)
            memcpy((char *)p + at, window_stage(w, root), n);
        window_barrier(w);
    }
}

void window_sum(struct window *w, float *x, size_t n)
{
    const size_t fit = WINDOW_STAGE_BYTES / sizeof *x;

    for (size_t at = 0; at < n; at += fit) {
        size_t k = n - at < fit ? n - at : fit;

        memcpy(window_stage(w, w->local), x + at, k * sizeof *x);
        window_barrier(w);
        memcpy(x + at, window_stage(w, 0), k * sizeof *x);
        for (int r = 1; r < w->ranks; r++) {
            const float *from = window_stage(w, r);

            for (size_t i = 0; i < k; i++)
                x[at + i] += from[i];
        }
        window_barrier(w);
    }
}

int window_segment_open(struct window *w, struct window_segment *s, size_t bytes,
                        struct err *e)
{
    struct {
        int code;
        char path[WINDOW_PATH_MAX];
    } maker = {0};
    int fd = -1, r = 0, failed[WINDOW_RANKS_MAX];

    *s = (struct window_segment){.bytes = align_page(bytes)};
    if (w->local == 0)
        r = maker.code = make(s->bytes, &fd, maker.path, e);
    window_broadcast(w, &maker, sizeof maker, 0);
    if (!maker.code)
        r = w->local == 0 ? map(fd, s->bytes, &s->p, e)
                          : reach(maker.path, s->bytes, &s->p, e);
    else if (w->local != 0)
        r = err_set(e, maker.code, "shared memory of %zu bytes was refused", bytes);
    window_all_gather(w, &r, sizeof r, failed);
    if (fd >= 0)
        close(fd); /* the maps stay */
    for (int i = 0; !r && i < w->ranks; i++)
        if (failed[i])
            r = err_set(e, failed[i], "shared memory of %zu bytes: a rank has none", bytes);
    if (r)
        window_segment_close(s);
    return r;
}

void window_segment_close(struct window_segment *s)
{
    if (s->p)
        munmap(s->p, s->bytes);
    memset(s, 0, sizeof *s);
}
