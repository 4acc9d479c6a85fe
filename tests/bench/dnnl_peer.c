/* oneDNN's `matmul` primitive (2.x interface), weights reordered to the layout it asks for.
 * Only a peer for op_bench: Hone's own products do not use it. A failure of any call gives
 * 0, which prints as "not measured". */
#include "tests/bench/dnnl_peer.h"

#ifdef HONE_HAVE_DNNL

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>

struct peer {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_desc_t desc, reorder_desc;
    dnnl_primitive_t product, reorder;
    dnnl_memory_t x, w, packed, y;
};

static int prepare(struct peer *p, dnnl_dim_t M, dnnl_dim_t N, dnnl_dim_t K, float *x,
                   float *w, float *y)
{
    dnnl_dims_t xd = {M, K}, wd = {K, N}, yd = {M, N};
    dnnl_memory_desc_t xm, wm, any, ym;
    const dnnl_memory_desc_t *pm;
    dnnl_matmul_desc_t matmul;

    if (dnnl_engine_create(&p->engine, dnnl_cpu, 0) ||
        dnnl_stream_create(&p->stream, p->engine, dnnl_stream_default_flags) ||
        dnnl_memory_desc_init_by_tag(&xm, 2, xd, dnnl_f32, dnnl_ab) ||
        dnnl_memory_desc_init_by_tag(&wm, 2, wd, dnnl_f32, dnnl_ba) ||
        dnnl_memory_desc_init_by_tag(&any, 2, wd, dnnl_f32, dnnl_format_tag_any) ||
        dnnl_memory_desc_init_by_tag(&ym, 2, yd, dnnl_f32, dnnl_ab) ||
        dnnl_matmul_desc_init(&matmul, &xm, &any, NULL, &ym) ||
        dnnl_primitive_desc_create(&p->desc, &matmul, NULL, p->engine, NULL) ||
        dnnl_primitive_create(&p->product, p->desc))
        return -1;
    pm = dnnl_primitive_desc_query_md(p->desc, dnnl_query_weights_md, 0);
    if (dnnl_memory_create(&p->x, &xm, p->engine, x) ||
        dnnl_memory_create(&p->w, &wm, p->engine, w) ||
        dnnl_memory_create(&p->y, &ym, p->engine, y) ||
        dnnl_memory_create(&p->packed, pm, p->engine, DNNL_MEMORY_ALLOCATE) ||
        dnnl_reorder_primitive_desc_create(&p->reorder_desc, &wm, p->engine, pm, p->engine,
                                           NULL) ||
        dnnl_primitive_create(&p->reorder, p->reorder_desc))
        return -1;
    dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, p->w}, {DNNL_ARG_TO, p->packed}};
    return dnnl_primitive_execute(p->reorder, p->stream, 2, args) ||
                   dnnl_stream_wait(p->stream)
               ? -1
               : 0;
}

static void release(struct peer *p)
{
    dnnl_memory_t memory[] = {p->x, p->w, p->packed, p->y};

    for (int i = 0; i < 4; i++)
        dnnl_memory_destroy(memory[i]);
    dnnl_primitive_destroy(p->product);
    dnnl_primitive_destroy(p->reorder);
    dnnl_primitive_desc_destroy(p->desc);
    dnnl_primitive_desc_destroy(p->reorder_desc);
    dnnl_stream_destroy(p->stream);
    dnnl_engine_destroy(p->engine);
}

double dnnl_peer_matmul(long M, long N, long K, float *x, float *w, float *y, int threads,
                        double (*clock)(void))
{
    struct peer p = {0};
    double best = 0;

    omp_set_num_threads(threads);
    if (!prepare(&p, M, N, K, x, w, y)) {
        dnnl_exec_arg_t args[] = {
            {DNNL_ARG_SRC, p.x}, {DNNL_ARG_WEIGHTS, p.packed}, {DNNL_ARG_DST, p.y}};

        for (int i = 0; i < 25; i++) {
            double t = clock();

            if (dnnl_primitive_execute(p.product, p.stream, 3, args) ||
                dnnl_stream_wait(p.stream))
                break;
            t = clock() - t;
            best = best > 0 && best < t ? best : t;
        }
    }
    release(&p);
    return best;
}

#else

double dnnl_peer_matmul(long M, long N, long K, float *x, float *w, float *y, int threads,
                        double (*clock)(void))
{
    (void)M, (void)N, (void)K, (void)x, (void)w, (void)y, (void)threads, (void)clock;
    return 0;
}

#endif
