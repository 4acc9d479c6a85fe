/* The size of buckets; see bucket.h. A measurement fails as the sums do; a file that cannot
 * be read or written costs another measurement. */
#include "worker/train/bucket.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "worker/ckpt/state.h"
#include "worker/train/cache.h"

enum { SIZES = 3, TRIES = 2, KEY_BYTES = 320, HOST_BYTES = 64, FILE_BYTES_MAX = 1 << 20 };
static const long sizes[SIZES] = {8, 16, BUCKET_MB_MOST};
static const double nearly = 0.95;

/* Seconds of the sum of n elements, the best of some; the first one warms up. */
static int time_sum(const struct job *j, float *x, size_t n, double *best, struct err *e)
{
    const struct comm *c = j->comm;
    int r = 0;

    *best = 0;
    for (int i = 0; !r && i <= TRIES; i++) {
        double start, seconds;
        float first;

        r = c->barrier(c, e);
        start = clock_now();
        if (!r)
            r = c->device_sum(c, x, n, e);
        if (!r && j->backend->copy_out(&first, x, sizeof first)) /* waits */
            r = err_set(e, ERR_DEVICE, "%s", j->backend->error());
        r = comm_agree(c, r, e);
        seconds = clock_now() - start;
        if (!r && i > 0 && (i == 1 || seconds < *best))
            *best = seconds;
    }
    return r;
}

/* The smallest size that is nearly as fast as the fastest, as this rank sees it; 0: some
 * rank has no memory for it. */
static int measure(const struct job *j, long *mb, struct err *e)
{
    size_t most = BUCKET_ELEMENTS(BUCKET_MB_MOST);
    float *x = j->backend->alloc(most * sizeof *x);
    unsigned none = !x || j->backend->fill_zero(x, most * sizeof *x);
    double rate[SIZES] = {0}, best = 0, seconds;
    int r = comm_any(j->comm, &none, e), i = 0;

    for (int k = 0; !r && !none && k < SIZES; k++) {
        r = time_sum(j, x, BUCKET_ELEMENTS(sizes[k]), &seconds, e);
        rate[k] = r ? 0 : (double)(sizes[k] << 20) / (seconds > 0 ? seconds : 1e-9);
        best = rate[k] > best ? rate[k] : best;
    }
    while (i + 1 < SIZES && rate[i] < nearly * best)
        i++;
    *mb = none ? 0 : sizes[i];
    if (!r && !none && j->comm->rank == 0)
        log_info("sums of %ld, %ld, %ld MiB: %.1f, %.1f, %.1f GB/s", sizes[0], sizes[1],
                 sizes[2], rate[0] / 1e9, rate[1] / 1e9, rate[2] / 1e9);
    if (x)
        j->backend->release(x);
    return r;
}

/* ---- what is kept -------------------------------------------------------------------- */

static int count_hosts(const struct comm *c, int *hosts, struct err *e)
{
    char own[HOST_BYTES] = "", *all = mem_array((size_t)c->world, sizeof own);
    int r = comm_agree(c, all ? 0 : err_set(e, ERR_NOMEM, "hosts: out of memory"), e);

    snprintf(own, sizeof own, "%s", c->host);
    if (!r)
        r = c->all_gather(c, own, sizeof own, all, e);
    *hosts = 0;
    for (int i = 0; !r && i < c->world; i++) {
        int k = 0;

        while (k < i && memcmp(all + k * HOST_BYTES, all + i * HOST_BYTES, HOST_BYTES))
            k++;
        *hosts += k == i;
    }
    mem_free(all);
    return r;
}

static void make_key(const struct job *j, int hosts, char key[KEY_BYTES])
{
    char device[192] = "", why[8];

    if (j->backend->choices)
        j->backend->choices->key(device, sizeof device);
    snprintf(key, KEY_BYTES, "%s, NCCL %d, %d ranks, %d hosts, gradients of %d bytes",
             device, j->backend->ranks->version(why, sizeof why), j->comm->world, hosts,
             j->spec->resources.gradients == GRADIENTS_BF16 ? 2 : 4);
}

/* 0: nothing that can be trusted. */
static long read_size(const char *path, const char *key)
{
    const char *of = NULL;
    json_t *root = NULL;
    long mb = 0;
    struct err e;

    if (!json_read(path, FILE_BYTES_MAX, &root, &e) &&
        (!key || (!json_get_string(root, "of", 1, &of, &e) && !strcmp(of, key))))
        mb = (long)json_integer_value(json_object_get(root, "bucket_mb"));
    json_decref(root);
    return mb > 0 && mb <= RESOURCES_BUCKET_MOST ? mb : 0;
}

static long cache_read(const char *key)
{
    char path[FILE_PATH_MAX];
    struct err e;

    if (cache_path(path, "bucket", key, 0, &e) || !file_exists(path))
        return 0;
    return read_size(path, key);
}

static void cache_write(const char *key, long mb)
{
    json_t *root = json_pack("{s:s, s:i}", "of", key, "bucket_mb", (int)mb);
    char path[FILE_PATH_MAX];
    struct err e;

    if (root && !cache_path(path, "bucket", key, 1, &e))
        json_write(path, root, &e);
    json_decref(root);
}

long bucket_of_checkpoint(const char *dir)
{
    char folder[FILE_PATH_MAX], path[FILE_PATH_MAX];
    long *steps = NULL, mb = 0;
    size_t n = 0;
    struct err e;

    if (state_list(dir, &steps, &n, &e))
        return 0;
    while (!mb && n-- > 0) {
        state_path(folder, dir, steps[n]);
        if (!file_join(path, sizeof path, folder, "state/trainer.json", &e))
            mb = read_size(path, NULL);
    }
    mem_free(steps);
    return mb;
}

/* ---- the choice ---------------------------------------------------------------------- */

int bucket_choose(const struct job *j, long *mb, struct err *e)
{
    const struct comm *c = j->comm;
    char key[KEY_BYTES];
    int hosts, r;

    *mb = 0;
    if (!c->device_sum)
        return 0;
    *mb = j->spec->resources.bucket_mb;
    if (*mb)
        return 0;
    r = count_hosts(c, &hosts, e);
    if (r)
        return r;
    make_key(j, hosts, key);
    if (c->rank == 0)
        *mb = cache_read(key);
    r = c->broadcast(c, mb, sizeof *mb, 0, e);
    if (r || *mb)
        return r;
    r = measure(j, mb, e);
    if (!r)
        r = c->broadcast(c, mb, sizeof *mb, 0, e); /* clocks differ */
    if (!r && *mb && c->rank == 0)
        cache_write(key, *mb);
    *mb = *mb ? *mb : sizes[0];
    return r;
}
