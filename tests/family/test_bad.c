/* Broken checkpoints: each is refused with a message that names the file, the tensor or
 * key, what was wanted and found, and nothing leaks. */
#include <sys/stat.h>
#include <unistd.h>

#include "tests/family/checkpoint.h"

static void refused(const char *dir, enum head_kind head, int code, const char *says,
                    const char *says_too)
{
    struct model_options o = options_for(head, POOLING_MODEL);
    struct err e = {0};
    struct model *m;
    long live = mem_live();

    assert_int_equal(model_open(&m, dir, &o, &e), code);
    assert_null(m);
    if (!strstr(e.msg, says) || !strstr(e.msg, says_too))
        fail_msg("\"%s\", want \"%s\" and \"%s\"", e.msg, says, says_too);
    assert_int_equal(mem_live(), live);
}

static void make(struct checkpoint *c, const char *model_type)
{
    struct checkpoint_options o = {.dtype = DTYPE_F32};

    checkpoint_make(c, model_type, &o);
}

/* ---- config.json --------------------------------------------------------------------- */

struct key_case {
    const char *model_type, *key, *value; /* value: JSON with ' for "; NULL: removed */
    int code;
    const char *says;
};

static const struct key_case key_cases[] = {
    {"bert", "model_type", NULL, ERR_CORRUPT, "\"model_type\" is missing"},
    {"bert", "model_type", "3", ERR_CORRUPT, "\"model_type\" must be a string"},
    {"bert", "model_type", "'bart'", ERR_UNSUPPORTED, "\"bart\" is not supported"},
    {"bert", "hidden_size", NULL, ERR_CORRUPT, "\"hidden_size\" is missing"},
    {"bert", "hidden_size", "'16'", ERR_CORRUPT, "\"hidden_size\" must be an integer"},
    {"bert", "hidden_size", "16.5", ERR_CORRUPT, "\"hidden_size\" must be an integer"},
    {"bert", "hidden_size", "-16", ERR_CORRUPT, "\"hidden_size\" is -16"},
    {"bert", "hidden_size", "99999999999", ERR_CORRUPT, "\"hidden_size\" is 99999999999"},
    {"bert", "hidden_size", "18", ERR_CORRUPT, "config.json asks for"},
    {"bert", "num_attention_heads", "3", ERR_CORRUPT, "do not divide"},
    {"bert", "vocab_size", "41", ERR_CORRUPT,
     "[40, 16], but config.json asks for [41, 16]"},
    {"bert", "num_hidden_layers", "1", ERR_CORRUPT, "(config.json has 1 layers)"},
    {"bert", "num_hidden_layers", "3", ERR_CORRUPT, "missing (16): bert.encoder.layer.2."},
    {"bert", "num_hidden_layers", "5000", ERR_CORRUPT, "at most 4096"},
    {"bert", "intermediate_size", "25", ERR_CORRUPT, "feed-forward 25"},
    {"bert", "max_position_embeddings", "13", ERR_CORRUPT, "positions 13"},
    {"bert", "hidden_act", "'mish'", ERR_UNSUPPORTED, "\"hidden_act\" is \"mish\""},
    {"bert", "hidden_dropout_prob", "1.5", ERR_CORRUPT, "\"hidden_dropout_prob\" is 1.5"},
    {"bert", "layer_norm_eps", "0", ERR_CORRUPT, "\"layer_norm_eps\" is 0"},
    {"bert", "position_embedding_type", "'relative_key'", ERR_UNSUPPORTED, "relative_key"},
    {"bert", "is_decoder", "true", ERR_UNSUPPORTED, "\"is_decoder\" is true"},
    {"bert", "id2label", "{'0':'a','1':'b'}", ERR_CORRUPT, "names 2 labels"},
    {"roberta", "pad_token_id", "11", ERR_CORRUPT, "\"pad_token_id\" is 11"},
    {"distilbert", "sinusoidal_pos_embds", "true", ERR_UNSUPPORTED, "sinusoidal"},
    {"llama", "num_key_value_heads", "3", ERR_CORRUPT, "3 key-value heads"},
    {"llama", "rope_scaling", "{'type':'yarn','factor':2}", ERR_UNSUPPORTED, "yarn"},
    {"llama", "rope_scaling", "{'rope_type':'linear'}", ERR_CORRUPT, "\"factor\""},
    {"llama", "rope_scaling",
     "{'rope_type':'llama3','factor':8,'low_freq_factor':4,'high_freq_factor':1,"
     "'original_max_position_embeddings':8}",
     ERR_CORRUPT, "low_freq_factor"},
    {"llama", "rope_theta", "-1", ERR_CORRUPT, "\"rope_theta\" is -1"},
    {"llama", "partial_rotary_factor", "0.5", ERR_UNSUPPORTED, "partial_rotary_factor"},
    {"llama", "attention_bias", "false", ERR_CORRUPT, "attention_bias is false"},
    {"llama", "mlp_bias", "false", ERR_CORRUPT, "mlp_bias is false"},
    {"llama", "head_dim", "3", ERR_CORRUPT, "even head size"},
    {"gpt2", "n_embd", NULL, ERR_CORRUPT, "\"n_embd\" is missing"},
    {"gpt2", "n_head", "3", ERR_CORRUPT, "do not divide"},
    {"gpt2", "n_embd", "32", ERR_CORRUPT, "config.json asks for"},
    {"gpt2", "n_inner", "25", ERR_CORRUPT, "[16, 24], but config.json asks for [16, 25]"},
    {"gpt2", "n_inner", "null", ERR_CORRUPT, "feed-forward 64"},
    {"gpt2", "activation_function", "'mish'", ERR_UNSUPPORTED, "mish"},
    {"gpt2", "scale_attn_weights", "false", ERR_UNSUPPORTED, "scale_attn_weights"},
    {"gpt2", "scale_attn_by_inverse_layer_idx", "true", ERR_UNSUPPORTED, "inverse"},
    {"gpt2", "add_cross_attention", "true", ERR_UNSUPPORTED, "add_cross_attention"},
    {"gpt2", "embd_pdrop", "1", ERR_CORRUPT, "\"embd_pdrop\" is 1"},
    {"qwen2", "num_key_value_heads", NULL, ERR_CORRUPT, "32 key-value heads do not divide"},
    {"qwen2", "num_key_value_heads", "null", ERR_CORRUPT, "config.json asks for"},
    {"qwen2", "sliding_window", "0", ERR_CORRUPT, "\"sliding_window\" is 0"},
    {"qwen2", "max_window_layers", "-1", ERR_CORRUPT, "\"max_window_layers\" is -1"},
    {"qwen2", "use_sliding_window", "'yes'", ERR_CORRUPT, "must be true or false"},
    {"qwen2", "layer_types", "['full_attention']", ERR_CORRUPT, "2 layers"},
    {"qwen2", "layer_types", "['sliding_attention','full_attention']", ERR_UNSUPPORTED,
     "layer 0 is \"sliding_attention\""},
    {"qwen2", "layer_types", "['full_attention',1]", ERR_UNSUPPORTED, "layer 1"},
    {"qwen2", "rope_scaling", "{'type':'yarn','factor':4}", ERR_UNSUPPORTED, "yarn"},
    {"qwen3", "head_dim", NULL, ERR_CORRUPT, "head size 128"},
    {"qwen3", "head_dim", "5", ERR_CORRUPT, "even head size"},
    {"qwen3", "attention_bias", "false", ERR_CORRUPT, "attention_bias is false"},
    {"mistral", "sliding_window", "-7", ERR_CORRUPT, "\"sliding_window\" is -7"},
    {"mistral", "head_dim", "16", ERR_CORRUPT, "head size 16"},
    {"mistral", "hidden_act", "'xielu'", ERR_UNSUPPORTED, "xielu"},
};

