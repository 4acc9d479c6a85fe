/* Heads: new, kept, replaced, renamed; what a saved folder says, and that it comes back. */
#include <math.h>

#include "tests/family/checkpoint.h"
#include "worker/model/internal.h"

static char saved[] = "/tmp/hone_heads_XXXXXX";

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(saved) ? 0 : -1;
}

static int remove_folder(void **state)
{
    struct err e;

    (void)state;
    return file_remove_tree(saved, &e);
}

static void drop_items(struct checkpoint *c, const char *part)
{
    size_t kept = 0;

    for (size_t i = 0; i < c->n; i++)
        if (!strstr(c->item[i].name, part))
            c->item[kept++] = c->item[i];
    assert_true(kept < c->n);
    c->n = kept;
}

static struct param *param_of(struct model *m, const char *slot)
{
    size_t n;
    struct param *p = model_params(m, &n);

    for (size_t i = 0; i < n; i++)
        if (!strcmp(p[i].name, slot))
            return &p[i];
    return NULL;
}

static void save(struct model *m, const char *extra)
{
    struct err e;

    if (model_save(m, saved, extra, &e))
        fail_msg("%s", e.msg);
}

/* Is there a tensor of that name in what was saved, with that first dimension? */
static int holds(const char *name, long rows)
{
    struct safetensors s;
    const struct safetensors_tensor *t;
    struct err e;
    int yes;

    assert_int_equal(safetensors_open(&s, path_in(saved, "model.safetensors"), &e), 0);
    t = safetensors_find(&s, name);
    yes = t && t->shape[0] == rows;
    safetensors_close(&s);
    return yes;
}

static json_t *json_at(const char *name)
{
    json_t *json;
    struct err e;

    if (json_read(path_in(saved, name), 1 << 20, &json, &e))
        fail_msg("%s", e.msg);
    return json;
}

static const char *string_at(const json_t *json, const char *key)
{
    const json_t *v = json_object_get(json, key);

    return json_string_value(json_is_array(v) ? json_array_get(v, 0) : v);
}

/* Loading what was saved and saving it again changes nothing. */
static void comes_back(enum head_kind head, enum pooling pooling, int value_head)
{
    static char again[] = "/tmp/hone_again_XXXXXX";
    struct model_options o = options_for(head, pooling);
    enum pooling found;
    struct model *m;
    struct err e;

    memcpy(again + sizeof again - 7, "XXXXXX", 6);
    assert_non_null(mkdtemp(again));
    assert_int_equal(model_default_pooling(saved, head, &found, &e), 0);
    assert_int_equal(found, pooling);
    o.value_head = value_head;
    m = open_or_fail(saved, &o);
    assert_int_equal(model_has_value_head(m), value_head);
    for (size_t i = 0; i < m->n_params; i++)
        assert_false(m->param[i].new_head);
    assert_int_equal(model_save(m, again, NULL, &e), 0);
    model_close(m);
    assert_true(same_file(path_in(saved, "model.safetensors"),
                          path_in(again, "model.safetensors")));
    assert_true(same_file(path_in(saved, "config.json"), path_in(again, "config.json")));
    assert_int_equal(file_remove_tree(again, &e), 0);
}

/* A plain encoder file without prefix gets a head as transformers names it. */
static void test_native_head_on_a_bare_encoder(void **state)
{
    static const char *const labels[] = {"bad", "so so", "good", "very \"good\""};
    struct checkpoint_options co = {.bare = 1, .dtype = DTYPE_F32};
    struct model_options o = options_for(HEAD_CLASSIFY, POOLING_MODEL);
    struct checkpoint c;
    struct model *m;
    json_t *json;

    (void)state;
    checkpoint_make(&c, "bert", &co);
    drop_items(&c, "classifier");
    json_object_del(c.json, "id2label");
    checkpoint_write(&c);
    o.outputs = 4;
    o.labels = labels;
    m = open_or_fail(c.dir, &o);
    assert_int_equal(model_outputs(m), 4);
    assert_string_equal(model_get_label(m, 3), labels[3]);
    assert_true(param_of(m, "head.w")->new_head);
    assert_false(param_of(m, "pooler.w")->new_head);
    save(m, "{\"provenance\":{\"stage\":\"sft\"}}");
    model_close(m);
    assert_true(holds("classifier.weight", 4));
    assert_true(holds("bert.embeddings.word_embeddings.weight", 40));
    assert_true(holds("bert.embeddings.position_ids", 1));
    assert_true(holds("cls.predictions.bias", 40));
    json = json_at("config.json");
    assert_string_equal(string_at(json, "architectures"), "BertForSequenceClassification");
    assert_string_equal(string_at(json, "problem_type"), "single_label_classification");
    assert_string_equal(string_at(json_object_get(json, "id2label"), "3"), labels[3]);
    assert_int_equal(
        json_integer_value(json_object_get(json_object_get(json, "label2id"), labels[3])),
        3);
    json_decref(json);
    json = json_at("hone.json");
    assert_string_equal(string_at(json, "pooling"), "model");
    assert_string_equal(string_at(json, "head"), "classify");
    assert_string_equal(string_at(json, "labels"), "bad");
    assert_string_equal(string_at(json_object_get(json, "provenance"), "stage"), "sft");
    json_decref(json);
    comes_back(HEAD_CLASSIFY, POOLING_MODEL, 0);
    checkpoint_free(&c);
}

