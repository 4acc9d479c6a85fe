/* A queue and a thread; see writer.h. */
#include "worker/train/writer.h"

#include <pthread.h>
#include <string.h>

#include "base/mem.h"

struct job {
    struct job *next;
    int (*run)(void *arg, struct err *e);
    max_align_t arg[];
};

struct writer {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t thread;
    struct job *first, **last;
    int busy, quit;
    struct err failure; /* code 0: none */
};

/* With the lock held: the next job, or NULL when there will be none. */
static struct job *next_job(struct writer *w)
{
    struct job *j;

    while (!w->first && !w->quit)
        pthread_cond_wait(&w->changed, &w->lock);
    j = w->first;
    if (j) {
        w->first = j->next;
        w->last = w->first ? w->last : &w->first;
    }
    return j;
}

static void *work(void *arg)
{
    struct writer *w = arg;
    struct job *j;

    pthread_mutex_lock(&w->lock);
    while ((j = next_job(w))) {
        struct err e = {0};
        int r = 0;

        if (!w->failure.code) {
            w->busy = 1;
            pthread_mutex_unlock(&w->lock);
            r = j->run(j->arg, &e);
            pthread_mutex_lock(&w->lock);
            w->busy = 0;
        }
        if (r)
            w->failure = e;
        mem_free(j);
        pthread_cond_broadcast(&w->changed);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

static struct writer *open_writer(void)
{
    struct writer *w = mem_alloc(sizeof *w);

    if (!w)
        return NULL;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->changed, NULL);
    w->last = &w->first;
    if (!pthread_create(&w->thread, NULL, work, w))
        return w;
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->changed);
    mem_free(w);
    return NULL;
}

/* With the lock held. */
static int failure(const struct writer *w, struct err *e)
{
    if (w->failure.code)
        *e = w->failure;
    return w->failure.code;
}

int writer_add(struct writer **w, int (*run)(void *arg, struct err *e), const void *arg,
               size_t bytes, struct err *e)
{
    struct job *j = mem_alloc(sizeof *j + bytes);
    int r;

    if (!j)
        return err_set(e, ERR_NOMEM, "a job for the writer: out of memory");
    memcpy(j->arg, arg, bytes);
    if (!*w)
        *w = open_writer();
    if (!*w) {
        r = run(j->arg, e);
        mem_free(j);
        return r;
    }
    j->next = NULL;
    j->run = run;
    pthread_mutex_lock(&(*w)->lock);
    r = failure(*w, e);
    if (!r) {
        *(*w)->last = j;
        (*w)->last = &j->next;
        pthread_cond_broadcast(&(*w)->changed);
    }
    pthread_mutex_unlock(&(*w)->lock);
    if (r)
        mem_free(j);
    return r;
}

int writer_failed(struct writer *w, struct err *e)
{
    int r = 0;

    if (!w)
        return 0;
    pthread_mutex_lock(&w->lock);
    r = failure(w, e);
    pthread_mutex_unlock(&w->lock);
    return r;
}

int writer_wait(struct writer *w, struct err *e)
{
    int r;

    if (!w)
        return 0;
    pthread_mutex_lock(&w->lock);
    while (w->first || w->busy)
        pthread_cond_wait(&w->changed, &w->lock);
    r = failure(w, e);
    pthread_mutex_unlock(&w->lock);
    return r;
}

void writer_free(struct writer *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->quit = 1;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->changed);
    mem_free(w);
}
