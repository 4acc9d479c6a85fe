/* Classification metrics; see metrics.h for their definitions.
 *
 * Macro-F1, MCC and kappa need the marginals and the diagonal of the confusion matrix
 * alone: with r_i rows of gold class i and c_j predictions of class j,
 *
 *     MCC = (s tr - sum r c) / sqrt((s^2 - sum c^2) (s^2 - sum r^2))     (Gorodkin 2004)
 *     QWK = 1 - sum_rows (i-j)^2 / (sum r_i i^2 + sum c_j j^2 - 2 sum r_i i sum c_j j / s)
 *
 * so that a bootstrap resample costs O(n + K). Ratios with a zero denominator are 0. */
#include "worker/train/metrics.h"

#include <math.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/rng.h"

enum { RESAMPLES = 1000, RNG_BOOTSTRAP = 0x626f6f74 };

struct fact { /* of one row: what the metrics need of its probabilities */
    int label, guess, bin;
    double confidence, nll;
};

struct counts {
    double gold[METRIC_CLASSES_MAX], guess[METRIC_CLASSES_MAX], hit[METRIC_CLASSES_MAX];
};

/* Bins are (b/10, (b+1)/10]; a confidence of 0 is in none. */
static int bin_of(double confidence)
{
    for (int b = 0; b < METRIC_BINS; b++)
        if (confidence > (double)b / METRIC_BINS &&
            confidence <= (double)(b + 1) / METRIC_BINS)
            return b;
    return confidence > 1 ? METRIC_BINS - 1 : -1; /* 1 + rounding */
}

static struct fact fact_of(const double *p, int label, int K)
{
    struct fact f = {.label = label};

    for (int k = 1; k < K; k++)
        if (p[k] > p[f.guess])
            f.guess = k;
    f.confidence = p[f.guess];
    f.bin = bin_of(f.confidence);
    f.nll = -log(fmax(p[label], 1e-300));
    return f;
}

static double ratio(double a, double b)
{
    return b != 0 ? a / b : 0;
}

static void class_scores(const struct counts *c, double n, int K, struct class_metrics *out)
{
    double f1 = 0, classes = 0, trace = 0, rc = 0, rr = 0, cc = 0, ri = 0, ci = 0, r2 = 0,
           c2 = 0, error = out->qwk;

    for (int k = 0; k < K; k++) {
        double r = c->gold[k], g = c->guess[k], both = r + g, x = k;

        if (both > 0) {
            f1 += 2 * c->hit[k] / both;
            classes++;
        }
        trace += c->hit[k];
        rc += r * g;
        rr += r * r;
        cc += g * g;
        ri += r * x;
        ci += g * x;
        r2 += r * x * x;
        c2 += g * x * x;
    }
    out->accuracy = trace / n;
    out->macro_f1 = ratio(f1, classes);
    out->mcc = ratio(n * trace - rc, sqrt((n * n - cc) * (n * n - rr)));
    out->qwk = 0;
    if (r2 + c2 - 2 * ri * ci / n > 0)
        out->qwk = 1 - error / (r2 + c2 - 2 * ri * ci / n);
}

/* index NULL: rows 0..n-1. */
static void score(const struct fact *f, const uint32_t *index, size_t n, int K,
                  struct counts *c, struct class_metrics *out)
{
    double hits[METRIC_BINS] = {0}, sums[METRIC_BINS] = {0};

    memset(out, 0, sizeof *out);
    for (int k = 0; k < K; k++)
        c->gold[k] = c->guess[k] = c->hit[k] = 0;
    out->n = n;
    if (!n)
        return;
    for (size_t i = 0; i < n; i++) {
        const struct fact *x = &f[index ? index[i] : i];
        int distance = x->label - x->guess;

        c->gold[x->label]++;
        c->guess[x->guess]++;
        c->hit[x->label] += !distance;
        if (x->bin >= 0) {
            hits[x->bin] += !distance;
            sums[x->bin] += x->confidence;
        }
        out->confidence += x->confidence;
        out->nll += x->nll;
        out->mae += distance < 0 ? -distance : distance;
        out->qwk += (double)distance * distance; /* becomes kappa in class_scores() */
    }
    class_scores(c, (double)n, K, out);
    out->confidence /= (double)n;
    out->nll /= (double)n;
    out->mae /= (double)n;
    for (int b = 0; b < METRIC_BINS; b++)
        out->ece += fabs(hits[b] - sums[b]) / (double)n;
}

