/* RoBERTa (Liu et al. 2019): BERT's body with positions that begin behind the padding id,
 * no pooler, and its own classification head: dense, tanh, out_proj on <s>. */
#include "worker/family/bert.h"

static const struct weight_row rows[] = {
#include "worker/family/bert_body.inc"

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

static int configure(const json_t *c, struct model_config *m, struct err *e)
{
    int rc = bert_configure(c, 1, 2, m, e);

    if (rc)
        return rc;
    if (m->pad_id < 0 || m->pad_id + 1 >= m->dims.P)
        return err_set(e, ERR_CORRUPT,
                       "\"pad_token_id\" is %d, but positions begin behind it and there "
                       "are %ld",
                       m->pad_id, m->dims.P);
    m->position_offset = m->pad_id + 1;
    m->mlm_act = ACT_GELU_ERF; /* whatever hidden_act is */
    m->native = NATIVE_DENSE_TANH;
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