static void test_config_keys(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof key_cases / sizeof *key_cases; i++) {
        const struct key_case *k = &key_cases[i];
        struct checkpoint c;

        make(&c, k->model_type);
        if (k->value) {
            char *text = with_quotes(k->value);

            json_object_set_new(c.json, k->key, json_loads(text, JSON_DECODE_ANY, NULL));
            mem_free(text);
        } else {
            json_object_del(c.json, k->key);
        }
        checkpoint_write(&c);
        refused(c.dir, HEAD_CLASSIFY, k->code, k->says, c.dir);
        checkpoint_free(&c);
    }
}

static void write_config(struct checkpoint *c, const char *text)
{
    struct err e;

    assert_int_equal(
        file_write_atomic(path_in(c->dir, "config.json"), text, strlen(text), &e), 0);
}

static void test_config_files(void **state)
{
    char deep[400];
    struct checkpoint c;

    (void)state;
    make(&c, "bert");
    checkpoint_write(&c);
    write_config(&c, "{\"model_type\": \"bert\",\n \"hidden_size\": }");
    refused(c.dir, HEAD_NONE, ERR_CORRUPT, "config.json:2", "");
    write_config(&c, "{\"model_type\": \"bert\", \"model_type\": \"llama\"}");
    refused(c.dir, HEAD_NONE, ERR_CORRUPT, "config.json:1", "duplicate");
    write_config(&c, "[]");
    refused(c.dir, HEAD_NONE, ERR_CORRUPT, "config.json", "expected an object");
    write_config(&c, "");
    refused(c.dir, HEAD_NONE, ERR_CORRUPT, "config.json", "");
    memset(deep, '[', sizeof deep - 1);
    deep[sizeof deep - 1] = '\0';
    write_config(&c, deep);
    refused(c.dir, HEAD_NONE, ERR_CORRUPT, "config.json", "deeper");
    assert_int_equal(unlink(path_in(c.dir, "config.json")), 0);
    refused(c.dir, HEAD_NONE, ERR_CONFIG, "config.json", "No such file");
    assert_int_equal(mkdir(path_in(c.dir, "config.json"), 0777), 0);
    refused(c.dir, HEAD_NONE, ERR_CONFIG, "config.json", "directory");
    refused(path_in(c.dir, "model.safetensors"), HEAD_NONE, ERR_CONFIG, "is not a folder",
            "");
    refused(path_in(c.dir, "absent"), HEAD_NONE, ERR_CONFIG, "no such folder", "");
    checkpoint_free(&c);
}

