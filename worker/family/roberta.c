/* RoBERTa (Liu et al. 2019): BERT's body with positions that begin behind the padding id,
 * no pooler, and its own classification head: dense, tanh, out_proj on <s>. */
#include "worker/family/family.h"

static const struct weight_row rows[] = {
    {"embed.word", 0, "embeddings.word_embeddings.weight", NULL, "V D", ROW_SPARSE},
    {"embed.position", 0, "embeddings.position_embeddings.weight", NULL, "P D", ROW_SPARSE},
    {"embed.type", 0, "embeddings.token_type_embeddings.weight", NULL, "X D", ROW_SPARSE},
    {"embed.norm.w", 0, "embeddings.LayerNorm.weight", "embeddings.LayerNorm.gamma", "D",
     ROW_NO_DECAY},
    {"embed.norm.b", 0, "embeddings.LayerNorm.bias", "embeddings.LayerNorm.beta", "D",
     ROW_NO_DECAY},

    {"layer.%d.attn.qkv.w", 0, "encoder.layer.%d.attention.self.query.weight", NULL,
     "H*d D", 0},
    {"layer.%d.attn.qkv.w", 1, "encoder.layer.%d.attention.self.key.weight", NULL, "H*d D",
     0},
    {"layer.%d.attn.qkv.w", 2, "encoder.layer.%d.attention.self.value.weight", NULL,
     "H*d D", 0},
    {"layer.%d.attn.qkv.b", 0, "encoder.layer.%d.attention.self.query.bias", NULL, "H*d",
     ROW_NO_DECAY},
    {"layer.%d.attn.qkv.b", 1, "encoder.layer.%d.attention.self.key.bias", NULL, "H*d",
     ROW_NO_DECAY},
    {"layer.%d.attn.qkv.b", 2, "encoder.layer.%d.attention.self.value.bias", NULL, "H*d",
     ROW_NO_DECAY},
    {"layer.%d.attn.out.w", 0, "encoder.layer.%d.attention.output.dense.weight", NULL,
     "D H*d", 0},
    {"layer.%d.attn.out.b", 0, "encoder.layer.%d.attention.output.dense.bias", NULL, "D",
     ROW_NO_DECAY},
    {"layer.%d.attn.norm.w", 0, "encoder.layer.%d.attention.output.LayerNorm.weight",
     "encoder.layer.%d.attention.output.LayerNorm.gamma", "D", ROW_NO_DECAY},
    {"layer.%d.attn.norm.b", 0, "encoder.layer.%d.attention.output.LayerNorm.bias",
     "encoder.layer.%d.attention.output.LayerNorm.beta", "D", ROW_NO_DECAY},
    {"layer.%d.ff.in.w", 0, "encoder.layer.%d.intermediate.dense.weight", NULL, "F D", 0},
    {"layer.%d.ff.in.b", 0, "encoder.layer.%d.intermediate.dense.bias", NULL, "F",
     ROW_NO_DECAY},
    {"layer.%d.ff.out.w", 0, "encoder.layer.%d.output.dense.weight", NULL, "D F", 0},
    {"layer.%d.ff.out.b", 0, "encoder.layer.%d.output.dense.bias", NULL, "D", ROW_NO_DECAY},
    {"layer.%d.ff.norm.w", 0, "encoder.layer.%d.output.LayerNorm.weight",
     "encoder.layer.%d.output.LayerNorm.gamma", "D", ROW_NO_DECAY},
    {"layer.%d.ff.norm.b", 0, "encoder.layer.%d.output.LayerNorm.bias",
     "encoder.layer.%d.output.LayerNorm.beta", "D", ROW_NO_DECAY},

    {"pooler.w", 0, "classifier.dense.weight", NULL, "D D", ROW_HEAD | ROW_BARE},
    {"pooler.b", 0, "classifier.dense.bias", NULL, "D", ROW_HEAD | ROW_BARE | ROW_NO_DECAY},
    {"head.w", 0, "classifier.out_proj.weight", NULL, "C D", ROW_HEAD | ROW_BARE},
    {"head.b", 0, "classifier.out_proj.bias", NULL, "C",
     ROW_HEAD | ROW_BARE | ROW_NO_DECAY},

    {"mlm.dense.w", 0, "lm_head.dense.weight", NULL, "D D", ROW_HEAD | ROW_BARE},
    {"mlm.dense.b", 0, "lm_head.dense.bias", NULL, "D", ROW_HEAD | ROW_BARE | ROW_NO_DECAY},
    {"mlm.norm.w", 0, "lm_head.layer_norm.weight", NULL, "D",
     ROW_HEAD | ROW_BARE | ROW_NO_DECAY},
    {"mlm.norm.b", 0, "lm_head.layer_norm.bias", NULL, "D",
     ROW_HEAD | ROW_BARE | ROW_NO_DECAY},
    {"lm.b", 0, "lm_head.bias", NULL, "V", ROW_HEAD | ROW_BARE | ROW_NO_DECAY},
    {"lm.b", 0, "lm_head.decoder.bias", NULL, "V", ROW_TIED | ROW_BARE},
    {"lm.w", 0, "lm_head.decoder.weight", NULL, "V D", ROW_HEAD | ROW_BARE},
    {"embed.word", 0, "lm_head.decoder.weight", NULL, "V D", ROW_TIED | ROW_BARE},

    {"", 0, "embeddings.position_ids", NULL, "1 P", ROW_PASSENGER},
    {"", 0, "embeddings.token_type_ids", NULL, "1 P", ROW_PASSENGER},
    {"", 0, "pooler.dense.weight", NULL, "D D", ROW_PASSENGER},
    {"", 0, "pooler.dense.bias", NULL, "D", ROW_PASSENGER},
    {NULL},
};

