/* A model of one training step on several GPUs of a host: how long it takes, and how much
 * of it is waiting for gradients.
 *
 *     compute       = FLOPs / (efficiency * peak) + bytes / bandwidth, or the launches
 * where these take longer all-reduce    = the faster of ring: 2 (n-1)/n bytes / link + 2
 * (n-1) latency and tree: 2 bytes / link + 2 ceil(log2 n) latency exposed       = end of
 * the last bucket - end of backward; a bucket begins when backward has completed it and the
 * link is free
 *
 * The link's speed is the one an all-reduce reaches (its "bus bandwidth"), so ring and tree
 * differ in volume and latency alone (Thakur et al. 2005; NCCL's documentation). Nothing
 * here was measured on the boxes: inputs are data sheets and declared assumptions. */
#ifndef TESTS_BENCH_STEP_MODEL_H
#define TESTS_BENCH_STEP_MODEL_H

#include <stddef.h>

struct step_box {
    const char *name;
    int gpus;
    double peak;       /* FLOP/s of 16-bit tensor cores, summing in f32 */
    double efficiency; /* of the peak, that matrix products reach in a step */
    double bandwidth;  /* of device memory, bytes/s, that kernels reach */
    double link;       /* bytes/s of an all-reduce */
    double latency;    /* seconds of a hop */
    double launch;     /* seconds of the host for a call without graphs, */
    double graph,
        node; /* ... for a graph of STEP_PIECE calls, and for each of them in it */
};

struct step_net {
    const char *name;
    long L, D, F, V, P; /* layers, width, feed-forward, vocabulary, positions */
    int gated;          /* three matrices in a feed-forward, not two */
    long tokens;        /* of a text, on average */
    int sparse;         /* the word table's gradients travel as rows, where fewer */
    int kernels; /* that forward and backward of a layer launch, products included, */
    int others;  /* ... and all else, copies and fills included */
};
enum { STEP_PIECE = 100 }; /* about what 64 operators (kernels/cuda/graph.c) launch */

/* One parameter's gradient, in the order of the model; backward completes them from the
 * last to the first. */
struct step_param {
    double elements, flops; /* of its backward, for one token */
};
enum { STEP_PARAMS_MAX = 1024, STEP_BUCKETS_MAX = 4096 };

struct step_bucket {
    double bytes, ready; /* ready: seconds from the beginning of backward */
};

/* Parameters that travel dense; their number. *total: all elements of the model. */
int step_params(const struct step_net *net, struct step_param *out, double *total);

/* Seconds of a sum over the box's GPUs. */
double step_all_reduce(const struct step_box *box, double bytes);

/* Seconds after `end` that the last of the buckets, in the order in which they start, is
 * through. */
double step_exposed(const struct step_box *box, const struct step_bucket *bucket, int n,
                    double end);

struct step_time {
    double forward, backward, optimizer, exposed, total;
    double alone; /* the all-reduce with nothing beside it */
};

/* A step of `tokens` tokens on each GPU, gradients of `width` bytes, buckets of `bucket`
 * bytes; graphs: its calls are launched as CUDA graphs. */
void step_predict(const struct step_box *box, const struct step_net *net, double tokens,
                  int width, double bucket, int graphs, struct step_time *out);

/* Tokens on each GPU from which on n GPUs do `share` of n times one GPU's work. */
double step_tokens_at(const struct step_box *box, const struct step_net *net, double share,
                      int width, double bucket, struct step_time *out);

#endif