static void test_heads_that_are_not_there(void **state)
{
    struct model_options o = options_for(HEAD_CLASSIFY, POOLING_EOS);
    struct checkpoint c;
    struct model *m;
    struct err e;

    (void)state;
    make(&c, "bert");
    checkpoint_write(&c);
    refused(c.dir, HEAD_CAUSAL, ERR_UNSUPPORTED, "bert models have no causal", c.dir);
    assert_int_equal(model_open(&m, c.dir, &o, &e), ERR_CONFIG);
    assert_non_null(strstr(e.msg, "eos_token_id"));
    find_item(&c, "cls.predictions.transform.dense.weight")->name = "cls.seq";
    checkpoint_write(&c);
    refused(c.dir, HEAD_MASKED, ERR_CORRUPT, "missing (1): cls.predictions.transform",
            "not known to Hone (1): cls.seq");
    checkpoint_free(&c);
    make(&c, "llama");
    checkpoint_write(&c);
    refused(c.dir, HEAD_MASKED, ERR_UNSUPPORTED, "llama models have no masked", c.dir);
    json_object_del(c.json, "id2label");
    for (size_t i = 0; i < c.n; i++)
        if (!strcmp(c.item[i].name, "score.weight"))
            c.item[i] = c.item[--c.n];
    checkpoint_write(&c);
    refused(c.dir, HEAD_CLASSIFY, ERR_CONFIG, "neither a classification head nor labels",
            c.dir);
    checkpoint_free(&c);
}

/* ---- tensors ------------------------------------------------------------------------- */

