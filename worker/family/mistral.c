/* Mistral (Jiang et al. 2023): Llama's decoder without biases, with a sliding window in all
 * layers: 4096 when config.json has no "sliding_window", none when it is null. */
#include "worker/family/llama.h"

static const struct weight_row rows[] = {
#include "worker/family/llama_body.inc"

#include "worker/family/llama_tail.inc"
    {NULL},
};

static int configure(const json_t *c, struct model_config *m, struct err *e)
{
    static const struct llama_defaults defaults = {
        .kv_heads = 8, .positions = 131072, .eos_id = 2};
    long window = 4096;
    int rc = llama_configure(c, &defaults, m, e);

    if (rc || json_is_null(json_object_get(c, "sliding_window")))
        return rc;
    rc = family_get_size(c, "sliding_window", window, &window, e);
    m->window = (int)window;
    return rc;
}

const struct family family_mistral = {
    .model_type = "mistral",
    .prefix = "model.",
    .arch_base = "MistralModel",
    .arch_classify = "MistralForSequenceClassification",
    .arch_causal = "MistralForCausalLM",
    .rows = rows,
    .configure = configure,
};
