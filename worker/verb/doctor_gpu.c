/* The GPUs' links, for the doctor: copies through pinned memory, who reaches whose memory,
 * and sums over all GPUs of the machine by NCCL, from one rank on each, started by mpirun.
 *
 *     rate = bytes of one rank's operand / time of a sum, best of a few
 *
 * What a box of its kind should reach: a PCIe lane carries transfers x 8/10 bits before
 * 8 GT/s, 128/130 after; three quarters of that in a copy. A sum over p ranks moves
 * 2 (p - 1) / p times the operand in and out of each, so at least a quarter of a copy's
 * rate, however the GPUs are joined. Nothing here fails the doctor. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/str.h"
#include "worker/dist/device.h"
#include "worker/verb/doctor.h"

enum { TRIES = 4, SECONDS = 40, MEGABYTE = 1000000 };
const int gpu_megabytes[GPU_SIZES] = {8, 16, 25};
static const double slow_copy = 0.5, slow_sum = 0.25; /* shares of what it should be */

/* ---- a rank -------------------------------------------------------------------------- */

/* Seconds of the sum of n elements. The first one connects. */
static int time_sum(const struct comm *d, const struct backend *b, float *x, size_t n,
                    double *best, struct err *e)
{
    int r = 0;

    *best = 0;
    for (int i = 0; !r && i <= TRIES; i++) {
        double start, seconds;
        float first = 0;

        r = d->barrier(d, e);
        start = clock_now();
        if (!r)
            r = d->device_sum(d, x, n, e);
        if (!r && b->copy_out(&first, x, sizeof first)) /* waits */
            r = err_set(e, ERR_DEVICE, "%s", b->error());
        r = comm_agree(d, r, e);
        seconds = clock_now() - start;
        if (!r && (i == 1 || (i > 1 && seconds < *best)))
            *best = seconds;
    }
    return r;
}

static int answer(const struct comm *d, const struct backend *b, float *x, struct err *e)
{
    double seconds;
    int r = time_sum(d, b, x, 1, &seconds, e);

    if (!r && d->rank == 0)
        printf("%.9g", seconds);
    for (int i = 0; !r && i < GPU_SIZES; i++) {
        size_t bytes = (size_t)gpu_megabytes[i] * MEGABYTE;

        r = time_sum(d, b, x, bytes / sizeof *x, &seconds, e);
        if (!r && d->rank == 0)
            printf(" %.9g", (double)bytes / seconds);
    }
    if (!r && d->rank == 0)
        printf("\n");
    return r;
}

int gpu_answer(const struct comm *c, struct err *e)
{
    size_t most = (size_t)gpu_megabytes[GPU_SIZES - 1] * MEGABYTE;
    const struct backend *b = backend_find("cuda");
    struct comm *d = NULL;
    float *x = NULL;
    int r = comm_agree(c,
                       b && !*backend_reason("cuda")
                           ? 0
                           : err_set(e, ERR_DEVICE, "%s", backend_reason("cuda")),
                       e);

    if (!r)
        r = device_open(&d, c, b, 0, e);
    if (!r && !d)
        r = err_set(e, ERR_UNSUPPORTED, "there is no NCCL");
    if (!r) {
        x = b->alloc(most);
        r = x && !b->fill_zero(x, most) ? 0 : err_set(e, ERR_NOMEM, "%s", b->error());
        r = comm_agree(c, r, e);
    }
    if (!r)
        r = answer(d, b, x, e);
    device_close(d);
    if (x)
        b->release(x);
    return r;
}

/* ---- who asks ------------------------------------------------------------------------ */

/* The last line with numbers: "latency rate rate rate". */
static void understand(struct gpu_speed *s, char *text)
{
    char *line = text, *at = text;

    for (char *p = text; *p; p++)
        if (*p == '\n' && p[1])
            line = p + 1;
    at = line;
    s->latency = strtod(line, &at);
    for (int i = 0; i < GPU_SIZES; i++)
        s->sum[i] = strtod(at, &at);
    if (s->latency > 0 && s->sum[GPU_SIZES - 1] > 0)
        return;
    memset(s->sum, 0, sizeof s->sum);
    s->latency = 0;
    text[strcspn(text, "\n")] = '\0';
    snprintf(s->why_no_sum, sizeof s->why_no_sum, "%.150s",
             *text ? text : "the ranks say nothing");
}

void gpu_measure(struct gpu_speed *s, const struct backend *cuda, const char *mpirun)
{
    char why[200], text[1024];

    memset(s, 0, sizeof *s);
    if (!cuda->ranks || cuda->ranks->links(&s->links)) {
        snprintf(s->why, sizeof s->why, "%.150s", cuda->ranks ? cuda->error() : "unknown");
        s->links.n = 0;
        return;
    }
    if (s->links.n < 2)
        snprintf(s->why_no_sum, sizeof s->why_no_sum, "there is one GPU");
    else if (!cuda->ranks->version(why, sizeof why))
        snprintf(s->why_no_sum, sizeof s->why_no_sum, "no NCCL: %.140s", why);
    else if (!ranks_ask(mpirun, s->links.n, RANKS_GPU_FLAG, SECONDS, text, sizeof text,
                        s->why_no_sum, sizeof s->why_no_sum))
        understand(s, text);
}