static void test_tensors(void **state)
{
    struct safetensors_item *t;
    struct checkpoint c;
    char *name;

    (void)state;
    make(&c, "bert");
    find_item(&c, "layer.1.output.dense.weight")->name = "bert.encoder.layer.1.extra";
    find_item(&c, "layer.0.attention.self.key.bias")->name = "bert.encoder.layer.00.x";
    checkpoint_write(&c);
    refused(c.dir, HEAD_CLASSIFY, ERR_CORRUPT, "missing (2): ",
            "bert.encoder.layer.1.output.dense.weight; not known to Hone (2): ");
    checkpoint_free(&c);

    make(&c, "bert");
    t = find_item(&c, "layer.0.intermediate.dense.weight");
    t->shape[0] = 16;
    t->shape[1] = 24;
    checkpoint_write(&c);
    refused(c.dir, HEAD_CLASSIFY, ERR_CORRUPT, "layer.0.intermediate.dense.weight",
            "is [16, 24], but config.json asks for [24, 16]");
    t->rank = 1;
    t->shape[0] = 384;
    checkpoint_write(&c);
    refused(c.dir, HEAD_CLASSIFY, ERR_CORRUPT, "is [384], but", "[24, 16]");
    t->rank = 2;
    t->shape[0] = 24;
    t->shape[1] = 16;
    t->dtype = DTYPE_I32;
    checkpoint_write(&c);
    refused(c.dir, HEAD_CLASSIFY, ERR_UNSUPPORTED,
            "layer.0.intermediate.dense.weight is I32", "model.safetensors");
    checkpoint_free(&c);

    /* A classifier whose parts do not agree. */
    make(&c, "distilbert");
    find_item(&c, "classifier.weight")->name = "pre_classifier.weight.old";
    checkpoint_write(&c);
    refused(c.dir, HEAD_CLASSIFY, ERR_CORRUPT, "pre_classifier.weight", "");
    checkpoint_free(&c);

    /* One tensor under two names. */
    make(&c, "bert");
    name = arena_strdup(&c.arena, c.item[0].name + strlen("bert."));
    find_item(&c, "cls.seq_relationship.weight")->name = name;
    checkpoint_write(&c);
    refused(c.dir, HEAD_CLASSIFY, ERR_CORRUPT, "the same tensor twice", name);
    checkpoint_free(&c);

    /* More than ten missing: ten are listed. */
    make(&c, "bert");
    c.n = 3;
    checkpoint_write(&c);
    refused(c.dir, HEAD_NONE, ERR_CORRUPT, "tensors missing (34)", ", ...");
    checkpoint_free(&c);
}

static void test_files(void **state)
{
    struct checkpoint c;
    struct err e;

    (void)state;
    make(&c, "bert");
    checkpoint_write(&c);
    assert_int_equal(truncate(path_in(c.dir, "model.safetensors"), 9000), 0);
    refused(c.dir, HEAD_NONE, ERR_CORRUPT, "model.safetensors", "beyond the file");
    assert_int_equal(truncate(path_in(c.dir, "model.safetensors"), 100), 0);
    refused(c.dir, HEAD_NONE, ERR_CORRUPT, "model.safetensors", "the file ends");
    assert_int_equal(unlink(path_in(c.dir, "model.safetensors")), 0);
    refused(c.dir, HEAD_NONE, ERR_CONFIG, "there is no model.safetensors", c.dir);
    assert_int_equal(file_write_atomic(path_in(c.dir, "pytorch_model.bin"), "x", 1, &e), 0);
    refused(c.dir, HEAD_NONE, ERR_UNSUPPORTED, "pytorch_model.bin", "safetensors");
    checkpoint_free(&c);
}

static void index_is_refused(struct checkpoint *c, const char *text, int code,
                             const char *says)
{
    char *json = with_quotes(text);
    struct err e;

    assert_int_equal(file_write_atomic(path_in(c->dir, "model.safetensors.index.json"),
                                       json, strlen(json), &e),
                     0);
    mem_free(json);
    refused(c->dir, HEAD_NONE, code, says, "index.json");
}

static void test_index(void **state)
{
    struct checkpoint c;
    struct err e;

    (void)state;
    make(&c, "bert");
    checkpoint_write(&c);
    assert_int_equal(
        file_rename(path_in(c.dir, "model.safetensors"), path_in(c.dir, "a"), &e), 0);
    index_is_refused(&c, "{", ERR_CORRUPT, "index.json:1");
    index_is_refused(&c, "{}", ERR_CORRUPT, "weight_map");
    index_is_refused(&c, "{'weight_map':{}}", ERR_CORRUPT, "weight_map");
    index_is_refused(&c, "{'weight_map':{'x':1}}", ERR_CORRUPT, "must name a file");
    index_is_refused(&c, "{'weight_map':{'x':'../a'}}", ERR_CORRUPT, "no name of a file");
    index_is_refused(&c, "{'weight_map':{'x':'/etc/passwd'}}", ERR_CORRUPT,
                     "no name of a file");
    index_is_refused(&c, "{'weight_map':{'x':'a'}}", ERR_CORRUPT, "tensor x is not in");
    index_is_refused(&c, "{'weight_map':{'x':'b'}}", ERR_CONFIG, "/b: No such file");
    index_is_refused(&c, "{'weight_map':{'x':'.'}}", ERR_CORRUPT, "no name of a file");
    index_is_refused(&c, "{'weight_map':{'x':''}}", ERR_CORRUPT, "no name of a file");
    index_is_refused(&c, "{'weight_map':{'x':'a/../../b'}}", ERR_CORRUPT,
                     "no name of a file");
    index_is_refused(&c, "{'weight_map':['a']}", ERR_CORRUPT, "weight_map");
    checkpoint_free(&c);
}

