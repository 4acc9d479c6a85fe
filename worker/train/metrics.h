/* Classification metrics from logits (algorithms.md section 1, Metrics).
 *
 * All arithmetic in double. accuracy; macro-F1 over the union of gold and predicted classes
 * (absent: 0); MCC, multi-class form; ECE with 10 equal bins (lo, hi] on the largest
 * probability; NLL; MAE and quadratic-weighted kappa for ordinal labels. Fractions, not
 * percent. Ties in argmax go to the lower id. */
#ifndef WORKER_TRAIN_METRICS_H
#define WORKER_TRAIN_METRICS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

enum { METRIC_BINS = 10, METRIC_CLASSES_MAX = 1024 };

struct class_metrics {
    size_t n;
    double accuracy, macro_f1, mcc, ece, nll, mae, qwk, confidence;
};

/* p: (n, K) probabilities; K at most METRIC_CLASSES_MAX, labels in 0..K-1. */
int metrics_classify(const double *p, const int *label, size_t n, int K,
                     struct class_metrics *out, struct err *e);
void metrics_softmax(const float *logits, size_t n, int K, double temperature, double *p);

/* Temperature that minimises NLL (Guo et al. 2017), golden section on log T. */
double metrics_fit_temperature(const float *logits, const int *label, size_t n, int K);

/* Standard errors by bootstrap over rows, 1,000 resamples keyed by seed; with p2 the paired
 * standard error of metric(p) - metric(p2) over the same resamples. */
int metrics_bootstrap(const double *p, const double *p2, const int *label, size_t n, int K,
                      uint64_t seed, struct class_metrics *se, struct err *e);

void metrics_confusion(const double *p, const int *label, size_t n, int K, long *out);
struct reliability_bin {
    size_t n;
    double confidence, accuracy; /* means within the bin, 0 when empty */
};
void metrics_reliability(const double *p, const int *label, size_t n, int K,
                         struct reliability_bin out[METRIC_BINS]);

/* {"n": .., "accuracy": .., "macro_f1": .., ...}; n 0: left out; ordinal: mae and qwk as
 * well. */
void metrics_write_json(const struct class_metrics *m, int ordinal, struct str *out);

#endif