static int read_sizes(const json_t *c, struct dims *d, struct err *e)
{
    int rc = family_get_size(c, "vocab_size", 0, &d->V, e);

    if (!rc)
        rc = family_get_size(c, "hidden_size", 0, &d->D, e);
    if (!rc)
        rc = family_get_size(c, "num_hidden_layers", 0, &d->L, e);
    if (!rc)
        rc = family_get_size(c, "num_attention_heads", 0, &d->H, e);
    if (!rc)
        rc = family_get_size(c, "intermediate_size", 0, &d->F, e);
    if (!rc)
        rc = family_get_size(c, "max_position_embeddings", 0, &d->P, e);
    if (!rc)
        rc = family_get_size(c, "type_vocab_size", 2, &d->X, e);
    return rc ? rc : family_check_heads(d, e);
}

static int read_rates(const json_t *c, struct model_config *m, struct err *e)
{
    int rc = family_get_rate(c, "hidden_dropout_prob", 0.1, &m->dropout, e);

    if (!rc)
        rc = family_get_rate(c, "attention_probs_dropout_prob", 0.1, &m->attention_dropout,
                             e);
    return rc ? rc
              : family_get_rate(c, "classifier_dropout", m->dropout, &m->head_dropout, e);
}

static int configure(const json_t *c, struct model_config *m, struct err *e)
{
    double eps;
    int rc = read_sizes(c, &m->dims, e);

    if (!rc)
        rc = read_rates(c, m, e);
    if (!rc)
        rc = family_get_act(c, "hidden_act", "gelu", &m->act, e);
    if (!rc)
        rc = family_get_positive(c, "layer_norm_eps", 1e-12, &eps, e);
    if (!rc)
        rc = family_want_string(c, "position_embedding_type", "absolute", e);
    if (!rc)
        rc = family_want_bool(c, "is_decoder", 0, e);
    if (!rc)
        rc = family_want_bool(c, "add_cross_attention", 0, e);
    if (!rc)
        rc = family_get_id(c, "pad_token_id", 1, &m->pad_id, e);
    if (!rc)
        rc = family_get_id(c, "eos_token_id", 2, &m->eos_id, e);
    m->tied = 1;
    if (!rc)
        rc = json_get_bool(c, "tie_word_embeddings", 0, &m->tied, e);
    if (rc)
        return rc;
    if (m->pad_id < 0 || m->pad_id + 1 >= m->dims.P)
        return err_set(e, ERR_CORRUPT,
                       "\"pad_token_id\" is %d, but positions begin behind it and there "
                       "are %ld",
                       m->pad_id, m->dims.P);
    m->position_offset = m->pad_id + 1;
    m->mlm_act = ACT_GELU_ERF; /* whatever hidden_act is */
    m->norm = NORM_LAYER;
    m->norm_eps = (float)eps;
    m->norm_place = NORM_POST;
    m->position = POSITION_LEARNED;
    m->ff = FF_PLAIN;
    m->native = NATIVE_DENSE_TANH;
    m->embedding_norm = m->attention_bias = m->ff_bias = 1;
    return 0;
}

const struct family family_roberta = {
    .model_type = "roberta",
    .prefix = "roberta.",
    .arch_base = "RobertaModel",
    .arch_classify = "RobertaForSequenceClassification",
    .arch_masked = "RobertaForMaskedLM",
    .rows = rows,
    .configure = configure,
};
