/* The speed of oneDNN's matrix product with prepacked weights, to be compared with. */
#ifndef TESTS_BENCH_DNNL_PEER_H
#define TESTS_BENCH_DNNL_PEER_H

/* Best time, by `clock`, of y (M,N) = x (M,K) w (N,K)^T; 0 where oneDNN was not found. */
double dnnl_peer_matmul(long M, long N, long K, float *x, float *w, float *y, int threads,
                        double (*clock)(void));

#endif
