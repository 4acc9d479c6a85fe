/* What --resume would go on from; see newest.h. Total: what cannot be found is not named.
 */
#include "worker/train/newest.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/file.h"
#include "base/mem.h"
#include "worker/ckpt/state.h"

enum { LOOK_SECONDS = 1 };

static struct {
    pthread_mutex_t lock;
    pthread_cond_t found;
    char dir[FILE_PATH_MAX], name[64];
    long step; /* that a look found; -1: there is none */
    int looking, done;
} now = {.lock = PTHREAD_MUTEX_INITIALIZER, .found = PTHREAD_COND_INITIALIZER};

void newest_stage(const char *dir, const char *name)
{
    pthread_mutex_lock(&now.lock);
    snprintf(now.dir, sizeof now.dir, "%s", dir ? dir : "");
    snprintf(now.name, sizeof now.name, "%s", name ? name : "");
    pthread_mutex_unlock(&now.lock);
}

static void *look(void *arg)
{
    char dir[FILE_PATH_MAX];
    long *steps = NULL, step = -1;
    struct err ignored;
    size_t n = 0;

    (void)arg;
    pthread_mutex_lock(&now.lock);
    memcpy(dir, now.dir, sizeof dir);
    pthread_mutex_unlock(&now.lock);
    if (!state_list(dir, &steps, &n, &ignored) && n)
        step = steps[n - 1];
    mem_free(steps);
    pthread_mutex_lock(&now.lock);
    now.step = step;
    now.done = 1;
    now.looking = 0;
    pthread_cond_broadcast(&now.found);
    pthread_mutex_unlock(&now.lock);
    return NULL;
}

/* With the lock held: is now.step known? */
static int find(void)
{
    struct timespec until;
    pthread_t thread;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += LOOK_SECONDS;
    if (!now.looking) {
        now.done = 0;
        if (pthread_create(&thread, NULL, look, NULL))
            return 0;
        pthread_detach(thread);
        now.looking = 1;
    }
    while (!now.done && !pthread_cond_timedwait(&now.found, &now.lock, &until))
        ;
    return now.done;
}

int newest_mend(struct err *e)
{
    char mend[ERR_MEND_MAX];
    const char *and;

    snprintf(mend, sizeof mend, "%s", e->mend);
    and = *mend ? "; " : "";
    pthread_mutex_lock(&now.lock);
    if (*now.dir) {
        if (!find())
            err_mend(e, "%s%s--resume goes on from the newest checkpoint in %s", mend, and,
                     now.dir);
        else if (now.step < 0)
            err_mend(e, "%s%sstart it again with --resume: %s has no checkpoint yet", mend,
                     and, now.name);
        else
            err_mend(e, "%s%s--resume goes on from %s/checkpoint-%ld", mend, and, now.dir,
                     now.step);
    }
    pthread_mutex_unlock(&now.lock);
    return e->code;
}
