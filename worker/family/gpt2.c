/* GPT-2 (Radford et al. 2019): pre-norm decoder, learned positions, layer norms, matrices
 * stored (in, out) with q, k and v side by side, output head tied to the word embedding.
 * Old files carry the causal mask as a buffer. */
#include "worker/family/family.h"

static const struct weight_row rows[] = {
    {"embed.word", 0, "wte.weight", NULL, "V D", ROW_SPARSE},
    {"embed.position", 0, "wpe.weight", NULL, "P D", ROW_SPARSE},

    {"layer.%d.attn.norm.w", 0, "h.%d.ln_1.weight", NULL, "D", ROW_NO_DECAY},
    {"layer.%d.attn.norm.b", 0, "h.%d.ln_1.bias", NULL, "D", ROW_NO_DECAY},
    {"layer.%d.attn.qkv.w", 0, "h.%d.attn.c_attn.weight", NULL, "D 3*D", ROW_TRANSPOSED},
    {"layer.%d.attn.qkv.b", 0, "h.%d.attn.c_attn.bias", NULL, "3*D", ROW_NO_DECAY},
    {"layer.%d.attn.out.w", 0, "h.%d.attn.c_proj.weight", NULL, "D D", ROW_TRANSPOSED},
    {"layer.%d.attn.out.b", 0, "h.%d.attn.c_proj.bias", NULL, "D", ROW_NO_DECAY},
    {"layer.%d.ff.norm.w", 0, "h.%d.ln_2.weight", NULL, "D", ROW_NO_DECAY},
    {"layer.%d.ff.norm.b", 0, "h.%d.ln_2.bias", NULL, "D", ROW_NO_DECAY},
    {"layer.%d.ff.in.w", 0, "h.%d.mlp.c_fc.weight", NULL, "D F", ROW_TRANSPOSED},
    {"layer.%d.ff.in.b", 0, "h.%d.mlp.c_fc.bias", NULL, "F", ROW_NO_DECAY},
    {"layer.%d.ff.out.w", 0, "h.%d.mlp.c_proj.weight", NULL, "F D", ROW_TRANSPOSED},
    {"layer.%d.ff.out.b", 0, "h.%d.mlp.c_proj.bias", NULL, "D", ROW_NO_DECAY},
    {"", 0, "h.%d.attn.bias", NULL, "P P", ROW_PASSENGER},
    {"", 0, "h.%d.attn.masked_bias", NULL, "1", ROW_PASSENGER},

    {"norm.w", 0, "ln_f.weight", NULL, "D", ROW_NO_DECAY},
    {"norm.b", 0, "ln_f.bias", NULL, "D", ROW_NO_DECAY},
    {"head.w", 0, "score.weight", NULL, "C D", ROW_HEAD | ROW_BARE},
    {"lm.w", 0, "lm_head.weight", NULL, "V D", ROW_HEAD | ROW_BARE},
    {"embed.word", 0, "lm_head.weight", NULL, "V D", ROW_TIED | ROW_BARE},
    {NULL},
};

static int read_sizes(const json_t *c, struct dims *d, struct err *e)
{
    int rc = family_get_size(c, "vocab_size", 0, &d->V, e);

    if (!rc)
        rc = family_get_size(c, "n_embd", 0, &d->D, e);
    if (!rc)
        rc = family_get_size(c, "n_layer", 0, &d->L, e);
    if (!rc)
        rc = family_get_size(c, "n_head", 0, &d->H, e);
    if (!rc)
        rc = family_get_size(c, "n_positions", 1024, &d->P, e);
    if (!rc)
        rc = family_get_size(c, "n_inner", 4 * d->D, &d->F, e);
    d->X = 1;
    return rc ? rc : family_check_heads(d, e);
}

static int read_rates(const json_t *c, struct model_config *m, struct err *e)
{
    int rc = family_get_rate(c, "resid_pdrop", 0.1, &m->dropout, e);

    if (!rc)
        rc = family_get_rate(c, "embd_pdrop", 0.1, &m->embedding_dropout, e);
    return rc ? rc : family_get_rate(c, "attn_pdrop", 0.1, &m->attention_dropout, e);
}

static int configure(const json_t *c, struct model_config *m, struct err *e)
{
    double eps;
    int rc = read_sizes(c, &m->dims, e);

    if (!rc)
        rc = read_rates(c, m, e);
    if (!rc)
        rc = family_get_act(c, "activation_function", "gelu_new", &m->act, e);
    if (!rc)
        rc = family_get_positive(c, "layer_norm_epsilon", 1e-5, &eps, e);
    if (!rc)
        rc = family_want_bool(c, "scale_attn_weights", 1, e);
    if (!rc)
        rc = family_want_bool(c, "scale_attn_by_inverse_layer_idx", 0, e);
    if (!rc)
        rc = family_want_bool(c, "add_cross_attention", 0, e);
    if (!rc)
        rc = family_get_id(c, "pad_token_id", -1, &m->pad_id, e);
    if (!rc)
        rc = family_get_id(c, "eos_token_id", 50256, &m->eos_id, e);
    m->tied = 1;
    if (!rc)
        rc = json_get_bool(c, "tie_word_embeddings", 0, &m->tied, e);
    if (rc)
        return rc;
    m->norm = NORM_LAYER;
    m->norm_eps = (float)eps;
    m->norm_place = NORM_PRE;
    m->position = POSITION_LEARNED;
    m->ff = FF_PLAIN;
    m->native = NATIVE_LAST_LINEAR;
    m->causal = m->final_norm = 1;
    return 0;
}

const struct family family_gpt2 = {
    .model_type = "gpt2",
    .prefix = "transformer.",
    .arch_base = "GPT2Model",
    .arch_classify = "GPT2ForSequenceClassification",
    .arch_causal = "GPT2LMHeadModel",
    .rows = rows,
    .configure = configure,
};
