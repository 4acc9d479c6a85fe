/* Packing ahead; see pack.h.
 *
 * Parts are numbered as they are added; part k uses packer k % SLOTS. The thread takes the
 * first part that waits among those whose packer is free: [current, current + SLOTS).
 * ahead_next() waits for a part that the thread has begun and packs any other itself, so
 * that a thread that gets no processor delays nobody. */
#include <limits.h>
#include <pthread.h>
#include <string.h>

#include "base/mem.h"
#include "worker/data/pack.h"

enum { SLOTS = 6 };
enum state { WAITING, PACKING, READY };

struct item {
    const uint32_t *seq;
    size_t n;
    enum state state;
    int rc;
    struct packed packed;
};

/* Parts [first, first + n); the sequence numbers lie behind them. */
struct batch {
    struct batch *next;
    size_t first, n;
    struct item item[];
};

struct ahead {
    struct packer *packer[SLOTS];
    struct err err[SLOTS]; /* why an item's rc is not 0 */
    pthread_mutex_t lock;
    pthread_cond_t added, packed;
    pthread_t thread;
    int has_thread, quit;
    /* under the lock */
    struct batch *batch, **last; /* the oldest holds the current part */
    size_t current;              /* handed out last, while `handed` */
    size_t end;                  /* number of the next part to be added */
    int handed;
};

static size_t first_waiting(const struct ahead *a)
{
    return a->current + (size_t)a->handed;
}

static struct item *find(const struct ahead *a, size_t number)
{
    struct batch *b = a->batch;

    while (b && number >= b->first + b->n)
        b = b->next;
    return b && number >= b->first ? &b->item[number - b->first] : NULL;
}

/* Called without the lock; the item is PACKING and so nobody else's. */
static void pack(struct ahead *a, size_t number, struct item *x)
{
    size_t next = 0;

    x->rc = packer_fill(a->packer[number % SLOTS], x->seq, x->n, &next, &x->packed,
                        &a->err[number % SLOTS]);
    invariant(x->rc || next == x->n);
}

static struct item *take(struct ahead *a, size_t *number)
{
    for (size_t k = first_waiting(a); k < a->end && k < a->current + SLOTS; k++) {
        struct item *x = find(a, k);

        if (x->state == WAITING) {
            *number = k;
            return x;
        }
    }
    return NULL;
}

static void *pack_all(void *arg)
{
    struct ahead *a = arg;
    size_t number = 0;

    pthread_mutex_lock(&a->lock);
    while (!a->quit) {
        struct item *x = take(a, &number);

        if (!x) {
            pthread_cond_wait(&a->added, &a->lock);
            continue;
        }
        x->state = PACKING;
        pthread_mutex_unlock(&a->lock);
        pack(a, number, x);
        pthread_mutex_lock(&a->lock);
        x->state = READY;
        pthread_cond_signal(&a->packed);
    }
    pthread_mutex_unlock(&a->lock);
    return NULL;
}

struct ahead *ahead_new(const struct sequences *s, int round, struct err *e)
{
    struct ahead *a = mem_alloc(sizeof *a);

    if (!a) {
        err_set(e, ERR_NOMEM, "packer: out of memory");
        return NULL;
    }
    a->last = &a->batch;
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->added, NULL);
    pthread_cond_init(&a->packed, NULL);
    for (int i = 0; i < SLOTS; i++) {
        a->packer[i] = packer_new(s, LONG_MAX, e);
        if (a->packer[i] && round)
            packer_round(a->packer[i]);
        if (!a->packer[i]) {
            ahead_free(a);
            return NULL;
        }
    }
    /* Without the thread every part is packed when it is asked for. */
    a->has_thread = !pthread_create(&a->thread, NULL, pack_all, a);
    return a;
}

void ahead_free(struct ahead *a)
{
    if (!a)
        return;
    if (a->has_thread) {
        pthread_mutex_lock(&a->lock);
        a->quit = 1;
        pthread_cond_signal(&a->added);
        pthread_mutex_unlock(&a->lock);
        pthread_join(a->thread, NULL);
    }
    while (a->batch) {
        struct batch *next = a->batch->next;

        mem_free(a->batch);
        a->batch = next;
    }
    for (int i = 0; i < SLOTS; i++)
        packer_free(a->packer[i]);
    pthread_cond_destroy(&a->added);
    pthread_cond_destroy(&a->packed);
    pthread_mutex_destroy(&a->lock);
    mem_free(a);
}

int ahead_add(struct ahead *a, const uint32_t *seq, const struct pack_part *part, size_t n,
              struct err *e)
{
    size_t numbers = 0, bytes = sizeof(struct batch) + n * sizeof(struct item);
    struct batch *b;
    uint32_t *copy;

    for (size_t i = 0; i < n; i++)
        numbers += part[i].n;
    b = n ? mem_alloc(bytes + numbers * sizeof *copy) : NULL;
    if (!b)
        return n ? err_set(e, ERR_NOMEM, "packer: out of memory") : 0;
    copy = (uint32_t *)((char *)b + bytes);
    b->n = n;
    for (size_t i = 0; i < n; i++) {
        memcpy(copy, seq + part[i].first, part[i].n * sizeof *copy);
        b->item[i].seq = copy;
        b->item[i].n = part[i].n;
        copy += part[i].n;
    }
    pthread_mutex_lock(&a->lock);
    b->first = a->end;
    a->end += n;
    *a->last = b;
    a->last = &b->next;
    pthread_cond_signal(&a->added);
    pthread_mutex_unlock(&a->lock);
    return 0;
}

size_t ahead_waiting(struct ahead *a)
{
    size_t n;

    pthread_mutex_lock(&a->lock);
    n = a->end - first_waiting(a);
    pthread_mutex_unlock(&a->lock);
    return n;
}

/* Batches whose parts are all behind us. */
static void drop_done(struct ahead *a)
{
    while (a->batch && a->batch->first + a->batch->n <= first_waiting(a) - 1) {
        struct batch *next = a->batch->next;

        mem_free(a->batch);
        a->batch = next;
    }
    if (!a->batch)
        a->last = &a->batch;
}

int ahead_next(struct ahead *a, struct packed *out, struct err *e)
{
    struct item *x;
    int rc;

    pthread_mutex_lock(&a->lock);
    a->current = first_waiting(a);
    a->handed = 1;
    invariant(a->current < a->end);
    drop_done(a);
    x = find(a, a->current);
    if (x->state == WAITING) {
        x->state = PACKING;
        pthread_mutex_unlock(&a->lock);
        pack(a, a->current, x);
        pthread_mutex_lock(&a->lock);
        x->state = READY;
    }
    while (x->state != READY)
        pthread_cond_wait(&a->packed, &a->lock);
    pthread_cond_signal(&a->added); /* a packer has become free */
    *out = x->packed;
    rc = x->rc;
    if (rc)
        *e = a->err[a->current % SLOTS];
    pthread_mutex_unlock(&a->lock);
    return rc;
}

void ahead_clear(struct ahead *a)
{
    pthread_mutex_lock(&a->lock);
    for (size_t k = first_waiting(a); k < a->end; k++)
        if (find(a, k)->state == WAITING)
            find(a, k)->state = READY; /* the thread begins none of them any more */
    for (size_t k = first_waiting(a); k < a->end; k++)
        while (find(a, k)->state == PACKING)
            pthread_cond_wait(&a->packed, &a->lock);
    while (a->batch) {
        struct batch *next = a->batch->next;

        mem_free(a->batch);
        a->batch = next;
    }
    a->last = &a->batch;
    a->current = a->end;
    a->handed = 0;
    pthread_mutex_unlock(&a->lock);
}
