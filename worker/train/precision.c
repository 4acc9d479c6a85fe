/* Choosing the precision; see precision.h. The measurement is one product of a BERT's
 * size, the weight packed anew each time as in training. */
#include "worker/train/precision.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "worker/ckpt/state.h"
#include "worker/model/model.h"
#include "worker/train/cache.h"

enum { MEASURE_M = 256, MEASURE_N = 768, MEASURE_K = 768, MEASURE_TRIES = 3 };
enum { CACHE_BYTES_MAX = 4096, TRAINER_BYTES_MAX = 1 << 20, KEY_BYTES = 160 };

/* Two bytes must be worth their rounding. */
#define SPEEDUP_LEAST 1.25

/* ---- measuring ----------------------------------------------------------------------- */

/* Seconds of the fastest of some products; 0: it did not run. */
static double measure_one(const struct backend *b, enum op_precision precision,
                          const float *a, const float *w, float *c)
{
    struct op_pack pack = {0};
    struct matmul_args args = {.M = MEASURE_M,
                               .N = MEASURE_N,
                               .K = MEASURE_K,
                               .a = a,
                               .lda = MEASURE_K,
                               .b = w,
                               .ldb = MEASURE_K,
                               .trans_b = 1,
                               .c = c,
                               .ldc = MEASURE_N,
                               .pack = &pack,
                               .precision = precision};
    double best = 0;
    float one;

    for (int i = 0; i <= MEASURE_TRIES; i++) {
        double begin = clock_now(), seconds;

        pack.version++;
        if (b->matmul(&args) || b->copy_out(&one, c, sizeof one)) {
            best = 0;
            break;
        }
        seconds = clock_now() - begin;
        if (i && (seconds < best || best == 0)) /* the first touches its memory */
            best = seconds;
    }
    b->pack_free(&pack);
    return best;
}

/* The two-byte type that is worth a measurement; f32: none. */
static enum op_precision candidate(const struct backend *b)
{
    return b->bf16() ? PRECISION_BF16 : b->f16() ? PRECISION_F16 : PRECISION_F32;
}

const char *precision_units(const struct backend *b, enum op_precision p)
{
    const char *units = p == PRECISION_BF16  ? b->bf16()
                        : p == PRECISION_F16 ? b->f16()
                                             : NULL;

    if (p == PRECISION_F32 || p == PRECISION_TF32)
        return NULL;
    return units ? units : "rounding, slower than f32";
}

/* Time in f32 by time in the candidate; 0 when it could not be measured. */
static double measure(const struct backend *b)
{
    size_t na = (size_t)MEASURE_M * MEASURE_K, nw = (size_t)MEASURE_N * MEASURE_K;
    size_t nc = (size_t)MEASURE_M * MEASURE_N;
    float *p = b->alloc((na + nw + nc) * sizeof *p);
    double f32 = 0, fast = 0;

    if (p && !b->fill_zero(p, (na + nw + nc) * sizeof *p)) {
        f32 = measure_one(b, PRECISION_F32, p, p + na, p + na + nw);
        fast = measure_one(b, candidate(b), p, p + na, p + na + nw);
    }
    if (p)
        b->release(p);
    return f32 > 0 && fast > 0 ? f32 / fast : 0;
}

/* ---- the cache ----------------------------------------------------------------------- */

/* What the measurement depends on: program, instructions, processor model, or the device
 * where that is another. */
static void make_key(const struct backend *b, char key[KEY_BYTES])
{
    char line[256], model[96] = "unknown processor";
    int host = !strcmp(b->name, "cpu");
    FILE *f = host ? fopen("/proc/cpuinfo", "re") : NULL;

    if (!host)
        b->describe(model, sizeof model);
    while (f && fgets(line, sizeof line, f)) {
        const char *colon = strchr(line, ':');

        if (strncmp(line, "model name", 10) || !colon)
            continue;
        colon += 1 + strspn(colon + 1, " \t");
        snprintf(model, sizeof model, "%.*s", (int)strcspn(colon, "\n"), colon);
        break;
    }
    if (f)
        fclose(f);
    snprintf(key, KEY_BYTES, "%s %s, %s", HONE_VERSION, precision_units(b, candidate(b)),
             model);
}