void gpu_print(const struct gpu_speed *s)
{
    if (*s->why)
        printf("%-42s %s\n", "GPUs' links", s->why);
    for (int i = 0; i < s->links.n; i++) {
        struct str peers = {0};

        for (int k = 0; k < s->links.n; k++)
            if (s->links.peer[i][k])
                str_addf(&peers, " %d", k);
        printf("GPU %-2d to the device, from it (GB/s) %5s %8.1f %8.1f", i, "",
               s->links.to_device[i] / 1e9, s->links.from_device[i] / 1e9);
        if (s->links.n > 1)
            printf("  reaches%s", peers.len ? str_get(&peers) : " no other");
        printf("\n");
        str_fini(&peers);
    }
    for (int i = 0; i < GPU_SIZES && s->sum[i] > 0; i++)
        printf("all-reduce of %2d MB, %2d GPUs (GB/s) %6s %8s %8.1f\n", gpu_megabytes[i],
               s->links.n, "", "", s->sum[i] / 1e9);
    if (s->latency > 0)
        printf("all-reduce of one number (us) %12s %8s %8.0f\n", "", "", s->latency * 1e6);
    else if (s->links.n && *s->why_no_sum)
        printf("%-42s %s\n", "all-reduce over the GPUs", s->why_no_sum);
}

/* ---- a box below its kind ------------------------------------------------------------ */

static int warn(struct advice *out, int n, const char *what, const char *mend)
{
    if (n == ADVICE_MAX)
        return n;
    snprintf(out[n].what, sizeof out->what, "%.*s", (int)sizeof out->what - 1, what);
    snprintf(out[n].mend, sizeof out->mend, "%.*s", (int)sizeof out->mend - 1, mend);
    return n + 1;
}

/* Bytes a second of GPU i's PCIe link as it is wired; 0: unknown. */
static double link_rate(const struct machine *m, int i)
{
    double coded = m->transfers[i] < 8e9 ? 0.8 : 128.0 / 130;

    return m->lanes[i] * m->transfers[i] * coded / 8;
}

static double slower_copy(const struct gpu_speed *s, int i)
{
    return s->links.to_device[i] < s->links.from_device[i] ? s->links.to_device[i]
                                                           : s->links.from_device[i];
}

static int advise_links(const struct machine *m, const struct gpu_speed *s,
                        struct advice *out, int n)
{
    char what[240];

    for (int i = 0; i < m->gpus; i++) {
        if (!m->lanes[i] || m->lanes[i] >= m->lanes_most[i])
            continue;
        snprintf(what, sizeof what, "GPU %d (%.60s) has %d of its %d PCIe lanes", i,
                 m->gpu[i], m->lanes[i], m->lanes_most[i]);
        n = warn(out, n, what,
                 "put it in a slot with all lanes, or reseat it and its riser");
    }
    for (int i = 0; s->links.n == m->gpus && i < m->gpus; i++) {
        double rate = slower_copy(s, i);

        if (!(rate > 0) || rate >= slow_copy * link_rate(m, i))
            continue;
        snprintf(what, sizeof what,
                 "copies between the host and GPU %d reach %.1f GB/s, its link %.1f", i,
                 rate / 1e9, link_rate(m, i) / 1e9);
        n = warn(out, n, what,
                 "run beside its own memory (numactl), let others finish, look at the "
                 "BIOS's PCIe speed");
    }
    return n;
}

static int advise_peers(const struct machine *m, const struct gpu_speed *s,
                        struct advice *out, int n)
{
    double copy = 0;
    int without = 0;
    char what[240];

    for (int i = 0; i < s->links.n; i++) {
        double rate = slower_copy(s, i);

        copy = i == 0 || rate < copy ? rate : copy;
        for (int k = 0; k < s->links.n; k++)
            without += k != i && !s->links.peer[i][k];
    }
    if (without) {
        snprintf(what, sizeof what,
                 "%d of %d pairs of GPUs do not reach each other's memory: sums go through "
                 "the host's",
                 without / 2, s->links.n * (s->links.n - 1) / 2);
        n = warn(out, n, what,
                 "GeForce cards cannot; resources.gradients: bf16 halves what travels. "
                 "Others: switch the IOMMU and ACS off");
    }
    if (s->sum[GPU_SIZES - 1] > 0 && s->sum[GPU_SIZES - 1] < slow_sum * copy) {
        snprintf(what, sizeof what,
                 "the sum over %d GPUs reaches %.1f GB/s, where copies reach %.1f%s",
                 s->links.n, s->sum[GPU_SIZES - 1] / 1e9, copy / 1e9,
                 m->iommu ? "; the IOMMU is on" : "");
        n = warn(
            out, n, what,
            "switch the IOMMU and ACS off in the BIOS; NCCL_DEBUG=INFO shows the path");
    }
    return n;
}

int gpu_advise(const struct machine *m, const struct gpu_speed *s, struct advice *out,
               int n)
{
    return advise_peers(m, s, out, advise_links(m, s, out, n));
}
