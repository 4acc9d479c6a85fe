/* Reading a golden file: padded rows become one packed micro-batch. */
#include "worker/verb/golden.h"

#include <string.h>

static const long most_tokens = 1 << 22; /* ids [B,T]: more is no test of a model */

/* Whole numbers as int: ids, masks, types, labels. */
static int *read_ints(struct golden *g, const struct safetensors_tensor *t, struct err *e)
{
    int64_t *wide = arena_array(&g->arena, t->elements, sizeof *wide);
    int *out = arena_array(&g->arena, t->elements, sizeof *out);

    if (t->dtype != DTYPE_I64) {
        err_set(e, ERR_CORRUPT, "%s: %s is %s, want I64", g->file.path, t->name,
                dtype_name(t->dtype));
        return NULL;
    }
    if (!wide || !out) {
        err_set(e, ERR_NOMEM, "out of memory");
        return NULL;
    }
    if (safetensors_read(&g->file, t, 0, t->elements, wide, e))
        return NULL;
    for (size_t i = 0; i < t->elements; i++) {
        if (wide[i] < -100 || wide[i] > INT32_MAX) {
            err_set(e, ERR_CORRUPT, "%s: %s: element %zu is %lld, which is no id",
                    g->file.path, t->name, i, (long long)wide[i]);
            return NULL;
        }
        out[i] = (int)wide[i];
    }
    return out;
}

/* A [B,T] tensor like input_ids. */
static int *read_grid(struct golden *g, const char *name, int required, struct err *e)
{
    const struct safetensors_tensor *t = safetensors_find(&g->file, name);

    e->code = 0;
    if (!t) {
        if (required)
            err_set(e, ERR_CORRUPT, "%s: no tensor \"%s\"", g->file.path, name);
        return NULL;
    }
    if (t->rank != 2 || (g->in.B && (t->shape[0] != g->in.B || t->shape[1] != g->padded))) {
        err_set(e, ERR_CORRUPT, "%s: %s: want the shape [rows, tokens] of input_ids",
                g->file.path, name);
        return NULL;
    }
    if (t->elements == 0 || t->elements > (size_t)most_tokens) {
        err_set(e, ERR_CORRUPT, "%s: %s: %zu tokens, want 1 to %ld", g->file.path, name,
                t->elements, most_tokens);
        return NULL;
    }
    g->in.B = t->shape[0];
    g->padded = t->shape[1];
    return read_ints(g, t, e);
}

/* Lengths from the mask: ones, then zeros. */
static int measure(struct golden *g, const int *mask, struct err *e)
{
    for (long b = 0; b < g->in.B; b++) {
        const int *row = mask + b * g->padded;
        long n = 0;

        while (n < g->padded && row[n] == 1)
            n++;
        for (long i = n; i < g->padded; i++)
            if (row[i] != 0)
                return err_set(e, ERR_CORRUPT,
                               "%s: attention_mask: row %ld is not ones followed by zeros",
                               g->file.path, b);
        if (n == 0)
            return err_set(e, ERR_CORRUPT, "%s: attention_mask: row %ld is empty",
                           g->file.path, b);
        g->in.cu_seqlens[b + 1] = g->in.cu_seqlens[b] + (int)n;
        if (n > g->in.max_len)
            g->in.max_len = n;
    }
    g->in.T = g->in.cu_seqlens[g->in.B];
    return 0;
}

/* The real positions of a [B,T] grid, sequence after sequence. */
static void pack(const struct golden *g, const int *grid, int *out)
{
    for (long b = 0; b < g->in.B; b++)
        for (int i = g->in.cu_seqlens[b]; i < g->in.cu_seqlens[b + 1]; i++)
            out[i] = grid[b * g->padded + i - g->in.cu_seqlens[b]];
}

static int read_labels(struct golden *g, struct err *e)
{
    const struct safetensors_tensor *t = safetensors_find(&g->file, "labels");
    int *grid;

    if (!t)
        return 0;
    if (t->rank == 1 && t->shape[0] == g->in.B) {
        g->label = read_ints(g, t, e);
        return g->label ? 0 : e->code;
    }
    grid = read_grid(g, "labels", 1, e);
    if (!grid)
        return e->code;
    g->token_labels = 1;
    g->label = arena_array(&g->arena, (size_t)g->in.T, sizeof *g->label);
    if (!g->label)
        return err_set(e, ERR_NOMEM, "out of memory");
    pack(g, grid, g->label);
    return 0;
}

static int fill(struct golden *g, const int *ids, const int *types, struct err *e)
{
    struct packed *in = &g->in;
    size_t T = (size_t)in->T;

    in->ids = arena_array(&g->arena, T, sizeof *in->ids);
    in->types = arena_array(&g->arena, T, sizeof *in->types);
    in->position = arena_array(&g->arena, T, sizeof *in->position);
    in->example = arena_array(&g->arena, T, sizeof *in->example);
    if (!in->ids || !in->types || !in->position || !in->example)
        return err_set(e, ERR_NOMEM, "out of memory");
    pack(g, ids, in->ids);
    if (types)
        pack(g, types, in->types);
    for (long b = 0; b < in->B; b++) {
        for (int i = in->cu_seqlens[b]; i < in->cu_seqlens[b + 1]; i++) {
            in->example[i] = (uint32_t)b;
            in->position[i] = (uint32_t)(i - in->cu_seqlens[b]);
        }
    }
    return 0;
}

int golden_open(struct golden *g, const char *path, struct err *e)
{
    int *ids, *mask, *types;

    memset(g, 0, sizeof *g);
    if (safetensors_open(&g->file, path, e))
        return e->code;
    ids = read_grid(g, "input_ids", 1, e);
    if (!ids)
        return e->code;
    mask = read_grid(g, "attention_mask", 1, e);
    if (!mask)
        return e->code;
    types = read_grid(g, "token_type_ids", 0, e);
    if (!types && e->code)
        return e->code;
    g->in.cu_seqlens =
        arena_array(&g->arena, (size_t)g->in.B + 1, sizeof *g->in.cu_seqlens);
    if (!g->in.cu_seqlens)
        return err_set(e, ERR_NOMEM, "out of memory");
    if (measure(g, mask, e) || fill(g, ids, types, e))
        return e->code;
    return read_labels(g, e);
}

void golden_close(struct golden *g)
{
    safetensors_close(&g->file);
    arena_fini(&g->arena);
    memset(g, 0, sizeof *g);
}

const float *golden_get(struct golden *g, const char *name, long n, struct err *e)
{
    const struct safetensors_tensor *t = safetensors_find(&g->file, name);
    float *out;

    invariant(t);
    if (!dtype_is_float(t->dtype) || t->elements != (size_t)n) {
        err_set(e, ERR_CORRUPT, "%s: %s has %zu elements of %s, want %ld floats",
                g->file.path, name, t->elements, dtype_name(t->dtype), n);
        return NULL;
    }
    out = arena_array(&g->arena, t->elements, sizeof *out);
    if (!out) {
        err_set(e, ERR_NOMEM, "out of memory");
        return NULL;
    }
    return safetensors_read_f32(&g->file, t, 0, t->elements, out, e) ? NULL : out;
}