/* Pooling that transformers does not have: its classifier must not be there to answer. */
static void test_other_pooling(void **state)
{
    (void)state;
    for (size_t f = 0; family_registry[f]; f++) {
        struct checkpoint_options co = {.dtype = DTYPE_F32};
        struct model_options o = options_for(HEAD_CLASSIFY, POOLING_MEAN);
        struct checkpoint c;
        struct model *m;
        json_t *json;

        checkpoint_make(&c, family_registry[f]->model_type, &co);
        checkpoint_write(&c);
        m = open_or_fail(c.dir, &o);
        assert_int_equal(model_outputs(m), 3);
        assert_null(param_of(m, "pooler.w"));
        assert_false(param_of(m, "head.w")->new_head); /* the file's own fits */
        save(m, NULL);
        model_close(m);
        assert_true(holds("hone_classifier.weight", 3));
        assert_true(holds("hone_classifier.bias", 3));
        assert_false(holds("classifier.weight", 3));
        assert_false(holds("classifier.out_proj.weight", 3));
        assert_false(holds("score.weight", 3));
        json = json_at("config.json");
        assert_string_equal(string_at(json, "architectures"), c.family->arch_base);
        json_decref(json);
        comes_back(HEAD_CLASSIFY, POOLING_MEAN, 0);
        checkpoint_free(&c);
    }
}

/* Another number of labels, a reward, a value head: new where needed, kept where not. */
static void test_reward_and_value(void **state)
{
    (void)state;
    for (size_t f = 0; family_registry[f]; f++) {
        struct checkpoint_options co = {.dtype = DTYPE_BF16};
        struct model_options o = options_for(HEAD_REWARD, POOLING_MODEL);
        struct checkpoint c;
        struct model *m;
        struct err e;

        checkpoint_make(&c, family_registry[f]->model_type, &co);
        checkpoint_write(&c);
        m = open_or_fail(c.dir, &o);
        assert_int_equal(model_outputs(m), 1);
        assert_true(param_of(m, "head.w")->new_head);
        save(m, NULL);
        model_close(m);
        comes_back(HEAD_REWARD, POOLING_MODEL, 0);

        o = options_for(HEAD_CLASSIFY, POOLING_MODEL);
        o.value_head = 1;
        m = open_or_fail(c.dir, &o);
        assert_false(param_of(m, "head.w")->new_head);
        assert_true(param_of(m, "value.w")->new_head);
        assert_int_equal(param_of(m, "value.w")->rows, 1);
        save(m, NULL);
        model_close(m);
        assert_true(holds("value_head.weight", 1));
        comes_back(HEAD_CLASSIFY, POOLING_MODEL, 1);
        comes_back(HEAD_CLASSIFY, POOLING_MODEL, 0);

        o.keep_head = 0;
        m = open_or_fail(saved, &o);
        assert_true(param_of(m, "head.w")->new_head && param_of(m, "value.w")->new_head);
        assert_int_equal(model_save(m, saved, NULL, &e), 0);
        model_close(m);
        comes_back(HEAD_CLASSIFY, POOLING_MODEL, 1);
        checkpoint_free(&c);
    }
}