int metrics_classify(const double *p, const int *label, size_t n, int K,
                     struct class_metrics *out, struct err *e)
{
    struct fact *f = mem_array(n + 1, sizeof *f);
    struct counts *c = mem_alloc(sizeof *c);

    invariant(K > 0 && K <= METRIC_CLASSES_MAX);
    if (f && c) {
        for (size_t i = 0; i < n; i++)
            f[i] = fact_of(p + i * (size_t)K, label[i], K);
        score(f, NULL, n, K, c, out);
    }
    mem_free(f);
    mem_free(c);
    return f && c ? 0 : err_set(e, ERR_NOMEM, "metrics: out of memory");
}

void metrics_softmax(const float *logits, size_t n, int K, double temperature, double *p)
{
    for (size_t i = 0; i < n; i++, logits += K, p += K) {
        double most = logits[0], sum = 0;

        for (int k = 1; k < K; k++)
            most = logits[k] > most ? logits[k] : most;
        for (int k = 0; k < K; k++)
            sum += p[k] = exp(((double)logits[k] - most) / temperature);
        for (int k = 0; k < K; k++)
            p[k] /= sum;
    }
}

/* ---- temperature --------------------------------------------------------------------- */

static double nll_at(const float *logits, const int *label, size_t n, int K, double log_t)
{
    double t = exp(log_t), total = 0;

    for (size_t i = 0; i < n; i++, logits += K) {
        double most = logits[0], sum = 0;

        for (int k = 1; k < K; k++)
            most = logits[k] > most ? logits[k] : most;
        for (int k = 0; k < K; k++)
            sum += exp(((double)logits[k] - most) / t);
        total += log(sum) - ((double)logits[label[i]] - most) / t;
    }
    return total;
}

double metrics_fit_temperature(const float *logits, const int *label, size_t n, int K)
{
    const double golden = (sqrt(5) - 1) / 2;
    double lo = log(0.05), hi = log(20);
    double a = hi - golden * (hi - lo), b = lo + golden * (hi - lo);
    double fa, fb;

    if (!n)
        return 1;
    fa = nll_at(logits, label, n, K, a);
    fb = nll_at(logits, label, n, K, b);
    while (hi - lo > 1e-7) {
        if (fa < fb) {
            hi = b;
            b = a;
            fb = fa;
            a = hi - golden * (hi - lo);
            fa = nll_at(logits, label, n, K, a);
        } else {
            lo = a;
            a = b;
            fa = fb;
            b = lo + golden * (hi - lo);
            fb = nll_at(logits, label, n, K, b);
        }
    }
    return exp((lo + hi) / 2);
}

/* ---- bootstrap ----------------------------------------------------------------------- */

enum { SCORES = 8 };

static void scores_of(const struct class_metrics *m, double v[SCORES])
{
    const double all[SCORES] = {m->accuracy, m->macro_f1, m->mcc, m->ece,
                                m->nll,      m->mae,      m->qwk, m->confidence};

    memcpy(v, all, sizeof all);
}

struct bootstrap {
    struct fact *f, *f2;
    uint32_t *index;
    struct counts c;
    double v[RESAMPLES][SCORES];
};

static void resample(struct bootstrap *b, size_t n, int K, uint64_t seed)
{
    struct rng rng;

    rng_init(&rng, rng_key(seed, RNG_BOOTSTRAP, 0, 0));
    for (int s = 0; s < RESAMPLES; s++) {
        struct class_metrics m;
        double other[SCORES];

        for (size_t i = 0; i < n; i++)
            b->index[i] = rng_below(&rng, (uint32_t)n);
        score(b->f, b->index, n, K, &b->c, &m);
        scores_of(&m, b->v[s]);
        if (!b->f2)
            continue;
        score(b->f2, b->index, n, K, &b->c, &m);
        scores_of(&m, other);
        for (int k = 0; k < SCORES; k++)
            b->v[s][k] -= other[k];
    }
}

