/* The GPUs of a stage: this rank's is watched, what is wrong with it is said, one that
 * cannot be trusted ends the stage at the next boundary, and a failure on it gets the
 * driver's own words (an Xid, "GPU is lost").
 *
 * A lost GPU may keep a call of the runtime for ever: where no boundary comes within
 * HEALTH_GRACE seconds, the watch's thread ends the process (loop_options.lost). */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "worker/train/health_watch.h"
#include "worker/train/loop_internal.h"

enum { WORDS_MAX = 320 };
static const double ask_seconds = 1;
static const char broken_mend[] =
    "reset this GPU (nvidia-smi -r) or leave it out (CUDA_VISIBLE_DEVICES)";

static void name_device(const struct loop *l, const char *words, char out[WORDS_MAX])
{
    snprintf(out, WORDS_MAX, "rank %d on %s (device %d): %s", l->comm->rank, l->comm->host,
             l->device, words);
}

static void on_lost(void *arg, const char *words)
{
    const struct loop *l = arg;
    char text[WORDS_MAX];

    name_device(l, words, text);
    if (l->o.lost)
        l->o.lost(NULL, text, 1, 0);
}

int loop_gpu_watch(struct loop *l, struct err *e)
{
    const struct backend *b = l->o.job->backend;
    struct backend_card card = {0};
    char bus[32] = "";

    if (b->device && l->stage->loss)
        b->device->bus(bus, sizeof bus);
    if (!*bus)
        return 0;
    l->gpus = mem_array((size_t)l->comm->world, sizeof *l->gpus);
    if (!l->gpus)
        return err_set(e, ERR_NOMEM, "state of the GPUs: out of memory");
    if (b->ranks && b->ranks->card && !b->ranks->card(&card))
        l->device = card.index;
    l->watch = health_watch_start(bus, HEALTH_WATCH_SECONDS, on_lost, l);
    return 0;
}

void loop_gpu_say(struct loop *l)
{
    char text[256], line[WORDS_MAX];

    while (health_watch_alarm(l->watch, text, sizeof text)) {
        name_device(l, text, line);
        log_warn("%s: %s", l->o.stage->name, line);
        link_event(l->o.link, "warning", line);
    }
}

int loop_gpu_check(const struct loop *l, struct err *e)
{
    char words[256];

    if (!health_watch_broken(l->watch, words, sizeof words))
        return 0;
    err_set(e, ERR_DEVICE, "device %d of %s: %s", l->device, l->comm->host, words);
    return err_mend(e, "%s", broken_mend);
}

/* What is known of a broken GPU, unless that is what the message says. */
static void add_words(struct err *e, const char *words)
{
    const char *reason = strstr(words, "): ");
    struct err was = *e;

    if (!reason || strstr(was.msg, reason + 3))
        return;
    err_set(e, was.code, "%.640s; %.*s", was.msg, WORDS_MAX, words);
    err_mend(e, "%s%s%s", was.mend, *was.mend ? "; " : "", broken_mend);
}

int loop_gpu_blame(const struct loop *l, int r, struct err *e)
{
    char own[WORDS_MAX] = "", words[256], *all;
    struct err second;

    if (r != ERR_DEVICE)
        return r;
    health_watch_ask(l->watch, ask_seconds);
    if (health_watch_broken(l->watch, words, sizeof words))
        name_device(l, words, own);
    all = mem_alloc((size_t)l->comm->world * WORDS_MAX);
    if (!comm_agree(l->comm, all ? 0 : err_set(&second, ERR_NOMEM, "out of memory"),
                    &second) &&
        !l->comm->all_gather(l->comm, own, sizeof own, all, &second))
        for (int i = 0; i < l->comm->world; i++)
            add_words(e, all + (size_t)i * WORDS_MAX);
    mem_free(all);
    return r;
}

/* ---- metrics ---- */

static void add(struct metric_list *m, const char *name, double value)
{
    if (value >= 0 && m->n < METRICS_MAX)
        metric_add(m, name, value);
}

/* Of all ranks: the least busy, the fullest, the hottest, each with its rank; the power and
 * errors of all together, and the bits of any. */
static void add_readings(struct metric_list *m, const struct loop_gpu *r, int world)
{
    struct loop_gpu x = {-1, -1, -1, -1, -1, -1};
    int busy = 0, used = 0, celsius = 0;

    for (int i = 0; i < world; i++) {
        if (r[i].busy >= 0 && (x.busy < 0 || r[i].busy < x.busy))
            x.busy = r[busy = i].busy;
        if (r[i].used > x.used)
            x.used = r[used = i].used;
        if (r[i].celsius > x.celsius)
            x.celsius = r[celsius = i].celsius;
        if (r[i].watts >= 0)
            x.watts = (x.watts > 0 ? x.watts : 0) + r[i].watts;
        if (r[i].throttled >= 0)
            x.throttled = (double)((x.throttled > 0 ? (unsigned long)x.throttled : 0) |
                                   (unsigned long)r[i].throttled);
        if (r[i].ecc >= 0)
            x.ecc = (x.ecc > 0 ? x.ecc : 0) + r[i].ecc;
    }
    add(m, "gpu_busy", x.busy);
    add(m, "gpu_memory_used", x.used);
    add(m, "gpu_celsius", x.celsius);
    add(m, "gpu_watts", x.watts);
    add(m, "gpu_throttled", x.throttled);
    add(m, "gpu_ecc_errors", x.ecc);
    if (world == 1)
        return;
    add(m, "gpu_busy_rank", x.busy >= 0 ? busy : -1);
    add(m, "gpu_memory_used_rank", x.used >= 0 ? used : -1);
    add(m, "gpu_celsius_rank", x.celsius >= 0 ? celsius : -1);
}

int loop_gpu_metrics(const struct loop *l, struct metric_list *m, struct err *e)
{
    struct loop_gpu own = {-1, -1, -1, -1, -1, -1};
    struct health_gpu g;
    int r;

    if (!l->gpus)
        return 0;
    if (health_watch_latest(l->watch, &g))
        own = (struct loop_gpu){g.busy,  g.used,      g.celsius,
                                g.watts, g.throttled, g.ecc_uncorrected};
    r = l->comm->all_gather(l->comm, &own, sizeof own, l->gpus, e);
    if (!r)
        add_readings(m, l->gpus, l->comm->world);
    return r;
}
