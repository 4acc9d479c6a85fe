/* DistilBERT (Sanh et al. 2019): BERT's body without token types and pooler, its own names
 * in config.json, and a ReLU layer before the classifier. */
#include "worker/family/family.h"

static const struct weight_row rows[] = {
    {"embed.word", 0, "embeddings.word_embeddings.weight", NULL, "V D", ROW_SPARSE},
    {"embed.position", 0, "embeddings.position_embeddings.weight", NULL, "P D", ROW_SPARSE},
    {"embed.norm.w", 0, "embeddings.LayerNorm.weight", NULL, "D", ROW_NO_DECAY},
    {"embed.norm.b", 0, "embeddings.LayerNorm.bias", NULL, "D", ROW_NO_DECAY},

    {"layer.%d.attn.qkv.w", 0, "transformer.layer.%d.attention.q_lin.weight", NULL, "H*d D",
     0},
    {"layer.%d.attn.qkv.w", 1, "transformer.layer.%d.attention.k_lin.weight", NULL, "H*d D",
     0},
    {"layer.%d.attn.qkv.w", 2, "transformer.layer.%d.attention.v_lin.weight", NULL, "H*d D",
     0},
    {"layer.%d.attn.qkv.b", 0, "transformer.layer.%d.attention.q_lin.bias", NULL, "H*d",
     ROW_NO_DECAY},
    {"layer.%d.attn.qkv.b", 1, "transformer.layer.%d.attention.k_lin.bias", NULL, "H*d",
     ROW_NO_DECAY},
    {"layer.%d.attn.qkv.b", 2, "transformer.layer.%d.attention.v_lin.bias", NULL, "H*d",
     ROW_NO_DECAY},
    {"layer.%d.attn.out.w", 0, "transformer.layer.%d.attention.out_lin.weight", NULL,
     "D H*d", 0},
    {"layer.%d.attn.out.b", 0, "transformer.layer.%d.attention.out_lin.bias", NULL, "D",
     ROW_NO_DECAY},
    {"layer.%d.attn.norm.w", 0, "transformer.layer.%d.sa_layer_norm.weight", NULL, "D",
     ROW_NO_DECAY},
    {"layer.%d.attn.norm.b", 0, "transformer.layer.%d.sa_layer_norm.bias", NULL, "D",
     ROW_NO_DECAY},
    {"layer.%d.ff.in.w", 0, "transformer.layer.%d.ffn.lin1.weight", NULL, "F D", 0},
    {"layer.%d.ff.in.b", 0, "transformer.layer.%d.ffn.lin1.bias", NULL, "F", ROW_NO_DECAY},
    {"layer.%d.ff.out.w", 0, "transformer.layer.%d.ffn.lin2.weight", NULL, "D F", 0},
    {"layer.%d.ff.out.b", 0, "transformer.layer.%d.ffn.lin2.bias", NULL, "D", ROW_NO_DECAY},
    {"layer.%d.ff.norm.w", 0, "transformer.layer.%d.output_layer_norm.weight", NULL, "D",
     ROW_NO_DECAY},
    {"layer.%d.ff.norm.b", 0, "transformer.layer.%d.output_layer_norm.bias", NULL, "D",
     ROW_NO_DECAY},

    {"pooler.w", 0, "pre_classifier.weight", NULL, "D D", ROW_HEAD | ROW_BARE},
    {"pooler.b", 0, "pre_classifier.bias", NULL, "D", ROW_HEAD | ROW_BARE | ROW_NO_DECAY},
    {"head.w", 0, "classifier.weight", NULL, "C D", ROW_HEAD | ROW_BARE},
    {"head.b", 0, "classifier.bias", NULL, "C", ROW_HEAD | ROW_BARE | ROW_NO_DECAY},

    {"mlm.dense.w", 0, "vocab_transform.weight", NULL, "D D", ROW_HEAD | ROW_BARE},
    {"mlm.dense.b", 0, "vocab_transform.bias", NULL, "D",
     ROW_HEAD | ROW_BARE | ROW_NO_DECAY},
    {"mlm.norm.w", 0, "vocab_layer_norm.weight", NULL, "D",
     ROW_HEAD | ROW_BARE | ROW_NO_DECAY},
    {"mlm.norm.b", 0, "vocab_layer_norm.bias", NULL, "D",
     ROW_HEAD | ROW_BARE | ROW_NO_DECAY},
    {"lm.b", 0, "vocab_projector.bias", NULL, "V", ROW_HEAD | ROW_BARE | ROW_NO_DECAY},
    {"lm.w", 0, "vocab_projector.weight", NULL, "V D", ROW_HEAD | ROW_BARE},
    {"embed.word", 0, "vocab_projector.weight", NULL, "V D", ROW_TIED | ROW_BARE},

    {"", 0, "embeddings.position_ids", NULL, "1 P", ROW_PASSENGER},
    {NULL},
};

static int read_sizes(const json_t *c, struct dims *d, struct err *e)
{
    int rc = family_get_size(c, "vocab_size", 0, &d->V, e);

    if (!rc)
        rc = family_get_size(c, "dim", 0, &d->D, e);
    if (!rc)
        rc = family_get_size(c, "n_layers", 0, &d->L, e);
    if (!rc)
        rc = family_get_size(c, "n_heads", 0, &d->H, e);
    if (!rc)
        rc = family_get_size(c, "hidden_dim", 0, &d->F, e);
    if (!rc)
        rc = family_get_size(c, "max_position_embeddings", 0, &d->P, e);
    d->X = 1;
    return rc ? rc : family_check_heads(d, e);
}

static int configure(const json_t *c, struct model_config *m, struct err *e)
{
    int rc = read_sizes(c, &m->dims, e);

    if (!rc)
        rc = family_get_rate(c, "dropout", 0.1, &m->dropout, e);
    if (!rc)
        rc = family_get_rate(c, "attention_dropout", 0.1, &m->attention_dropout, e);
    if (!rc)
        rc = family_get_rate(c, "seq_classif_dropout", 0.2, &m->head_dropout, e);
    if (!rc)
        rc = family_get_act(c, "activation", "gelu", &m->act, e);
    if (!rc)
        rc = family_want_bool(c, "sinusoidal_pos_embds", 0, e);
    if (!rc)
        rc = family_get_id(c, "pad_token_id", 0, &m->pad_id, e);
    if (!rc)
        rc = family_get_id(c, "eos_token_id", -1, &m->eos_id, e);
    m->tied = 1;
    if (!rc)
        rc = json_get_bool(c, "tie_word_embeddings", 0, &m->tied, e);
    if (rc)
        return rc;
    m->mlm_act = m->act;
    m->norm = NORM_LAYER;
    m->norm_eps = 1e-12f;
    m->norm_place = NORM_POST;
    m->position = POSITION_LEARNED;
    m->ff = FF_PLAIN;
    m->native = NATIVE_DENSE_RELU;
    m->no_attention_out_dropout = 1;
    m->embedding_dropout = m->dropout;
    m->embedding_norm = m->attention_bias = m->ff_bias = 1;
    return 0;
}

const struct family family_distilbert = {
    .model_type = "distilbert",
    .prefix = "distilbert.",
    .arch_base = "DistilBertModel",
    .arch_classify = "DistilBertForSequenceClassification",
    .arch_masked = "DistilBertForMaskedLM",
    .rows = rows,
    .configure = configure,
};
