/* Every inner loop, for the instruction set that the including file has set. */
#include "kernels/cpu/pack.h"
#include "kernels/cpu/rows_act.h"
#include "kernels/cpu/tile.h"

const struct cpu_loops SIMD_TABLE = {
    .name = SIMD_NAME,
    .tile_m = TILE_M,
    .tile_n = TILE_N,
    .tile = loop_tile,
    .pack_rows = loop_pack_rows,
    .pack_columns = loop_pack_columns,
    .copy_block = loop_copy_block,
    .epilogue = loop_epilogue,
    .act = loop_act,
    .act_slope = loop_act_slope,
    .glu = loop_glu,
    .glu_slope = loop_glu_slope,
    .add = loop_add,
    .scale = loop_scale,
};