/* The stored measurement for `key`; 0: none that can be trusted. */
static double cache_read(const char *key)
{
    char path[FILE_PATH_MAX];
    const char *of = NULL;
    json_t *root = NULL;
    double speedup = 0;
    struct err e;

    if (cache_path(path, "bf16", key, 0, &e) || !file_exists(path) ||
        json_read(path, CACHE_BYTES_MAX, &root, &e))
        return 0;
    if (json_get_string(root, "of", 1, &of, &e) || strcmp(of, key) ||
        json_get_double(root, "speedup", 1, &speedup, &e) ||
        !(speedup > 0 && speedup < 1e6))
        speedup = 0;
    json_decref(root);
    return speedup;
}

static void cache_write(const char *key, double speedup)
{
    json_t *root = json_pack("{s:s, s:f}", "of", key, "speedup", speedup);
    char path[FILE_PATH_MAX];
    struct err e;

    if (root && !cache_path(path, "bf16", key, 1, &e))
        json_write(path, root, &e); /* where it cannot be kept, it is measured again */
    json_decref(root);
}

enum op_precision precision_auto(const struct backend *b, double *speedup)
{
    enum op_precision fast = candidate(b);
    char key[KEY_BYTES];
    double x = 0;

    if (fast != PRECISION_F32) {
        make_key(b, key);
        x = cache_read(key);
        if (x == 0) {
            x = measure(b);
            if (x > 0)
                cache_write(key, x);
        }
    }
    if (speedup)
        *speedup = x;
    return x >= SPEEDUP_LEAST ? fast : PRECISION_F32;
}

/* ---- a stage's ----------------------------------------------------------------------- */

/* What a checkpoint says; one without the word is of the time of f32 alone. */
static int read_checkpoint(const char *dir, long step, int *out, struct err *e)
{
    char folder[FILE_PATH_MAX], path[FILE_PATH_MAX];
    const char *name = model_precision_names[PRECISION_F32];
    json_t *root = NULL;
    int r;

    state_path(folder, dir, step);
    r = file_join(path, sizeof path, folder, "state/trainer.json", e);
    if (!r)
        r = json_read(path, TRAINER_BYTES_MAX, &root, e);
    if (!r)
        r = json_get_string(root, "precision", 0, &name, e);
    *out = 0;
    while (!r && model_precision_names[*out] && strcmp(model_precision_names[*out], name))
        ++*out;
    if (!r && !model_precision_names[*out])
        r = err_set(e, ERR_CORRUPT, "%s: precision \"%.20s\" is none", path, name);
    json_decref(root);
    return r;
}

/* Checkpoints of a stage agree; so the newest that can be read will do. -1: none. */
static int find_pinned(const char *dir, int *out, struct err *e)
{
    long *steps = NULL;
    size_t n = 0;
    int r = state_list(dir, &steps, &n, e);

    *out = -1;
    while (!r && n-- > 0) {
        struct err damaged;

        if (!read_checkpoint(dir, steps[n], out, &damaged))
            break;
        *out = -1;
    }
    mem_free(steps);
    return r;
}

int precision_of_stage(const struct spec *spec, const struct backend *b, const char *dir,
                       int resume, enum op_precision *out, struct err *e)
{
    int asked = spec->resources.precision - ASK_F32, pinned = -1;
    int r = resume ? find_pinned(dir, &pinned, e) : 0;

    if (r)
        return r;
    if (pinned >= 0 && asked >= 0 && asked != pinned) {
        err_set(e, ERR_CONFIG, "%s has checkpoints in %s, the job asks for %s", dir,
                model_precision_names[pinned], model_precision_names[asked]);
        return err_mend(e, "set resources.precision to %s or auto, or start a new run",
                        model_precision_names[pinned]);
    }
    if (pinned >= 0)
        *out = (enum op_precision)pinned;
    else
        *out = asked >= 0 ? (enum op_precision)asked : precision_auto(b, NULL);
    return 0;
}
