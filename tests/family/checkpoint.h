/* Tiny random checkpoints of every family, made from the family's own rows, in a temporary
 * folder; tests bend them before they are written. */
#ifndef TESTS_FAMILY_CHECKPOINT_H
#define TESTS_FAMILY_CHECKPOINT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "worker/ckpt/safetensors.h"
#include "worker/family/family.h"
#include "worker/model/model.h"

/* A config.json per model_type: to test a new family, add its line. */
static const char *const configs[] = {
    "{'model_type':'bert','architectures':['BertForSequenceClassification'],"
    "'vocab_size':40,'hidden_size':16,'num_hidden_layers':2,'num_attention_heads':2,"
    "'intermediate_size':24,'max_position_embeddings':12,'type_vocab_size':2,"
    "'hidden_act':'gelu','layer_norm_eps':1e-12,'hidden_dropout_prob':0.1,"
    "'id2label':{'0':'a','1':'b','2':'c'}}",
    "{'model_type':'roberta','architectures':['RobertaForSequenceClassification'],"
    "'vocab_size':40,'hidden_size':16,'num_hidden_layers':2,'num_attention_heads':2,"
    "'intermediate_size':24,'max_position_embeddings':12,'type_vocab_size':1,"
    "'pad_token_id':1,'eos_token_id':2,'id2label':{'0':'a','1':'b','2':'c'}}",
    "{'model_type':'distilbert','architectures':['DistilBertForSequenceClassification'],"
    "'vocab_size':40,'dim':16,'n_layers':2,'n_heads':2,'hidden_dim':24,"
    "'max_position_embeddings':12,'sinusoidal_pos_embds':false,"
    "'id2label':{'0':'a','1':'b','2':'c'}}",
    "{'model_type':'llama','architectures':['LlamaForCausalLM'],'vocab_size':40,"
    "'hidden_size':16,'num_hidden_layers':2,'num_attention_heads':4,"
    "'num_key_value_heads':2,'intermediate_size':24,'max_position_embeddings':12,"
    "'attention_bias':true,'mlp_bias':true,'eos_token_id':2,"
    "'id2label':{'0':'a','1':'b','2':'c'}}",
    "{'model_type':'gpt2','architectures':['GPT2LMHeadModel'],'vocab_size':40,"
    "'n_embd':16,'n_layer':2,'n_head':2,'n_positions':12,'n_inner':24,'eos_token_id':2,"
    "'id2label':{'0':'a','1':'b','2':'c'}}",
    "{'model_type':'qwen2','architectures':['Qwen2ForCausalLM'],'vocab_size':40,"
    "'hidden_size':16,'num_hidden_layers':2,'num_attention_heads':4,"
    "'num_key_value_heads':2,'intermediate_size':24,'max_position_embeddings':12,"
    "'use_sliding_window':true,'sliding_window':3,'max_window_layers':1,"
    "'eos_token_id':2,'id2label':{'0':'a','1':'b','2':'c'}}",
    "{'model_type':'qwen3','architectures':['Qwen3ForCausalLM'],'vocab_size':40,"
    "'hidden_size':16,'num_hidden_layers':2,'num_attention_heads':4,"
    "'num_key_value_heads':2,'head_dim':6,'intermediate_size':24,"
    "'max_position_embeddings':12,'attention_bias':true,'eos_token_id':2,"
    "'id2label':{'0':'a','1':'b','2':'c'}}",
    "{'model_type':'mistral','architectures':['MistralForCausalLM'],'vocab_size':40,"
    "'hidden_size':16,'num_hidden_layers':2,'num_attention_heads':4,"
    "'num_key_value_heads':2,'intermediate_size':24,'max_position_embeddings':12,"
    "'sliding_window':3,'id2label':{'0':'a','1':'b','2':'c'}}",
};

enum { ITEMS_MAX = 256 };

struct checkpoint {
    struct arena arena;
    char dir[128];
    const struct family *family;
    struct model_config config;
    json_t *json;
    struct safetensors_item item[ITEMS_MAX];
    size_t n;
};

struct checkpoint_options {
    int bare;   /* names without the family's prefix */
    int alias;  /* older names */
    int untied; /* tie_word_embeddings: false */
    enum dtype dtype;
    long vocab; /* 0: 40 */
};

static inline char *with_quotes(const char *text)
{
    char *s = mem_strdup(text);

    assert_non_null(s);
    for (char *p = s; *p; p++)
        if (*p == '\'')
            *p = '"';
    return s;
}

static inline json_t *config_of(const char *model_type)
{
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        char *text = with_quotes(configs[i]);
        json_t *json = NULL;
        const char *type = NULL;
        struct err e;

        assert_int_equal(json_parse("config", text, strlen(text), &json, &e), 0);
        mem_free(text);
        assert_int_equal(json_get_string(json, "model_type", 1, &type, &e), 0);
        if (!strcmp(type, model_type))
            return json;
        json_decref(json);
    }
    fail_msg("tests/family/checkpoint.h has no config for \"%s\"", model_type);
    return NULL;
}

static inline const char *name_of(struct checkpoint *c, const struct weight_row *r,
                                  long layer, const struct checkpoint_options *o)
{
    const char *pattern = o->alias && r->alias ? r->alias : r->name;
    const char *prefix = o->bare || r->flags & ROW_BARE ? "" : c->family->prefix;
    const char *d = strstr(pattern, "%d");

    if (!d)
        return arena_printf(&c->arena, "%s%s", prefix, pattern);
    return arena_printf(&c->arena, "%s%.*s%ld%s", prefix, (int)(d - pattern), pattern,
                        layer, d + 2);
}

