/* The memory plan for a device: which micro-batch fits, and what to say when none does.
 *
 * A larger micro-batch keeps a device busier and needs more memory for activations, so the
 * largest of a few sizes is taken whose plan fits; it depends on the device's whole memory,
 * never on what happens to be free, so a resumed run makes the same choice. Where the stage
 * names a size, that is planned.
 *
 * Recomputation costs one more forward of nearly every layer, a third of a step's products.
 * Smaller micro-batches cost less as long as their products fill the device: with 2048 rows
 * and a width of 768 there are 96 tiles of 128 x 128 for the 108 to 132 processors of an
 * A100 or H100; half of that leaves half of them idle. So MEMORY_MICRO_GOOD is where the
 * one is dearer than the other. */
#include <stdio.h>
#include <string.h>

#include "base/str.h"
#include "worker/train/memory.h"

enum { MICRO_MOST = 16384, MICRO_LEAST = 512, MENDS = 3, MEND_BYTES = 120 };

static size_t usable(size_t all)
{
    return all / 10 * 9;
}

/* The largest micro-batch of at least `least` tokens that fits, else that one. */
static int largest_parts(struct memory_request *r, size_t all, long least,
                         struct memory_plan *out, struct err *e)
{
    long asked = r->stage->common.micro_tokens;
    int rc;

    r->micro_tokens = asked ? asked : MICRO_MOST;
    rc = memory_plan(r, out, e);
    while (!rc && !asked && all && out->peak > usable(all) && r->micro_tokens > least) {
        r->micro_tokens /= 2;
        rc = memory_plan(r, out, e);
    }
    return rc;
}

int memory_plan_device(struct memory_request *r, size_t all, struct memory_plan *out,
                       struct err *e)
{
    int how = r->spec->resources.recompute, rc;
    int open = how == RECOMPUTE_AUTO && r->stage->stage->loss;

    r->device = 1;
    r->recompute = how == RECOMPUTE_ON;
    rc = largest_parts(r, all, open ? MEMORY_MICRO_GOOD : MICRO_LEAST, out, e);
    if (rc || !open || !all || out->peak <= usable(all))
        return rc;
    r->recompute = 1;
    return largest_parts(r, all, MICRO_LEAST, out, e);
}

/* ---- what would help ----------------------------------------------------------------- */

struct mends {
    char text[MENDS][MEND_BYTES];
    int n;
};

/* One more way, that brings the need down to `bytes`, where that is enough. */
static void add(struct mends *m, size_t bytes, size_t left, const char *what)
{
    char size[32];

    if (m->n == MENDS || bytes > left)
        return;
    snprintf(m->text[m->n++], MEND_BYTES, "%s (%s)", what,
             str_bytes(size, sizeof size, (double)bytes));
}

/* The need with another micro-batch, precision or number of ranks; SIZE_MAX: unknown. */
static size_t need(const struct memory_request *r, long micro, enum op_precision precision,
                   int ranks, int shard)
{
    struct memory_request other = *r;
    struct memory_plan p;
    struct err e;

    other.micro_tokens = micro;
    other.precision = precision;
    other.ranks = ranks;
    other.shard = shard;
    return memory_plan(&other, &p, &e) ? SIZE_MAX : p.peak;
}

/* One more forward of a layer for all that it would keep. */
static void recomputation(struct mends *m, const struct memory_request *r,
                          const struct memory_plan *p, size_t left)
{
    struct memory_request other = *r;

    if (r->recompute || !r->stage->stage->loss)
        return;
    other.recompute = 1;
    add(m, need(&other, p->micro_tokens, r->precision, r->ranks, r->shard), left,
        "recompute: on");
}

static void smaller_parts(struct mends *m, const struct memory_request *r,
                          const struct memory_plan *p, size_t left)
{
    char what[MEND_BYTES / 2];

    for (long micro = p->micro_tokens / 2; micro >= MICRO_LEAST / 8; micro /= 2) {
        size_t bytes = need(r, micro, r->precision, r->ranks, r->shard);

        if (bytes > left)
            continue;
        snprintf(what, sizeof what, "micro_tokens: %ld", micro);
        add(m, bytes, left, what);
        return;
    }
}

static void more_ranks(struct mends *m, const struct memory_request *r,
                       const struct memory_plan *p, size_t left)
{
    char what[MEND_BYTES / 2];

    if (r->ranks > 1 && !r->shard)
        add(m, need(r, p->micro_tokens, r->precision, r->ranks, 1), left,
            "shard_optimizer: true");
    for (int ranks = r->ranks > 1 ? 2 * r->ranks : 2; ranks <= 64; ranks *= 2) {
        size_t bytes = need(r, p->micro_tokens, r->precision, ranks, 1);

        if (bytes > left)
            continue;
        snprintf(what, sizeof what, "workers: %d", ranks);
        add(m, bytes, left, what);
        return;
    }
}

int memory_explain(const struct memory_request *r, const struct memory_plan *p,
                   const char *device, size_t left, size_t all, struct err *e)
{
    char bytes[8][32], list[3 * MEND_BYTES + 8] = "";
    struct mends m = {.n = 0};
    size_t n = 0;

#define SAY(i, part) str_bytes(bytes[i], sizeof bytes[i], (double)(part))
    err_set(e, ERR_NOMEM,
            "%s: stage %s needs %s for %ld tokens at once (weights %s, gradients and "
            "moments %s, activations %s, the rest %s); %s of %s are free",
            device, r->stage->name, SAY(0, p->peak), p->micro_tokens, SAY(1, p->weights),
            SAY(2, p->gradients + p->moments), SAY(3, p->step + p->evaluation),
            SAY(4, p->packed + p->buffers), SAY(5, left), SAY(6, all));
#undef SAY
    if (p->peak <= usable(all) && left < usable(all))
        add(&m, p->peak, usable(all), "end what else runs there: nvidia-smi shows it");
    smaller_parts(&m, r, p, left);
    recomputation(&m, r, p, left);
    if (r->precision != PRECISION_F32)
        add(&m, need(r, p->micro_tokens, PRECISION_F32, r->ranks, r->shard), left,
            "precision: f32");
    more_ranks(&m, r, p, left);
    for (int i = 0; i < m.n && n < sizeof list; i++)
        n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", i ? "; or " : "",
                              m.text[i]);
    if (!m.n)
        return err_mend(e, "take a device with more memory, a smaller model, or shorter "
                           "texts (data.max_tokens)");
    return err_mend(e, "%s", list);
}
