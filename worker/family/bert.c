/* BERT (Devlin et al. 2019): post-norm encoder, learned positions, token types, pooler;
 * also MiniLM and other distilled BERTs. Old files say LayerNorm.gamma/beta. */
#include "worker/family/bert.h"

static const struct weight_row rows[] = {
#include "worker/family/bert_body.inc"

    {"pooler.w", 0, "pooler.dense.weight", NULL, "D D", ROW_HEAD},
    {"pooler.b", 0, "pooler.dense.bias", NULL, "D", ROW_HEAD | ROW_NO_DECAY},
    {"head.w", 0, "classifier.weight", NULL, "C D", ROW_HEAD | ROW_BARE},
    {"head.b", 0, "classifier.bias", NULL, "C", ROW_HEAD | ROW_BARE | ROW_NO_DECAY},

    {"mlm.dense.w", 0, "cls.predictions.transform.dense.weight", NULL, "D D",
     ROW_HEAD | ROW_BARE},
    {"mlm.dense.b", 0, "cls.predictions.transform.dense.bias", NULL, "D",
     ROW_HEAD | ROW_BARE | ROW_NO_DECAY},
    {"mlm.norm.w", 0, "cls.predictions.transform.LayerNorm.weight",
     "cls.predictions.transform.LayerNorm.gamma", "D", ROW_HEAD | ROW_BARE | ROW_NO_DECAY},
    {"mlm.norm.b", 0, "cls.predictions.transform.LayerNorm.bias",
     "cls.predictions.transform.LayerNorm.beta", "D", ROW_HEAD | ROW_BARE | ROW_NO_DECAY},
    {"lm.b", 0, "cls.predictions.bias", NULL, "V", ROW_HEAD | ROW_BARE | ROW_NO_DECAY},
    {"lm.b", 0, "cls.predictions.decoder.bias", NULL, "V", ROW_TIED | ROW_BARE},
    {"lm.w", 0, "cls.predictions.decoder.weight", NULL, "V D", ROW_HEAD | ROW_BARE},
    {"embed.word", 0, "cls.predictions.decoder.weight", NULL, "V D", ROW_TIED | ROW_BARE},

    {"", 0, "embeddings.position_ids", NULL, "1 P", ROW_PASSENGER},
    {"", 0, "embeddings.token_type_ids", NULL, "1 P", ROW_PASSENGER},
    {"", 0, "cls.seq_relationship.weight", NULL, "2 D", ROW_PASSENGER | ROW_BARE},
    {"", 0, "cls.seq_relationship.bias", NULL, "2", ROW_PASSENGER | ROW_BARE},
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

    m->embedding_dropout = m->dropout;
    if (!rc)
        rc = family_get_rate(c, "attention_probs_dropout_prob", 0.1, &m->attention_dropout,
                             e);
    return rc ? rc
              : family_get_rate(c, "classifier_dropout", m->dropout, &m->head_dropout, e);
}

int bert_configure(const json_t *c, int pad_id, int eos_id, struct model_config *m,
                   struct err *e)
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
        rc = family_get_id(c, "pad_token_id", pad_id, &m->pad_id, e);
    if (!rc)
        rc = family_get_id(c, "eos_token_id", eos_id, &m->eos_id, e);
    m->tied = 1;
    if (!rc)
        rc = json_get_bool(c, "tie_word_embeddings", 0, &m->tied, e);
    if (rc)
        return rc;
    m->mlm_act = m->act;
    m->norm = NORM_LAYER;
    m->norm_eps = (float)eps;
    m->norm_place = NORM_POST;
    m->position = POSITION_LEARNED;
    m->ff = FF_PLAIN;
    m->native = NATIVE_POOLER_TANH;
    m->embedding_norm = m->attention_bias = m->ff_bias = 1;
    return 0;
}

static int configure(const json_t *c, struct model_config *m, struct err *e)
{
    return bert_configure(c, 0, -1, m, e);
}

const struct family family_bert = {
    .model_type = "bert",
    .prefix = "bert.",
    .arch_base = "BertModel",
    .arch_classify = "BertForSequenceClassification",
    .arch_masked = "BertForMaskedLM",
    .rows = rows,
    .configure = configure,
};