/* Two shards that both hold a tensor: which one counts is nobody's guess. */
static void test_twice(void **state)
{
    struct checkpoint c;
    struct err e;
    json_t *map = json_object(), *index = json_pack("{s:o}", "weight_map", map);

    (void)state;
    make(&c, "bert");
    for (size_t i = 0; i < c.n; i++)
        json_object_set_new(map, c.item[i].name, json_string(i ? "a" : "b"));
    assert_int_equal(safetensors_write(path_in(c.dir, "a"), NULL, c.item, c.n, &e), 0);
    assert_int_equal(safetensors_write(path_in(c.dir, "b"), NULL, c.item, 1, &e), 0);
    assert_int_equal(json_write(path_in(c.dir, "config.json"), c.json, &e), 0);
    assert_int_equal(json_write(path_in(c.dir, "model.safetensors.index.json"), index, &e),
                     0);
    refused(c.dir, HEAD_NONE, ERR_CORRUPT, c.item[0].name, "");
    json_decref(index);
    checkpoint_free(&c);
}

/* A mend that a user can copy. */
static void test_mends(void **state)
{
    struct model_options o = options_for(HEAD_NONE, POOLING_MODEL);
    struct checkpoint c;
    struct model *m;
    struct err e;

    (void)state;
    make(&c, "bert");
    json_object_set_new(c.json, "model_type", json_string("bart"));
    checkpoint_write(&c);
    assert_int_equal(model_open(&m, c.dir, &o, &e), ERR_UNSUPPORTED);
    assert_non_null(
        strstr(e.mend, "bert, distilbert, gpt2, llama, mistral, qwen2, qwen3, roberta"));
    checkpoint_free(&c);
    make(&c, "bert");
    checkpoint_write(&c);
    assert_int_equal(unlink(path_in(c.dir, "model.safetensors")), 0);
    assert_int_equal(file_write_atomic(path_in(c.dir, "pytorch_model.bin"), "x", 1, &e), 0);
    assert_int_equal(model_open(&m, c.dir, &o, &e), ERR_UNSUPPORTED);
    assert_non_null(strstr(e.mend, "save_pretrained"));
    checkpoint_free(&c);
}

static void test_shape_strings(void **state)
{
    static const struct dims dims = {.V = 5, .D = 6, .H = 2, .K = 1, .d = 3};
    static const char *const bad[] = {"", "Z", "D D D", "D*", "D  D", "D ", "0", "d-1"};
    struct err e;
    long out[2];

    (void)state;
    assert_int_equal(family_shape("H*d D", &dims, out, &e), 2);
    assert_true(out[0] == 6 && out[1] == 6);
    assert_int_equal(family_shape("12*V", &dims, out, &e), 1);
    assert_int_equal(out[0], 60);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (family_shape(bad[i], &dims, out, &e) >= 0)
            fail_msg("shape \"%s\" was taken", bad[i]);
}

static void test_out_of_memory(void **state)
{
    struct model_options o = options_for(HEAD_CLASSIFY, POOLING_MODEL);
    struct checkpoint c;
    struct model *m;
    struct err e;
    int rc = -1;

    (void)state;
    make(&c, "bert");
    checkpoint_write(&c);
    o.trainable = 1;
    o.outputs = 7;
    for (long n = 0; rc; n++) {
        long live = mem_live();

        mem_fail_at(n);
        rc = model_open(&m, c.dir, &o, &e);
        mem_fail_at(-1);
        if (rc) {
            assert_int_equal(rc, ERR_NOMEM);
            assert_int_equal(mem_live(), live);
        }
    }
    model_close(m);
    checkpoint_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config_keys),
        cmocka_unit_test(test_config_files),
        cmocka_unit_test(test_heads_that_are_not_there),
        cmocka_unit_test(test_tensors),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_index),
        cmocka_unit_test(test_twice),
        cmocka_unit_test(test_mends),
        cmocka_unit_test(test_shape_strings),
        cmocka_unit_test(test_out_of_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