static void test_new_weights(void **state)
{
    struct checkpoint_options co = {.dtype = DTYPE_F32};
    struct model_options o = options_for(HEAD_CLASSIFY, POOLING_MODEL);
    struct checkpoint c;
    struct model *m[3];
    double sum = 0, squares = 0;
    size_t n;

    (void)state;
    checkpoint_make(&c, "roberta", &co);
    drop_items(&c, "classifier");
    checkpoint_write(&c);
    o.outputs = 300;
    for (int i = 0; i < 3; i++) {
        o.seed = i == 2 ? 4 : 3;
        m[i] = open_or_fail(c.dir, &o);
        assert_true(param_of(m[i], "head.w")->new_head);
        assert_true(param_of(m[i], "pooler.w")->new_head);
    }
    n = 300 * 16;
    assert_memory_equal(param_of(m[0], "head.w")->data, param_of(m[1], "head.w")->data,
                        n * sizeof(float));
    assert_memory_not_equal(param_of(m[0], "head.w")->data, param_of(m[2], "head.w")->data,
                            n * sizeof(float));
    assert_memory_not_equal(param_of(m[0], "head.w")->data,
                            param_of(m[0], "pooler.w")->data, 256 * sizeof(float));
    for (size_t i = 0; i < n; i++) {
        double x = param_of(m[0], "head.w")->data[i];

        sum += x;
        squares += x * x;
    }
    assert_true(fabs(sum / (double)n) < 0.0012); /* 4 standard errors */
    assert_true(fabs(sqrt(squares / (double)n) - 0.02) < 0.001);
    for (int i = 0; i < 300; i++)
        assert_true(param_of(m[0], "head.b")->data[i] == 0);
    for (int i = 0; i < 3; i++)
        model_close(m[i]);
    checkpoint_free(&c);
}

/* Rows stacked in order, flags, alignment, gradients of zero. */
static void test_parameters(void **state)
{
    struct checkpoint_options co = {.dtype = DTYPE_F32};
    struct model_options o = options_for(HEAD_CLASSIFY, POOLING_MODEL);
    struct checkpoint c;
    struct model *m;
    struct param *p;
    size_t n;

    (void)state;
    checkpoint_make(&c, "bert", &co);
    checkpoint_write(&c);
    o.trainable = 1;
    m = open_or_fail(c.dir, &o);
    p = param_of(m, "layer.1.attn.qkv.w");
    assert_true(p->rows == 48 && p->cols == 16 && p->decay && !p->live);
    assert_memory_equal(p->data + 256,
                        find_item(&c, "layer.1.attention.self.key.weight")->data, 1024);
    p = param_of(m, "layer.0.attn.qkv.b");
    assert_true(p->rows == 1 && p->cols == 48 && !p->decay);
    assert_memory_equal(p->data + 32,
                        find_item(&c, "layer.0.attention.self.value.bias")->data, 64);
    p = param_of(m, "embed.word");
    assert_true(p->live && p->touched && p->decay);
    assert_true(!param_of(m, "layer.0.attn.norm.w")->decay);
    p = model_params(m, &n);
    for (size_t i = 0; i < n; i++) {
        uint64_t version = p[i].pack[0].version;

        assert_int_equal((uintptr_t)p[i].data % 64, 0);
        assert_int_equal((uintptr_t)p[i].grad % 64, 0);
        assert_true(p[i].trainable && version >= 1);
        for (long j = 0; j < p[i].rows * p[i].cols; j++)
            assert_true(p[i].grad[j] == 0);
        model_touch(m);
        assert_int_equal(p[i].pack[0].version, version + 1);
    }
    model_close(m);
    checkpoint_free(&c);
}

