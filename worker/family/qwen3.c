/* Qwen3 (Yang et al. 2025): Llama's decoder with an RMS norm on each head of q and k before
 * the rotary positions, a head size of its own (128 when config.json does not say), and
 * Qwen2's window. Biases on q, k, v and the output by attention_bias. */
#include "worker/family/llama.h"

static const struct weight_row rows[] = {
#include "worker/family/llama_body.inc"

    {"layer.%d.attn.qkv.b", 0, "layers.%d.self_attn.q_proj.bias", NULL, "H*d",
     ROW_OPTIONAL | ROW_NO_DECAY},
    {"layer.%d.attn.qkv.b", 1, "layers.%d.self_attn.k_proj.bias", NULL, "K*d",
     ROW_OPTIONAL | ROW_NO_DECAY},
    {"layer.%d.attn.qkv.b", 2, "layers.%d.self_attn.v_proj.bias", NULL, "K*d",
     ROW_OPTIONAL | ROW_NO_DECAY},
    {"layer.%d.attn.out.b", 0, "layers.%d.self_attn.o_proj.bias", NULL, "D",
     ROW_OPTIONAL | ROW_NO_DECAY},
    {"layer.%d.attn.qnorm.w", 0, "layers.%d.self_attn.q_norm.weight", NULL, "d",
     ROW_NO_DECAY},
    {"layer.%d.attn.knorm.w", 0, "layers.%d.self_attn.k_norm.weight", NULL, "d",
     ROW_NO_DECAY},

#include "worker/family/llama_tail.inc"
    {NULL},
};

static int configure(const json_t *c, struct model_config *m, struct err *e)
{
    static const struct llama_defaults defaults = {
        .kv_heads = 32, .head_size = 128, .positions = 32768, .eos_id = -1};
    int rc = json_get_bool(c, "attention_bias", 0, &m->attention_bias, e);

    if (!rc)
        rc = llama_configure(c, &defaults, m, e);
    m->head_norm = 1;
    return rc ? rc : llama_window(c, m, e);
}

const struct family family_qwen3 = {
    .model_type = "qwen3",
    .prefix = "model.",
    .arch_base = "Qwen3Model",
    .arch_classify = "Qwen3ForSequenceClassification",
    .arch_causal = "Qwen3ForCausalLM",
    .rows = rows,
    .configure = configure,
};
