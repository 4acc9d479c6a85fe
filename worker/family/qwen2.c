/* Qwen2 and Qwen2.5 (Yang et al. 2024): Llama's decoder with biases on q, k and v, and a
 * sliding window in the upper layers when use_sliding_window says so. */
#include "worker/family/llama.h"

static const struct weight_row rows[] = {
#include "worker/family/llama_body.inc"

    {"layer.%d.attn.qkv.b", 0, "layers.%d.self_attn.q_proj.bias", NULL, "H*d",
     ROW_NO_DECAY},
    {"layer.%d.attn.qkv.b", 1, "layers.%d.self_attn.k_proj.bias", NULL, "K*d",
     ROW_NO_DECAY},
    {"layer.%d.attn.qkv.b", 2, "layers.%d.self_attn.v_proj.bias", NULL, "K*d",
     ROW_NO_DECAY},

#include "worker/family/llama_tail.inc"
    {NULL},
};

static int configure(const json_t *c, struct model_config *m, struct err *e)
{
    static const struct llama_defaults defaults = {
        .kv_heads = 32, .positions = 32768, .eos_id = -1};
    int rc = llama_configure(c, &defaults, m, e);

    return rc ? rc : llama_window(c, m, e);
}

const struct family family_qwen2 = {
    .model_type = "qwen2",
    .prefix = "model.",
    .arch_base = "Qwen2Model",
    .arch_classify = "Qwen2ForSequenceClassification",
    .arch_causal = "Qwen2ForCausalLM",
    .rows = rows,
    .configure = configure,
};