static void test_copy_encoder(void **state)
{
    struct checkpoint_options co = {.dtype = DTYPE_F32, .vocab = 2000};
    struct model_options o = options_for(HEAD_CLASSIFY, POOLING_MODEL);
    struct checkpoint c, other;
    struct model *from, *to;
    struct err e;

    (void)state;
    checkpoint_make(&c, "bert", &co);
    checkpoint_write(&c);
    from = open_or_fail(c.dir, &o);
    param_of(from, "embed.word")->data[5] = 42; /* in the map of the file, privately */
    param_of(from, "pooler.w")->data[5] = 43;
    o.head = HEAD_REWARD;
    o.trainable = 1;
    to = open_or_fail(c.dir, &o);
    param_of(to, "head.w")->data[0] = 7;
    assert_int_equal(model_copy_encoder(to, from, &e), 0);
    assert_true(param_of(to, "embed.word")->data[5] == 42);
    assert_true(param_of(to, "pooler.w")->data[5] == 43);
    assert_true(param_of(to, "head.w")->data[0] == 7);
    model_close(to);
    assert_int_equal(model_save(from, saved, NULL, &e), 0);
    assert_false(same_file(path_in(c.dir, "model.safetensors"),
                           path_in(saved, "model.safetensors")));
    param_of(from, "embed.word")->data[5] =
        ((const float *)find_item(&c, "word_emb")->data)[5];
    param_of(from, "pooler.w")->data[5] =
        ((const float *)find_item(&c, "pooler.dense.weight")->data)[5];
    assert_int_equal(model_save(from, saved, NULL, &e), 0);
    assert_true(same_file(path_in(c.dir, "model.safetensors"),
                          path_in(saved, "model.safetensors")));
    checkpoint_make(&other, "llama", &co);
    checkpoint_write(&other);
    to = open_or_fail(other.dir, &o);
    assert_int_equal(model_copy_encoder(to, from, &e), ERR_CONFIG);
    assert_non_null(strstr(e.msg, "layer.0.attn.qkv.w is 48 x 16"));
    model_close(to);
    model_close(from);
    checkpoint_free(&c);
    checkpoint_free(&other);
}

static void test_info_and_pooling(void **state)
{
    struct checkpoint_options co = {.dtype = DTYPE_F32};
    enum pooling pooling;
    struct model_info info;
    struct checkpoint c;
    struct err e;

    (void)state;
    checkpoint_make(&c, "roberta", &co);
    checkpoint_write(&c);
    assert_int_equal(model_read_info(c.dir, &info, &e), 0);
    assert_string_equal(info.family, "roberta");
    assert_true(info.layers == 2 && info.width == 16 && info.vocab == 40 && !info.causal);
    assert_int_equal(info.positions, 10); /* two lie before the first position */
    assert_int_equal(info.parameters, 32 * 2 + 16 * (40 + 12 + 1 - 2) +
                                          2 * (4 * (256 + 16) + 4 * 16 + 2 * 384 + 40));
    assert_int_equal(model_default_pooling(c.dir, HEAD_CLASSIFY, &pooling, &e), 0);
    assert_int_equal(pooling, POOLING_MODEL);
    checkpoint_free(&c);
    checkpoint_make(&c, "bert", &co);
    drop_items(&c, "pooler.dense");
    checkpoint_write(&c);
    assert_int_equal(model_default_pooling(c.dir, HEAD_CLASSIFY, &pooling, &e), 0);
    assert_int_equal(pooling, POOLING_CLS);
    assert_int_equal(file_write_atomic(path_in(c.dir, "hone.json"),
                                       "{\"pooling\":\"last_token\"}", 24, &e),
                     0);
    assert_int_equal(model_default_pooling(c.dir, HEAD_CLASSIFY, &pooling, &e), 0);
    assert_int_equal(pooling, POOLING_LAST_TOKEN);
    checkpoint_free(&c);
}

/* The tokenizer goes along, even when the source folder is gone by then. */
static void test_tokenizer_goes_along(void **state)
{
    struct checkpoint_options co = {.dtype = DTYPE_F32};
    struct model_options o = options_for(HEAD_NONE, POOLING_MODEL);
    struct checkpoint c;
    struct model *m;
    struct err e;

    (void)state;
    checkpoint_make(&c, "bert", &co);
    checkpoint_write(&c);
    assert_int_equal(file_write_atomic(path_in(c.dir, "vocab.txt"), "[PAD]\n", 6, &e), 0);
    o.trainable = 1;
    m = open_or_fail(c.dir, &o);
    checkpoint_free(&c);
    save(m, NULL);
    model_close(m);
    assert_int_equal(file_size(path_in(saved, "vocab.txt")), 6);
    assert_false(file_exists(path_in(saved, "merges.txt")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_native_head_on_a_bare_encoder),
        cmocka_unit_test(test_other_pooling),
        cmocka_unit_test(test_reward_and_value),
        cmocka_unit_test(test_new_weights),
        cmocka_unit_test(test_parameters),
        cmocka_unit_test(test_copy_encoder),
        cmocka_unit_test(test_info_and_pooling),
        cmocka_unit_test(test_tokenizer_goes_along),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
