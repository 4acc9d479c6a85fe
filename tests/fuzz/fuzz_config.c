/* Fuzzer: config.json. What a family accepts has sizes within bounds, heads that fit,
 * finite rotary frequencies, and rows whose shapes can be evaluated. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "base/mem.h"
#include "worker/model/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct family *f, const struct model_config *c)
{
    struct model_info info;
    struct err e;
    long shape[2];

    invariant(c->dims.D > 0 && c->dims.H > 0 && c->dims.d > 0 && c->dims.L > 0);
    invariant(c->dims.H % c->dims.K == 0 && c->norm_eps >= 0);
    for (int i = 0; i < c->rotary_dims / 2; i++)
        invariant(isfinite(c->rotary_freq[i]));
    for (const struct weight_row *r = f->rows; r->slot; r++)
        family_shape(r->shape, &c->dims, shape, &e);
    config_info(f, c, &info);
    invariant(info.parameters > 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct model_config c = {0};
    const char *type = NULL;
    json_t *json = NULL;
    struct err e;

    if (!json_parse("f", (const char *)data, size, &json, &e) &&
        !json_get_string(json, "model_type", 1, &type, &e)) {
        const struct family *f = family_find(type, &e);

        if (f && !f->configure(json, &c, &e))
            check(f, &c);
        mem_free(c.rotary_freq);
        config_labels(json);
    }
    json_decref(json);
    return 0;
}