static inline void add_item(struct checkpoint *c, const char *name, enum dtype dtype,
                            int rank, const long *shape, struct rng *rng)
{
    struct safetensors_item *t = &c->item[c->n++];
    size_t n = 1, bytes;
    float bad, *x;
    char *data;

    assert_true(c->n <= ITEMS_MAX);
    *t = (struct safetensors_item){.name = name, .dtype = dtype, .rank = rank};
    for (int i = 0; i < rank; i++) {
        t->shape[i] = shape[i];
        n *= (size_t)shape[i];
    }
    bytes = n * dtype_size(dtype);
    t->data = data = arena_alloc(&c->arena, bytes + 1);
    x = arena_alloc(&c->arena, n * sizeof *x + 1);
    assert_true(data && x);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(0.3 * rng_normal(rng));
    if (dtype == DTYPE_F64)
        for (size_t i = 0; i < n; i++)
            ((double *)(void *)data)[i] = 0.3 * rng_normal(rng);
    else if (dtype_is_float(dtype))
        assert_int_equal(dtype_from_f32(dtype, x, data, n, &bad), 0);
    else
        for (size_t i = 0; i < bytes; i++)
            data[i] = (char)rng_u32(rng);
}

static inline struct safetensors_item *find_item(struct checkpoint *c, const char *part)
{
    for (size_t i = 0; i < c->n; i++)
        if (strstr(c->item[i].name, part))
            return &c->item[i];
    fail_msg("no tensor with \"%s\" in its name", part);
    return NULL;
}

static inline void add_row(struct checkpoint *c, const struct weight_row *r, long layer,
                           const struct checkpoint_options *o, struct rng *rng)
{
    int ids = strstr(r->name, "_ids") != NULL;
    struct dims dims = c->config.dims;
    const char *name = name_of(c, r, layer, o);
    struct err e;
    long shape[2];
    int rank;

    dims.C = 3;
    rank = family_shape(r->shape, &dims, shape, &e);
    assert_true(rank > 0);
    add_item(c, name, ids ? DTYPE_I64 : o->dtype, rank, shape, rng);
    if (r->flags & ROW_TIED) /* a copy of the tensor that was added first */
        for (const struct weight_row *p = c->family->rows; p->slot; p++)
            if (!strcmp(p->slot, r->slot) && !(p->flags & ROW_TIED)) {
                struct safetensors_item *t = &c->item[c->n - 1];

                t->data = find_item(c, name_of(c, p, layer, o))->data;
                break;
            }
}

static inline void checkpoint_make(struct checkpoint *c, const char *model_type,
                                   const struct checkpoint_options *o)
{
    struct rng rng;
    struct err e;

    memset(c, 0, sizeof *c);
    snprintf(c->dir, sizeof c->dir, "/tmp/hone_checkpoint_XXXXXX");
    assert_non_null(mkdtemp(c->dir));
    c->family = family_find(model_type, &e);
    assert_non_null(c->family);
    c->json = config_of(model_type);
    if (o->untied)
        json_object_set_new(c->json, "tie_word_embeddings", json_false());
    if (o->vocab)
        json_object_set_new(c->json, "vocab_size", json_integer(o->vocab));
    if (c->family->configure(c->json, &c->config, &e))
        fail_msg("%s", e.msg);
    rng_init(&rng, 7);
    for (const struct weight_row *r = c->family->rows; r->slot; r++) {
        long layers = strstr(r->name, "%d") ? c->config.dims.L : 1;

        if ((r->flags & ROW_TIED && !strcmp(r->slot, "embed.word") && !c->config.tied) ||
            (!strcmp(r->slot, "lm.w") && c->config.tied))
            continue;
        for (long layer = 0; layer < layers; layer++)
            add_row(c, r, layer, o, &rng);
    }
}

static inline const char *path_in(const char *dir, const char *name)
{
    static char path[2][512];
    static int turn;

    turn = !turn;
    snprintf(path[turn], sizeof path[turn], "%s/%s", dir, name);
    return path[turn];
}

static inline void checkpoint_write(struct checkpoint *c)
{
    struct err e;

    if (json_write(path_in(c->dir, "config.json"), c->json, &e) ||
        safetensors_write(path_in(c->dir, "model.safetensors"), "{\"format\":\"pt\"}",
                          c->item, c->n, &e))
        fail_msg("%s", e.msg);
}

static inline void checkpoint_free(struct checkpoint *c)
{
    struct err e;

    assert_int_equal(file_remove_tree(c->dir, &e), 0);
    mem_free(c->config.rotary_freq);
    json_decref(c->json);
    arena_fini(&c->arena);
}

static inline struct model_options options_for(enum head_kind head, enum pooling pooling)
{
    return (struct model_options){.backend = backend_find("cpu"),
                                  .head = head,
                                  .pooling = pooling,
                                  .keep_head = 1,
                                  .dropout = -1,
                                  .seed = 3};
}

static inline struct model *open_or_fail(const char *dir, const struct model_options *o)
{
    struct model *m;
    struct err e;

    if (model_open(&m, dir, o, &e))
        fail_msg("%s", e.msg);
    return m;
}

static inline int same_file(const char *a, const char *b)
{
    struct file_map x, y;
    struct err e;
    int same;

    assert_int_equal(file_map_open(&x, a, &e), 0);
    assert_int_equal(file_map_open(&y, b, &e), 0);
    same = x.size == y.size && !memcmp(x.bytes, y.bytes, x.size);
    file_map_close(&x);
    file_map_close(&y);
    return same;
}

#endif