static void deviations(const struct bootstrap *b, struct class_metrics *se)
{
    double *out[SCORES] = {&se->accuracy, &se->macro_f1, &se->mcc, &se->ece,
                           &se->nll,      &se->mae,      &se->qwk, &se->confidence};

    for (int k = 0; k < SCORES; k++) {
        double mean = 0, sum = 0;

        for (int s = 0; s < RESAMPLES; s++)
            mean += b->v[s][k] / RESAMPLES;
        for (int s = 0; s < RESAMPLES; s++)
            sum += (b->v[s][k] - mean) * (b->v[s][k] - mean);
        *out[k] = sqrt(sum / (RESAMPLES - 1));
    }
}

int metrics_bootstrap(const double *p, const double *p2, const int *label, size_t n, int K,
                      uint64_t seed, struct class_metrics *se, struct err *e)
{
    struct bootstrap *b = mem_alloc(sizeof *b);
    int r = 0;

    invariant(K > 0 && K <= METRIC_CLASSES_MAX && n <= UINT32_MAX);
    memset(se, 0, sizeof *se);
    if (b) {
        b->f = mem_array(n + 1, sizeof *b->f);
        b->f2 = p2 ? mem_array(n + 1, sizeof *b->f2) : NULL;
        b->index = mem_array(n + 1, sizeof *b->index);
    }
    if (!b || !b->f || (p2 && !b->f2) || !b->index) {
        r = err_set(e, ERR_NOMEM, "standard errors: out of memory");
        goto out;
    }
    for (size_t i = 0; i < n; i++) {
        b->f[i] = fact_of(p + i * (size_t)K, label[i], K);
        if (p2)
            b->f2[i] = fact_of(p2 + i * (size_t)K, label[i], K);
    }
    if (n) {
        resample(b, n, K, seed);
        deviations(b, se);
    }
out:
    if (b) {
        mem_free(b->f);
        mem_free(b->f2);
        mem_free(b->index);
    }
    mem_free(b);
    return r;
}

/* ---- what reports draw --------------------------------------------------------------- */

void metrics_confusion(const double *p, const int *label, size_t n, int K, long *out)
{
    memset(out, 0, (size_t)K * (size_t)K * sizeof *out);
    for (size_t i = 0; i < n; i++) {
        struct fact f = fact_of(p + i * (size_t)K, label[i], K);

        out[f.label * K + f.guess]++;
    }
}

void metrics_reliability(const double *p, const int *label, size_t n, int K,
                         struct reliability_bin out[METRIC_BINS])
{
    memset(out, 0, METRIC_BINS * sizeof *out);
    for (size_t i = 0; i < n; i++) {
        struct fact f = fact_of(p + i * (size_t)K, label[i], K);

        if (f.bin < 0)
            continue;
        out[f.bin].n++;
        out[f.bin].confidence += f.confidence;
        out[f.bin].accuracy += f.guess == f.label;
    }
    for (int b = 0; b < METRIC_BINS; b++) {
        out[b].confidence = ratio(out[b].confidence, (double)out[b].n);
        out[b].accuracy = ratio(out[b].accuracy, (double)out[b].n);
    }
}

static void member(struct str *out, const char *name, double x)
{
    str_addf(out, ", \"%s\": ", name);
    json_number(out, x);
}

void metrics_write_json(const struct class_metrics *m, int ordinal, struct str *out)
{
    str_add_char(out, '{');
    if (m->n) /* differences and errors have none */
        str_addf(out, "\"n\": %zu, ", m->n);
    str_add(out, "\"accuracy\": ");
    json_number(out, m->accuracy);
    member(out, "macro_f1", m->macro_f1);
    member(out, "mcc", m->mcc);
    member(out, "ece", m->ece);
    member(out, "nll", m->nll);
    if (ordinal) {
        member(out, "mae", m->mae);
        member(out, "qwk", m->qwk);
    }
    member(out, "confidence", m->confidence);
    str_add_char(out, '}');
}
