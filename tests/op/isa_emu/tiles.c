/* AMX tiles in memory, one set a thread; see immintrin.h. */
#include <immintrin.h>

#include "base/err.h"

static _Thread_local struct emu_tiles tiles;

static void check(int t)
{
    invariant(tiles.configured && t >= 0 && t < EMU_TILES && tiles.rows[t] > 0);
}

void emu_tile_configure(const void *config)
{
    const unsigned char *c = config;

    invariant(c[0] == 1 && c[1] == 0);
    memset(&tiles, 0, sizeof tiles);
    for (int t = 0; t < EMU_TILES; t++) {
        tiles.row_bytes[t] = c[16 + 2 * t] | c[17 + 2 * t] << 8;
        tiles.rows[t] = c[48 + t];
        invariant(tiles.rows[t] <= EMU_ROWS && tiles.row_bytes[t] <= EMU_ROW_BYTES);
    }
    for (int i = 2; i < 64; i++)
        invariant((i >= 16 && i < 32) || (i >= 48 && i < 56) || !c[i]);
    tiles.configured = 1;
}

void emu_tile_release(void)
{
    memset(&tiles, 0, sizeof tiles);
}

void emu_tile_zero(int t)
{
    check(t);
    memset(tiles.data[t], 0, sizeof tiles.data[t]);
}

void emu_tile_load(int t, const void *from, long stride)
{
    check(t);
    memset(tiles.data[t], 0, sizeof tiles.data[t]);
    for (int r = 0; r < tiles.rows[t]; r++)
        memcpy(tiles.data[t][r], (const char *)from + r * stride,
               (size_t)tiles.row_bytes[t]);
}

void emu_tile_store(int t, void *to, long stride)
{
    check(t);
    for (int r = 0; r < tiles.rows[t]; r++)
        memcpy((char *)to + r * stride, tiles.data[t][r], (size_t)tiles.row_bytes[t]);
}

#pragma GCC push_options
#pragma GCC target("avx2,fma")

void emu_tile_dot(int c, int a, int b)
{
    int pairs = tiles.row_bytes[a] / 4, n = tiles.row_bytes[c] / 4;
    uint16_t x[EMU_ROW_BYTES / 2], y[EMU_ROWS][EMU_ROW_BYTES / 2];
    float wide[2][EMU_ROWS][EMU_ROW_BYTES / 4], sum[EMU_ROW_BYTES / 4];

    check(a);
    check(b);
    check(c);
    invariant(tiles.rows[c] == tiles.rows[a] && tiles.row_bytes[c] == tiles.row_bytes[b] &&
              tiles.rows[b] == pairs);
    memcpy(y, tiles.data[b], sizeof y);
    for (int k = 0; k < pairs; k++)
        for (int j = 0; j < 2 * n; j++)
            wide[j % 2][k][j / 2] = emu_widen(y[k][j]);
    for (int m = 0; m < tiles.rows[c]; m++) {
        float part[2][EMU_ROW_BYTES / 4] = {{0}};

        memcpy(x, tiles.data[a][m], sizeof x);
        memcpy(sum, tiles.data[c][m], sizeof sum);
        for (int k = 0; k < pairs; k++) {
            for (int h = 0; h < 2; h++) {
                float f = emu_widen(x[2 * k + h]);

                for (int j = 0; j < n; j++)
                    part[h][j] = emu_flush(__builtin_fmaf(f, wide[h][k][j], part[h][j]));
            }
        }
        for (int j = 0; j < n; j++)
            sum[j] = emu_flush(sum[j] + emu_flush(part[0][j] + part[1][j]));
        memcpy(tiles.data[c][m], sum, sizeof sum);
    }
}

#pragma GCC pop_options
