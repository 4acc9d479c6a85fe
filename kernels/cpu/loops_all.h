/* Every inner loop, for the instruction set that the including file has set. */
#include "kernels/cpu/pack.h"
#include "kernels/cpu/rows_act.h"
#include "kernels/cpu/rows_attention.h"
#include "kernels/cpu/rows_keep.h"
#include "kernels/cpu/rows_logprob.h"
#include "kernels/cpu/rows_norm.h"
#include "kernels/cpu/rows_train.h"
#include "kernels/cpu/tile.h"

const struct cpu_loops SIMD_TABLE = {
    .name = SIMD_NAME,
    .tile_m = TILE_M,
    .tile_n = TILE_N,
    .strips = STRIPS,
    .far_group = FAR_GROUP,
    .plain_most = PLAIN_MOST,
    .tile = loop_tile,
    .pack_rows = loop_pack_rows,
    .pack_columns = loop_pack_columns,
    .copy_strips = loop_copy_strips,
    .round_bf16 = loop_round_bf16,
    .epilogue = loop_epilogue,
    .act = loop_act,
    .act_slope = loop_act_slope,
    .glu = loop_glu,
    .glu_slope = loop_glu_slope,
    .add = loop_add,
    .scale = loop_scale,
    .keep = loop_keep,
    .dropout = loop_dropout,
    .norm = loop_norm,
    .norm_backward = loop_norm_backward,
    .cross_entropy = loop_cross_entropy,
    .logprob = loop_logprob,
    .logprob_slope = loop_logprob_slope,
    .softmax = loop_softmax,
    .softmax_slope = loop_softmax_slope,
    .dot = loop_dot,
    .adamw = loop_adamw,
    .square_sum = loop_square_sum,
};
